"""The tables. Statements on hot paths use them through Core, never through ORM objects."""

from datetime import UTC, datetime

from sqlalchemy import DateTime, Dialect, ForeignKey, LargeBinary, MetaData, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment. SQLite keeps no zone, so UTC is what it stores there."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime names no moment")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    # Names that every database agrees on: a constraint without one can't be dropped in batch mode.
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


class User(Base):
    """A person. Unverified, it holds its username and address until `held_until`."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # a UUID
    username: Mapped[str] = mapped_column(String(20))  # as typed
    # Folded in Python, in a plain column: SQLite's lower() knows ASCII only, and its autogenerate
    # does not see an index on an expression.
    username_key: Mapped[str] = mapped_column(String(20), unique=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)  # lower case, ASCII
    password_hash: Mapped[str] = mapped_column(String(255))
    is_email_verified: Mapped[bool]
    # NULL once verified.
    held_until: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Verification(Base):
    """A pending proof. Binds a token's id to one user and one address, and never changes."""

    __tablename__ = "verifications"

    # Half of what a token carries; the other half is a signature that no table holds.
    id: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        String(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    email: Mapped[str] = mapped_column(String(254))
    key_fingerprint: Mapped[str] = mapped_column(String(16))  # of the key that signs its token
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class OutboxMail(Base):
    """A mail to be sent, written in the transaction that promises it.

    It holds no rendered text: the deliverer derives the token and renders the mail when it sends.

    `due_at` is the schedule and the lease in one. A deliverer that claims the row moves it to the
    end of its lease, so that the row of one that died comes due again by itself; a failure moves
    it to the next attempt. It is NULL once the row is settled, so the index holds no search past
    the rows that are still to be sent.
    """

    __tablename__ = "outbox"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # a UUID
    user_id: Mapped[str] = mapped_column(
        String(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    # Verifications are cleaned up earlier than the record of their mails.
    verification_id: Mapped[bytes | None] = mapped_column(
        LargeBinary(16), ForeignKey("verifications.id", ondelete="SET NULL"), index=True
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    attempts: Mapped[int] = mapped_column(default=0)  # failed ones
    last_error: Mapped[str | None] = mapped_column(String(255))  # without personal data
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    dead_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class IdempotencyKey(Base):
    """A request that was carried out, so that its repeat gets the first reply again.

    Written first in the transaction that it names: a repeat at the same time waits here. Its user
    follows in that transaction, so the foreign key is looked at with the commit.
    """

    __tablename__ = "idempotency_keys"

    # A digest of the caller and its request id: addresses of callers need not be kept.
    id: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary(32))  # a digest, without the password
    user_id: Mapped[str] = mapped_column(
        String(36),
        ForeignKey("users.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
        index=True,
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class OutboxPause(Base):
    """The one row that stands here while no mail at all is accepted. Shared by all deliverers."""

    __tablename__ = "outbox_pause"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # always 1
    reason: Mapped[str] = mapped_column(String(255))  # without personal data
    since: Mapped[datetime] = mapped_column(UtcDateTime)
    probe_at: Mapped[datetime] = mapped_column(UtcDateTime)  # when one mail is tried again


class ResendRequest(Base):
    """An address that somebody asked to send another mail to, known or not.

    Written by the call, looked at by the deliverer: the call does the same for every address, and
    its time tells nothing.
    """

    __tablename__ = "resend_requests"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # a UUID
    email: Mapped[str] = mapped_column(String(254))  # lower case, ASCII
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
