"""Proving e-mail addresses."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, insert, select, update

from identity.database import Database
from identity.deadlines import Deadline
from identity.errors import TokenError, TokenExpired, TokenUsed
from identity.mail.outbox import MailQueue
from identity.meters import SILENT, Meters
from identity.models import User, Verification
from identity.security.tokens import TokenSigner


@dataclass(frozen=True)
class VerifiedUser:
    """A user whose address is proven."""

    id: str
    username: str
    email: str


class VerificationIssuer:
    """Issues pending verifications, each with its mail."""

    def __init__(self, signer: TokenSigner, lifetime: timedelta, queue: MailQueue) -> None:
        self.lifetime = lifetime
        self._signer = signer
        self._queue = queue

    def issue(
        self,
        connection: Connection,
        *,
        user_id: str,
        email: str,
        now: datetime,
        expires_at: datetime,
    ) -> None:
        """Writes a verification and its outbox row, within the caller's transaction."""
        verification_id = self._signer.new_id()
        connection.execute(
            _ISSUE,
            {
                "id": verification_id,
                "user_id": user_id,
                "email": email,
                "key_fingerprint": self._signer.fingerprint,
                "created_at": now,
                "expires_at": expires_at,
            },
        )
        self._queue.put(connection, user_id=user_id, verification_id=verification_id, now=now)


_ISSUE: Final = insert(Verification)
# Made once: to make it takes as long as to run it. One statement decides: of any number of calls at
# once, one finds the user unverified.
_VERIFY: Final = (
    update(User)
    .where(
        User.is_email_verified.is_(False),
        User.id
        == select(Verification.user_id)
        .where(
            Verification.id == bindparam("token_id"),
            Verification.expires_at > bindparam("moment"),
        )
        .scalar_subquery(),
        User.email
        == select(Verification.email)
        .where(Verification.id == bindparam("token_id"))
        .scalar_subquery(),
    )
    .values(is_email_verified=True, held_until=None, updated_at=bindparam("moment"))
    .returning(User.id, User.username, User.email, User.created_at)
)
_OWNER_IS_VERIFIED: Final = (
    select(User.is_email_verified)
    .join(Verification, Verification.user_id == User.id)
    .where(Verification.id == bindparam("token_id"))
)


class VerificationService:
    """Redeems tokens."""

    def __init__(
        self,
        database: Database,
        signer: TokenSigner,
        *,
        now: Callable[[], datetime],
        meters: Meters = SILENT,
    ) -> None:
        self._database = database
        self._signer = signer
        self._now = now
        self._meters = meters

    def verify(self, token: str, deadline: Deadline) -> VerifiedUser:
        """Marks the token's user as verified, which uses up all tokens of that user.

        Raises TokenInvalid (before any query), TokenUsed, TokenExpired, DeadlineTooShort,
        DatabaseUnavailable.
        A repeat changes nothing and raises TokenUsed.
        """
        token_id = self._signer.open(token)
        now = self._now()
        with self._database.single() as connection:
            deadline.check()  # the last moment at which nothing has happened yet
            verified = connection.execute(
                _VERIFY, {"token_id": token_id, "moment": now}
            ).one_or_none()
            if verified is None:
                raise self._why_not(connection, token_id)
        self._meters.verified(now - verified.created_at)
        return VerifiedUser(verified.id, verified.username, verified.email)

    @staticmethod
    def _why_not(connection: Connection, token_id: bytes) -> TokenError:
        used = connection.scalar(_OWNER_IS_VERIFIED, {"token_id": token_id})
        return TokenUsed() if used else TokenExpired()
