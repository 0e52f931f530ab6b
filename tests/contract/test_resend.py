"""Sending again, on every database: limits by address, life and hold, and races."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, text, update

from identity.database import Database
from identity.deadlines import Deadline
from identity.errors import EmailTaken
from identity.models import User, Verification
from identity.schemas import Registration
from identity.security.passwords import PasswordHasher
from identity.security.tokens import TokenSigner
from identity.services.cleanup import Cleanup
from identity.services.resend import ResendService
from identity.services.verification import VerificationService
from tests.fakes import START, FakeClock, RecordingSender
from tests.outbox import deliverer, queue_mails
from tests.registrar import LIFETIME, issuer, registrar
from tests.requests import PASSWORD

SIGNER = TokenSigner(["k" * 32])


def never() -> bool:
    return False


@pytest.fixture
def resends(database: Database, clock: FakeClock) -> ResendService:
    return ResendService(
        database,
        issuer(clock),
        now=clock.now,
    )


@pytest.fixture
def address(database: Database, clock: FakeClock) -> str:
    """The address of somebody who registered just now, and was mailed."""
    queue_mails(database, clock, 1)
    with database.read() as connection:
        return str(connection.scalar(select(User.email)))


def ask(resends: ResendService, address: str) -> None:
    resends.request(address, Deadline())
    resends.carry_out(never)


def mails(database: Database) -> int:
    with database.read() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM outbox")))


def ends(database: Database) -> tuple[datetime | None, list[datetime]]:
    """The end of the hold, and those of all tokens."""
    with database.read() as connection:
        hold = connection.scalar(select(User.held_until))
        tokens = connection.scalars(
            select(Verification.expires_at).order_by(Verification.created_at)
        )
        return hold, list(tokens)


def test_an_address_is_mailed_once_in_sixty_seconds_the_first_mail_included(
    resends: ResendService, database: Database, clock: FakeClock, address: str
) -> None:
    clock.advance(seconds=59)
    ask(resends, address)
    assert mails(database) == 1
    clock.advance(seconds=1)
    ask(resends, address)
    ask(resends, address)
    assert mails(database) == 2


def test_an_address_is_mailed_five_times_in_a_day(
    resends: ResendService, database: Database, clock: FakeClock, address: str
) -> None:
    for _ in range(10):
        clock.advance(minutes=10)
        ask(resends, address)
    assert mails(database) == 5
    # The first one is a day old: it no longer counts.
    clock.advance(hours=24, minutes=-100)
    ask(resends, address)
    assert mails(database) == 6


def test_a_new_token_has_a_fresh_life_and_moves_the_hold_with_it(
    resends: ResendService, database: Database, clock: FakeClock, address: str
) -> None:
    clock.advance(hours=20)
    ask(resends, address)
    end = START + timedelta(hours=44)
    assert ends(database) == (end, [START + timedelta(hours=24), end])


def test_the_hold_never_passes_72_hours_and_then_nothing_is_sent(
    resends: ResendService, database: Database, clock: FakeClock, address: str
) -> None:
    clock.advance(hours=60)
    ask(resends, address)
    assert ends(database)[0] == START + timedelta(hours=72)
    clock.advance(hours=12)
    ask(resends, address)
    assert mails(database) == 2


def test_who_is_verified_or_unknown_is_sent_nothing(
    resends: ResendService, database: Database, clock: FakeClock, address: str
) -> None:
    clock.advance(minutes=5)
    with database.write() as connection:
        connection.execute(update(User).values(is_email_verified=True, held_until=None))
    ask(resends, address)
    ask(resends, "unknown@example.com")
    assert mails(database) == 1
    assert ends(database)[0] is None


def test_a_request_leaves_the_same_behind_for_every_address(
    resends: ResendService, database: Database, address: str
) -> None:
    for wanted in (address, "unknown@example.com"):
        resends.request(wanted, Deadline())
    with database.read() as connection:
        kept = connection.execute(text("SELECT email, created_at FROM resend_requests")).all()
    assert {row.email for row in kept} == {address, "unknown@example.com"}
    resends.carry_out(never)
    with database.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM resend_requests")) == 0


def at_once(*jobs: Callable[[], object]) -> None:
    """Runs all jobs from the same moment on; fails if one does."""
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        barrier.wait()
        job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(run, jobs))


def test_fifty_requests_worked_off_by_many_at_once_are_one_mail(
    resends: ResendService, database: Database, clock: FakeClock, address: str
) -> None:
    clock.advance(minutes=5)
    at_once(*[lambda: resends.request(address, Deadline())] * 50)
    at_once(*[lambda: resends.carry_out(never)] * 8)
    assert mails(database) == 2


def test_a_request_that_races_a_clean_up_leaves_a_whole_registration_or_none(
    resends: ResendService, database: Database, clock: FakeClock, address: str
) -> None:
    """The hold lapsed long ago by the clean-up's clock, and not at all by that of the request."""
    clock.advance(minutes=5)
    later = Cleanup(database, now=lambda: clock.now() + timedelta(days=30))
    resends.request(address, Deadline())
    at_once(lambda: resends.carry_out(never), lambda: later.run(never))
    with database.read() as connection:
        users = connection.scalar(text("SELECT count(*) FROM users"))
    # Where the request held the row, the clean-up left it for its next run.
    assert (users, mails(database)) in {(0, 0), (1, 2)}


def test_no_mail_follows_a_verification_that_races_requests(
    resends: ResendService, database: Database, clock: FakeClock, address: str
) -> None:
    sender = RecordingSender()
    worker = deliverer(database, clock, sender)
    worker.deliver_due()
    clock.advance(minutes=5)
    with database.read() as connection:
        first = connection.execute(select(Verification)).one()
    token = SIGNER.token(first.id, first.key_fingerprint)
    verifier = VerificationService(database, SIGNER, now=clock.now)
    for _ in range(8):
        resends.request(address, Deadline())
    at_once(
        lambda: verifier.verify(token, Deadline()),
        *[lambda: resends.carry_out(never)] * 4,
    )
    worker.deliver_due()
    clock.advance(hours=1)
    worker.deliver_due()
    assert len(sender.mails) == 1
    assert ends(database)[0] is None


def test_a_lapsed_registration_goes_to_a_new_one_or_to_the_request_but_not_to_both(
    resends: ResendService, database: Database, clock: FakeClock, address: str
) -> None:
    clock.advance(hours=25)
    hasher = PasswordHasher(4, 2)
    service = registrar(database, hasher, clock)
    newcomer = Registration.checked(username="newcomer", email=address, password=PASSWORD)
    outcomes: list[str] = []

    def register() -> None:
        try:
            outcomes.append(service.register(newcomer, "", Deadline()).username)
        except EmailTaken as taken:
            outcomes.append(taken.reason)

    resends.request(address, Deadline())
    at_once(register, lambda: resends.carry_out(never))
    hasher.close()
    with database.read() as connection:
        names = connection.scalars(select(User.username)).all()
    if outcomes == ["newcomer"]:
        assert names == ["newcomer"]
    else:
        assert outcomes == ["EMAIL_TAKEN"]
        assert ends(database)[0] == clock.now() + LIFETIME
