"""Why the mail has not come, on every database: what support sees of each state."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event, select, update

from identity.database import Database, moment_of
from identity.deadlines import Deadline
from identity.errors import DeadlineTooShort, UserNotFound
from identity.mail.deliverer import FIRST_DELAY
from identity.mail.outbox import LEASE
from identity.mail.sender import AccountFailure, PermanentFailure, TemporaryFailure
from identity.models import OutboxMail, User, Verification
from identity.schemas import UserReference
from identity.services.delivery import (
    MOST_MAILS,
    DeliveryState,
    DeliveryStatus,
    DeliveryStatusService,
    MailStatus,
)
from tests.fakes import FakeClock, RecordingSender
from tests.outbox import UNKNOWN, deliverer, outbox, queue, queue_mails
from tests.registrar import LIFETIME, issuer

BUSY = TemporaryFailure("smtp 451 to DATA")
REFUSED = PermanentFailure("smtp 550 to RCPT")
NOT_NOW = AccountFailure("ses SendingPausedException")

Ask = Callable[[str], DeliveryStatus]


@pytest.fixture
def deliveries(database: Database, clock: FakeClock) -> DeliveryStatusService:
    return DeliveryStatusService(database, moment_of(clock.now))


@pytest.fixture
def ask(deliveries: DeliveryStatusService) -> Ask:
    """How the mails of the user of that id stand."""
    return lambda user_id: deliveries.status(UserReference.checked(user_id=user_id), Deadline())


@pytest.fixture
def mail(database: Database, ask: Ask) -> Callable[[str], MailStatus]:
    """How the mail of that id stands."""

    def found(mail_id: str) -> MailStatus:
        (status,) = ask(owner(database, mail_id)).mails
        return status

    return found


def owner(database: Database, mail_id: str) -> str:
    with database.read() as connection:
        return str(connection.scalar(select(OutboxMail.user_id).where(OutboxMail.id == mail_id)))


def queue_another(database: Database, clock: FakeClock, user_id: str) -> None:
    with database.write() as connection:
        issuer(clock).issue(
            connection,
            user_id=user_id,
            email="ann@example.com",
            now=clock.now(),
            expires_at=clock.now() + LIFETIME,
        )


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Every query that is run meanwhile, with its parameters."""
    run: list[tuple[str, Any]] = []

    def note(_c: Connection, _cursor: object, sql: str, parameters: object, *_: object) -> None:
        if sql.startswith(("SELECT", "WITH")):
            run.append((sql, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    yield run
    event.remove(database.engine, "before_cursor_execute", note)


def plans(database: Database, run: list[tuple[str, Any]]) -> str:
    """How the database carries them out.

    PostgreSQL is tempted as by large tables: to walk an index in the order that is asked for.
    """
    explain = "EXPLAIN" if database.has_clock else "EXPLAIN QUERY PLAN"
    with database.read() as connection:
        if database.has_clock:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_sort = off")
        return "\n".join(
            str(step)
            for sql, parameters in run
            for step in connection.exec_driver_sql(f"{explain} {sql}", parameters)
        )


def test_a_mail_that_nobody_has_tried_yet_is_queued(
    database: Database, clock: FakeClock, mail: Callable[[str], MailStatus]
) -> None:
    queued_at = clock.now()
    (mail_id,) = queue(database, clock)
    assert mail(mail_id) == MailStatus(
        id=mail_id,
        state=DeliveryState.QUEUED,
        attempts=0,
        created_at=queued_at,
        sent_at=None,
        dead_at=None,
        next_try_at=queued_at,
        last_error=None,
        pause_reason=None,
        link_expires_at=queued_at + LIFETIME,
    )


def test_a_delayed_mail_tells_why_and_when_it_is_tried_again(
    database: Database, clock: FakeClock, mail: Callable[[str], MailStatus]
) -> None:
    (mail_id,) = queue(database, clock)
    deliverer(database, clock, RecordingSender(BUSY)).deliver_due()
    found = mail(mail_id)
    assert (found.state, found.attempts) == (DeliveryState.QUEUED, 1)
    assert found.last_error == "smtp 451 to DATA"
    assert found.next_try_at == clock.now() + FIRST_DELAY


def test_a_mail_that_is_being_tried_has_no_next_try_until_its_lease_ends(
    database: Database, clock: FakeClock, mail: Callable[[str], MailStatus]
) -> None:
    (mail_id,) = queue(database, clock)
    outbox(database, clock).claim(1)
    ends = clock.now() + LEASE
    clock.advance(seconds=LEASE.total_seconds() - 1)
    found = mail(mail_id)
    assert (found.state, found.next_try_at) == (DeliveryState.QUEUED, None)
    clock.advance(seconds=1)  # its deliverer died
    assert mail(mail_id).next_try_at == ends


def test_a_sent_mail_tells_when(
    database: Database, clock: FakeClock, mail: Callable[[str], MailStatus]
) -> None:
    (mail_id,) = queue(database, clock)
    deliverer(database, clock, RecordingSender(BUSY)).deliver_due()
    clock.advance(minutes=1)
    deliverer(database, clock, RecordingSender()).deliver_due()
    found = mail(mail_id)
    assert (found.state, found.sent_at) == (DeliveryState.SENT, clock.now())
    assert (found.attempts, found.last_error) == (1, None)
    assert (found.next_try_at, found.dead_at) == (None, None)


def test_a_dead_mail_tells_why_and_since_when(
    database: Database, clock: FakeClock, mail: Callable[[str], MailStatus]
) -> None:
    (mail_id,) = queue(database, clock)
    deliverer(database, clock, RecordingSender(REFUSED)).deliver_due()
    found = mail(mail_id)
    assert (found.state, found.dead_at) == (DeliveryState.DEAD, clock.now())
    assert found.last_error == "smtp 550 to RCPT"
    assert (found.next_try_at, found.sent_at) == (None, None)


def test_during_a_pause_what_is_queued_is_paused_with_the_reason_and_no_next_try(
    database: Database, clock: FakeClock, mail: Callable[[str], MailStatus]
) -> None:
    (sent,) = queue(database, clock)
    deliverer(database, clock, RecordingSender()).deliver_due()
    (dead,) = queue(database, clock)
    deliverer(database, clock, RecordingSender(REFUSED)).deliver_due()
    (delayed,) = queue(database, clock)
    deliverer(database, clock, RecordingSender(BUSY)).deliver_due()
    (untried,) = queue(database, clock)
    deliverer(database, clock, RecordingSender(NOT_NOW)).deliver_due()

    def told(mail_id: str) -> tuple[DeliveryState, str | None, str | None, bool]:
        found = mail(mail_id)
        return found.state, found.last_error, found.pause_reason, found.next_try_at is not None

    assert told(sent) == (DeliveryState.SENT, None, None, False)
    assert told(dead) == (DeliveryState.DEAD, "smtp 550 to RCPT", None, False)
    assert told(delayed) == (DeliveryState.PAUSED, "smtp 451 to DATA", NOT_NOW.reason, False)
    assert told(untried) == (DeliveryState.PAUSED, None, NOT_NOW.reason, False)
    outbox(database, clock).resume()
    assert told(delayed) == (DeliveryState.QUEUED, "smtp 451 to DATA", None, True)


def test_a_users_mails_come_newest_first_and_not_more_than_ten(
    database: Database, clock: FakeClock, ask: Ask
) -> None:
    (mail_id,) = queue(database, clock)
    queue(database, clock)  # somebody else's
    user_id = owner(database, mail_id)
    for _ in range(2):
        queue_another(database, clock, user_id)
        clock.advance(seconds=1)
    moments = [mail.created_at for mail in ask(user_id).mails]
    assert len(moments) == 3
    assert moments == sorted(moments, reverse=True)
    for _ in range(MOST_MAILS):
        queue_another(database, clock, user_id)
        clock.advance(seconds=1)
    mails = ask(user_id).mails
    assert len(mails) == MOST_MAILS == 10
    assert mails[0].created_at == clock.now() - timedelta(seconds=1)
    assert mails[-1].created_at == clock.now() - timedelta(seconds=MOST_MAILS)


def test_the_id_and_the_address_name_the_same_user(
    database: Database, clock: FakeClock, deliveries: DeliveryStatusService
) -> None:
    mail_id, _ = queue(database, clock, 2)
    user_id = owner(database, mail_id)
    references = [
        UserReference.checked(user_id=user_id.upper()),
        UserReference.checked(email=f"{user_id}@Example.com"),
    ]
    by_id, by_address = [deliveries.status(each, Deadline()) for each in references]
    assert by_id == by_address
    assert (by_id.user_id, [mail.id for mail in by_id.mails]) == (user_id, [mail_id])


def test_whose_mails_are_forgotten_is_still_told_to_be_verified(
    database: Database, clock: FakeClock, ask: Ask
) -> None:
    (mail_id,) = queue(database, clock)
    user_id = owner(database, mail_id)
    assert not ask(user_id).is_email_verified
    with database.write() as connection:
        connection.execute(update(User).values(is_email_verified=True))
        connection.execute(delete(OutboxMail))
    assert ask(user_id) == DeliveryStatus(user_id, is_email_verified=True, mails=())


def test_a_mail_whose_link_is_forgotten_is_told_without_its_end(
    database: Database, clock: FakeClock, mail: Callable[[str], MailStatus]
) -> None:
    (mail_id,) = queue(database, clock)
    with database.write() as connection:
        connection.execute(delete(Verification))
    assert mail(mail_id).link_expires_at is None


@pytest.mark.parametrize("named", [{"user_id": UNKNOWN}, {"email": "nobody@example.com"}])
def test_who_is_not_registered_is_not_found(
    database: Database,
    clock: FakeClock,
    deliveries: DeliveryStatusService,
    named: dict[str, str],
) -> None:
    queue(database, clock)
    with pytest.raises(UserNotFound):
        deliveries.status(UserReference.checked(**named), Deadline())


def test_nothing_is_looked_up_for_a_caller_who_has_gone(
    database: Database, deliveries: DeliveryStatusService
) -> None:
    gone = Deadline(is_wanted=lambda: False)
    with statements(database) as run, pytest.raises(DeadlineTooShort):
        deliveries.status(UserReference.checked(user_id=UNKNOWN), gone)
    assert run == []


@pytest.mark.parametrize("named", ["user_id", "email"])
def test_a_user_among_many_is_found_by_indexes(
    database: Database, clock: FakeClock, deliveries: DeliveryStatusService, named: str
) -> None:
    queue_mails(database, clock, 20)
    with database.read() as connection:
        user = connection.execute(select(User.id.label("user_id"), User.email).limit(1)).one()
    with statements(database) as run:
        deliveries.status(UserReference.checked(**{named: getattr(user, named)}), Deadline())
    carried_out = plans(database, run)
    assert "ix_outbox_user_id" in carried_out
    assert set(re.findall(r"(?:Seq Scan on|SCAN) (\w+)", carried_out)) <= {
        "outbox_pause",  # one row at most
        "theirs",
        "CONSTANT",  # no table: SQLite is asked for the time
    }
