"""The queue of mails, on every database: claims, leases, retries, ends."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.headerregistry import Address

import pytest
from sqlalchemy import insert, text, update

from identity.database import Database
from identity.deadlines import Deadline
from identity.mail.deliverer import STALE_CLAIM, Deliverer
from identity.mail.outbox import LEASE, Outbox
from identity.mail.sender import Mail, PermanentFailure, Sender, TemporaryFailure
from identity.mail.templates import Templates
from identity.models import User
from identity.security.tokens import TokenSigner
from identity.services.verification import VerificationIssuer, VerificationService
from tests.fakes import FakeClock, RecordingSender
from tests.mailbox import token_in

SIGNER = TokenSigner(["k" * 32])
LIFETIME = timedelta(hours=24)


def queue_mails(database: Database, clock: FakeClock, number: int) -> None:
    """Registers that many people, each with a mail."""
    issuer = VerificationIssuer(SIGNER, LIFETIME)
    with database.write() as connection:
        for _ in range(number):
            user_id = str(uuid.uuid4())
            name = user_id[:8]
            connection.execute(
                insert(User).values(
                    id=user_id,
                    username=name,
                    username_key=name,
                    email=f"{user_id}@example.com",
                    password_hash="x",
                    is_email_verified=False,
                    held_until=clock.now() + LIFETIME,
                    created_at=clock.now(),
                    updated_at=clock.now(),
                )
            )
            issuer.issue(
                connection,
                user_id=user_id,
                email=f"{user_id}@example.com",
                now=clock.now(),
                expires_at=clock.now() + LIFETIME,
            )


def outbox(database: Database, clock: FakeClock, holder: str = "one") -> Outbox:
    return Outbox(database, holder, now=clock.now)


def deliverer(
    database: Database, clock: FakeClock, sender: Sender, holder: str = "one"
) -> Deliverer:
    """A deliverer that always waits as long as it may."""
    return Deliverer(
        outbox(database, clock, holder),
        sender,
        Templates(Address("", "identity", "example.com"), "https://example.com/?t={token}"),
        SIGNER,
        now=clock.now,
        uniform=lambda _low, high: high,
    )


def state(database: Database) -> list[tuple[object, ...]]:
    """attempts, last_error, and how each row stands."""
    with database.read() as connection:
        return [
            tuple(row)
            for row in connection.execute(
                text(
                    "SELECT attempts, last_error, CASE WHEN sent_at IS NOT NULL THEN 'sent' "
                    "WHEN dead_at IS NOT NULL THEN 'dead' ELSE 'queued' END FROM outbox"
                )
            )
        ]


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


def test_only_who_holds_the_lease_marks_a_mail(database: Database, clock: FakeClock) -> None:
    queue_mails(database, clock, 1)
    first, second = outbox(database, clock, "one"), outbox(database, clock, "two")
    (mail,) = first.claim(1).mails
    clock.advance(seconds=LEASE.total_seconds())
    second.claim(1)
    assert not first.sent(mail.outbox_id)
    assert state(database) == [(0, None, "queued")]
    assert second.sent(mail.outbox_id)
    assert state(database) == [(0, None, "sent")]


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
