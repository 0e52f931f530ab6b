"""What is forgotten when, on every database."""

import pytest
from sqlalchemy import text, update

from identity.database import Database
from identity.mail.sender import PermanentFailure
from identity.models import User
from identity.services import cleanup
from identity.services.cleanup import Cleanup
from tests.fakes import FakeClock, RecordingSender
from tests.outbox import deliverer, queue_mails


def never() -> bool:
    return False


def rows(database: Database) -> tuple[int, int, int]:
    """How many users, verifications and mails there are."""
    with database.read() as connection:
        users, verifications, mails = (
            int(connection.scalar(text(f"SELECT count(*) FROM {table}")))  # noqa: S608
            for table in ("users", "verifications", "outbox")
        )
    return users, verifications, mails


@pytest.fixture
def job(database: Database, clock: FakeClock) -> Cleanup:
    return Cleanup(database, now=clock.now)


def verify_all(database: Database) -> None:
    with database.write() as connection:
        connection.execute(update(User).values(is_email_verified=True, held_until=None))


def test_a_user_never_verified_is_forgotten_seven_days_after_the_hold(
    database: Database, clock: FakeClock, job: Cleanup
) -> None:
    queue_mails(database, clock, 3)
    clock.advance(days=8)  # the hold is a day
    job.run(never)
    assert rows(database)[0] == 3
    clock.advance(minutes=10, seconds=1)
    job.run(never)
    assert rows(database) == (0, 0, 0)


def test_who_was_verified_once_is_never_forgotten(
    database: Database, clock: FakeClock, job: Cleanup
) -> None:
    queue_mails(database, clock, 3)
    verify_all(database)
    with database.write() as connection:  # as after a change of address
        connection.execute(update(User).values(is_email_verified=False))
    clock.advance(days=1000)
    job.run(never)
    assert rows(database)[0] == 3


def test_lapsed_verifications_go_and_the_record_of_their_mails_stays_for_a_while(
    database: Database, clock: FakeClock, job: Cleanup
) -> None:
    queue_mails(database, clock, 2)
    deliverer(database, clock, RecordingSender()).deliver_due()
    verify_all(database)
    clock.advance(days=9)
    job.run(never)
    assert rows(database) == (2, 0, 2)
    clock.advance(days=6)
    job.run(never)
    assert rows(database) == (2, 0, 0)


def test_a_dead_mail_stays_for_ninety_days(
    database: Database, clock: FakeClock, job: Cleanup
) -> None:
    queue_mails(database, clock, 1)
    deliverer(database, clock, RecordingSender(PermanentFailure("smtp 550"))).deliver_due()
    verify_all(database)
    clock.advance(days=89)
    job.run(never)
    assert rows(database)[2] == 1
    clock.advance(days=2)
    job.run(never)
    assert rows(database)[2] == 0


def test_it_runs_at_most_every_ten_minutes_and_stops_when_told(
    database: Database, clock: FakeClock, job: Cleanup
) -> None:
    job.run(never)
    queue_mails(database, clock, 1)
    clock.advance(minutes=9)
    later = Cleanup(database, now=lambda: clock.now() + cleanup.NEVER_VERIFIED * 2)
    assert later.run(lambda: True) == 0
    assert rows(database)[0] == 1
    assert later.run(never) == 0  # it has had its turn


def test_more_than_a_batch_goes_in_one_run_and_is_counted(
    database: Database, clock: FakeClock, job: Cleanup
) -> None:
    number = cleanup.BATCH + 1
    queue_mails(database, clock, number)
    assert job.run(never) == 0
    clock.advance(days=9)
    assert job.run(never) == number
    assert rows(database) == (0, 0, 0)
