"""Queues of real mails, and who works on them."""

import uuid
from datetime import UTC, datetime
from email.headerregistry import Address

from sqlalchemy import delete, insert, select, text, update

from identity.database import Database, moment_of
from identity.mail.deliverer import Deliverer
from identity.mail.outbox import Outbox
from identity.mail.sender import PermanentFailure, Sender
from identity.mail.templates import Templates
from identity.models import OutboxMail, User, Verification
from tests.fakes import FakeClock, RecordingSender
from tests.registrar import LIFETIME, SIGNER, issuer

UNKNOWN = "00000000-0000-4000-8000-000000000000"
REFUSED = PermanentFailure("smtp 550 to RCPT")


def queue_mails(database: Database, clock: FakeClock, number: int) -> None:
    """Registers that many people, each with a mail."""
    verifications = issuer(clock)
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
            verifications.issue(
                connection,
                user_id=user_id,
                email=f"{user_id}@example.com",
                now=clock.now(),
                expires_at=clock.now() + LIFETIME,
            )


def outbox(database: Database, clock: FakeClock, holder: str = "one") -> Outbox:
    return Outbox(database, holder, moment_of(clock.now))


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


def queue(database: Database, clock: FakeClock, number: int = 1) -> list[str]:
    """Queues mails a second apart; their ids in that order."""
    for _ in range(number):
        queue_mails(database, clock, 1)
        clock.advance(seconds=1)
    with database.read() as connection:
        every = connection.scalars(select(OutboxMail.id).order_by(OutboxMail.created_at))
        return list(every)[-number:]


def dead_mail(database: Database, clock: FakeClock) -> str:
    """The id of a mail that was refused for good."""
    (mail_id,) = queue(database, clock)
    deliverer(database, clock, RecordingSender(REFUSED)).deliver_due()
    return mail_id


def sent_mail(database: Database, clock: FakeClock) -> str:
    (mail_id,) = queue(database, clock)
    deliverer(database, clock, RecordingSender()).deliver_due()
    return mail_id


def claimed_mail(database: Database, clock: FakeClock) -> str:
    """The id of a mail that a deliverer holds now, by the wall clock."""
    (mail_id,) = queue(database, clock)
    outbox(database, FakeClock(datetime.now(UTC)), "busy").claim(1)
    return mail_id


def expired_mail(database: Database, clock: FakeClock) -> str:
    (mail_id,) = queue(database, FakeClock(clock.now() - LIFETIME))
    return mail_id


def verified_mail(database: Database, clock: FakeClock) -> str:
    mail_id = dead_mail(database, clock)
    with database.write() as connection:
        connection.execute(update(User).values(is_email_verified=True))
    return mail_id


def orphaned_mail(database: Database, clock: FakeClock) -> str:
    mail_id = dead_mail(database, clock)
    with database.write() as connection:
        connection.execute(delete(Verification))
    return mail_id


def unknown_mail(_database: Database, _clock: FakeClock) -> str:
    return UNKNOWN
