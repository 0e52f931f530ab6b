"""The queue of mails, on every database: claims, leases, retries, ends."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.headerregistry import Address

import psycopg
import pytest
from sqlalchemy import text, update
from sqlalchemy.engine import URL

from identity.database import Database
from identity.deadlines import Deadline
from identity.errors import DatabaseUnavailable
from identity.mail.deliverer import STALE_CLAIM, Deliverer
from identity.mail.outbox import LEASE
from identity.mail.sender import Mail, PermanentFailure, TemporaryFailure
from identity.mail.templates import Templates
from identity.models import User
from identity.security.tokens import TokenSigner
from identity.services.verification import VerificationService
from tests.fakes import FakeClock, RecordingSender
from tests.mailbox import token_in
from tests.outbox import SIGNER, deliverer, outbox, queue_mails, state


def test_a_claimed_mail_is_nobody_elses_until_its_lease_ends(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 1)
    (claimed,) = outbox(database, clock, "one").claim(10).mails
    assert outbox(database, clock, "two").claim(10).mails == []
    clock.advance(seconds=LEASE.total_seconds() - 1)
    assert outbox(database, clock, "two").claim(10).mails == []
    clock.advance(seconds=1)
    (taken_over,) = outbox(database, clock, "two").claim(10).mails
    assert taken_over.outbox_id == claimed.outbox_id


def test_a_mail_that_was_accepted_is_sent_whoever_holds_its_lease(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 1)
    first, second = outbox(database, clock, "one"), outbox(database, clock, "two")
    (mail,) = first.claim(1).mails
    clock.advance(seconds=LEASE.total_seconds())
    second.claim(1)
    assert first.sent(mail.outbox_id)
    assert state(database) == [(0, None, "sent")]
    assert not second.is_wanted(mail.outbox_id)
    assert not second.sent(mail.outbox_id)


def test_only_who_holds_the_lease_says_that_a_mail_failed(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 1)
    first, second = outbox(database, clock, "one"), outbox(database, clock, "two")
    (mail,) = first.claim(1).mails
    clock.advance(seconds=LEASE.total_seconds())
    second.claim(1)
    assert not first.bury(mail.outbox_id, "smtp 550")
    assert state(database) == [(0, None, "queued")]
    assert second.bury(mail.outbox_id, "smtp 550")
    assert state(database) == [(0, "smtp 550", "dead")]


def test_a_sent_mail_is_not_sent_again(database: Database, clock: FakeClock) -> None:
    queue_mails(database, clock, 1)
    sender = RecordingSender()
    assert deliverer(database, clock, sender).deliver_due() == 1
    clock.advance(days=2)
    assert deliverer(database, clock, sender).deliver_due() == 0
    assert len(sender.mails) == 1


def test_each_failure_waits_twice_as_long_up_to_ten_minutes(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 1)
    waits = [5, 10, 20, 40, 80, 160, 320, 600, 600]
    sender = RecordingSender(*[TemporaryFailure("smtp 451 to DATA") for _ in waits])
    worker = deliverer(database, clock, sender)
    for failures, wait in enumerate(waits, start=1):
        assert worker.deliver_due() == 1
        assert state(database) == [(failures, "smtp 451 to DATA", "queued")]
        clock.advance(seconds=wait - 1)
        assert worker.deliver_due() == 0
        clock.advance(seconds=1)
    assert worker.deliver_due() == 1
    assert len(sender.mails) == 1
    assert state(database) == [(len(waits), None, "sent")]


def test_a_mail_refused_for_good_is_dead_with_its_reason(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 1)
    worker = deliverer(database, clock, RecordingSender(PermanentFailure("smtp 550 to RCPT")))
    worker.deliver_due()
    assert state(database) == [(0, "smtp 550 to RCPT", "dead")]
    clock.advance(days=1)
    assert worker.deliver_due() == 0


def test_one_poisonous_mail_does_not_hold_up_the_others(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 5)
    sender = RecordingSender(RuntimeError("the address ann@example.com breaks me"))
    deliverer(database, clock, sender).deliver_due()
    assert len(sender.mails) == 4
    assert sorted(state(database), key=str) == [(0, None, "sent")] * 4 + [
        (1, "RuntimeError", "queued")
    ]


def test_a_mail_whose_token_is_over_is_dead(database: Database, clock: FakeClock) -> None:
    queue_mails(database, clock, 1)
    clock.advance(hours=24)
    sender = RecordingSender()
    deliverer(database, clock, sender).deliver_due()
    assert (sender.mails, state(database)) == ([], [(0, "token expired", "dead")])


def test_no_mail_goes_to_who_is_verified_already(database: Database, clock: FakeClock) -> None:
    queue_mails(database, clock, 1)
    with database.write() as connection:
        connection.execute(update(User).values(is_email_verified=True))
    sender = RecordingSender()
    deliverer(database, clock, sender).deliver_due()
    assert (sender.mails, state(database)) == ([], [(0, "verified already", "dead")])


class VerifyingSender(RecordingSender):
    """While it sends its first mail, for a while, everybody verifies by an earlier link."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        super().__init__()
        self._database = database
        self._clock = clock

    def send(self, mail: Mail) -> None:
        super().send(mail)
        self._clock.advance(seconds=1)
        with self._database.write() as connection:
            connection.execute(update(User).values(is_email_verified=True))


def test_who_verifies_while_the_batch_is_sent_gets_no_mail(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 3)
    sender = VerifyingSender(database, clock)
    deliverer(database, clock, sender).deliver_due()
    assert len(sender.mails) == 1
    assert [row for row in state(database) if row[2] == "dead"] == [
        (0, "verified already", "dead")
    ] * 2


def test_a_mail_whose_verification_was_cleaned_up_is_dead(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 1)
    with database.write() as connection:
        connection.execute(text("DELETE FROM verifications"))
    sender = RecordingSender()
    deliverer(database, clock, sender).deliver_due()
    assert (sender.mails, state(database)) == ([], [(0, "token gone", "dead")])


class SlowSender(RecordingSender):
    """Takes a while for each mail."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def send(self, mail: Mail) -> None:
        self._clock.advance(seconds=STALE_CLAIM.total_seconds() / 2 + 1)
        super().send(mail)


def test_a_slow_sender_gives_back_what_its_lease_may_not_hold(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 5)
    sender = SlowSender(clock)
    deliverer(database, clock, sender).deliver_due()
    assert len(sender.mails) == 2
    assert len(outbox(database, clock, "two").claim(10).mails) == 3


class SenderInAnOutage(RecordingSender):
    """While it sends, the table of mails is taken away."""

    def __init__(self, url: URL) -> None:
        super().__init__()
        self._other = psycopg.connect(
            url.set(drivername="postgresql").render_as_string(hide_password=False)
        )

    def send(self, mail: Mail) -> None:
        super().send(mail)
        self._other.execute("LOCK TABLE outbox")

    def end_outage(self) -> None:
        self._other.close()


def test_a_mail_that_was_accepted_in_an_outage_is_noted_after_it(
    postgres_url: URL, clock: FakeClock
) -> None:
    url = postgres_url.update_query_dict({"options": "-c lock_timeout=100ms"})
    with closing(Database(url)) as database:
        queue_mails(database, clock, 1)
        sender = SenderInAnOutage(postgres_url)
        worker = deliverer(database, clock, sender)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                worker.deliver_due()
        sender.end_outage()
        clock.advance(seconds=LEASE.total_seconds())
        assert worker.deliver_due() == 0
        assert state(database) == [(0, None, "sent")]
        assert len(sender.mails) == 1


def test_two_deliverers_send_each_mail_once(database: Database, clock: FakeClock) -> None:
    mails = 500
    queue_mails(database, clock, mails)
    senders = [RecordingSender(), RecordingSender()]
    barrier = threading.Barrier(len(senders))

    def work(number: int) -> None:
        worker = deliverer(database, clock, senders[number], f"worker {number}")
        barrier.wait()
        while worker.deliver_due():
            pass

    with ThreadPoolExecutor(len(senders)) as pool:
        list(pool.map(work, range(len(senders))))
    sent = [mail.outbox_id for sender in senders for mail in sender.mails]
    assert len(sent) == len(set(sent)) == mails


@pytest.mark.parametrize("kept", [True, False])
def test_the_link_stays_the_same_while_its_key_is_held(
    database: Database, clock: FakeClock, kept: bool
) -> None:
    queue_mails(database, clock, 1)
    (mail,) = outbox(database, clock).claim(1).mails
    before = SIGNER.token(mail.verification_id, mail.key_fingerprint)
    rotated = TokenSigner(["n" * 32, "k" * 32] if kept else ["n" * 32])
    after = rotated.token(mail.verification_id, mail.key_fingerprint)
    assert (after == before) is kept
    assert rotated.open(after) == mail.verification_id


def test_every_link_works_when_the_keys_are_rotated_with_mails_queued(
    database: Database, clock: FakeClock
) -> None:
    queue_mails(database, clock, 3)
    rotated = TokenSigner(["n" * 32, "k" * 32])
    sender = RecordingSender()
    Deliverer(
        outbox(database, clock),
        sender,
        Templates(Address("", "identity", "example.com"), "https://example.com/?token={token}"),
        rotated,
        now=clock.now,
    ).deliver_due()
    verifier = VerificationService(database, rotated, now=clock.now)
    verified = {verifier.verify(token_in(mail.message), Deadline()).id for mail in sender.mails}
    assert len(verified) == 3
