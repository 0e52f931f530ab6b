"""The pause of the whole queue, on every database: nothing lost, no attempt burned."""

from sqlalchemy import text

from identity.database import Database
from identity.mail.sender import AccountFailure, PermanentFailure, TemporaryFailure
from tests.fakes import FakeClock, RecordingSender
from tests.outbox import deliverer, outbox, queue_mails, state

NOT_NOW = AccountFailure("ses SendingPausedException")


def reasons(database: Database) -> list[str]:
    """Why the queue is paused; empty when it is not."""
    with database.read() as connection:
        return list(connection.scalars(text("SELECT reason FROM outbox_pause")))


def test_a_fault_of_the_account_stops_the_queue_and_burns_nothing(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 5)
    sender = RecordingSender(NOT_NOW)
    worker = deliverer(database, clock, sender)
    assert worker.deliver_due() == 0
    assert worker.deliver_due() == 0
    assert sender.mails == []
    assert state(database) == [(0, None, "queued")] * 5
    assert reasons(database) == ["ses SendingPausedException"]


def test_one_mail_is_tried_every_thirty_seconds_until_it_is_accepted(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 5)
    sender = RecordingSender(NOT_NOW, NOT_NOW, NOT_NOW)
    worker = deliverer(database, clock, sender)
    worker.deliver_due()
    for probes_left in (1, 0):
        clock.advance(seconds=29)
        worker.deliver_due()
        assert len(sender.failures) == probes_left + 1
        clock.advance(seconds=1)
        worker.deliver_due()
        assert len(sender.failures) == probes_left
    clock.advance(seconds=30)
    assert worker.deliver_due() == 1
    assert reasons(database) == []
    assert worker.deliver_due() == 4
    assert len(sender.mails) == 5
    assert state(database) == [(0, None, "sent")] * 5


def test_a_pause_holds_for_every_deliverer_and_one_of_them_tries(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 5)
    deliverer(database, clock, RecordingSender(NOT_NOW), "one").deliver_due()
    assert outbox(database, clock, "two").claim(10).mails == []
    clock.advance(seconds=30)
    assert len(outbox(database, clock, "two").claim(10).mails) == 1
    assert outbox(database, clock, "three").claim(10).mails == []


def test_a_mail_refused_for_itself_shows_that_the_account_works_again(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 3)
    sender = RecordingSender(NOT_NOW, PermanentFailure("smtp 550 to RCPT"))
    worker = deliverer(database, clock, sender)
    worker.deliver_due()
    clock.advance(seconds=30)
    worker.deliver_due()
    assert reasons(database) == []
    worker.deliver_due()
    assert len(sender.mails) == 2


def test_a_time_out_during_a_pause_shows_nothing_of_the_account(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 3)
    worker = deliverer(database, clock, RecordingSender(NOT_NOW, TemporaryFailure("time-out")))
    worker.deliver_due()
    clock.advance(seconds=30)
    worker.deliver_due()
    assert reasons(database) == ["ses SendingPausedException"]


def test_twenty_throttlings_and_then_success_is_one_mail(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 1)
    sender = RecordingSender(*[TemporaryFailure("ses TooManyRequestsException")] * 20)
    worker = deliverer(database, clock, sender)
    for _ in range(21):
        assert worker.deliver_due() == 1
        clock.advance(minutes=10)
    assert worker.deliver_due() == 0
    assert len(sender.mails) == 1
