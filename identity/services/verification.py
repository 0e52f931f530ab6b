"""Proving e-mail addresses."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from identity.database import Database, Moment
from identity.deadlines import Deadline
from identity.errors import TokenError, TokenExpired, TokenUsed
from identity.mail.outbox import enqueue
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

    def __init__(
        self, signer: TokenSigner, lifetime: timedelta, *, moment: Callable[[], Moment]
    ) -> None:
        """`moment` is one of the clock that deliverers share: a mail is due at once by it."""
        self.lifetime = lifetime
        self._signer = signer
        self._moment = moment

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
            insert(Verification).values(
                id=verification_id,
                user_id=user_id,
                email=email,
                key_fingerprint=self._signer.fingerprint,
                created_at=now,
                expires_at=expires_at,
            )
        )
        enqueue(
            connection,
            user_id=user_id,
            verification_id=verification_id,
            now=now,
            due_at=self._moment(),
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
        # One statement decides: of any number of calls at once, one finds the user unverified.
        owner = select(Verification.user_id).where(
            Verification.id == token_id, Verification.expires_at > now
        )
        address = select(Verification.email).where(Verification.id == token_id)
        deadline.check()  # the last moment at which nothing has happened yet
        with self._database.single() as connection:
            verified = connection.execute(
                update(User)
                .where(
                    User.is_email_verified.is_(False),
                    User.id == owner.scalar_subquery(),
                    User.email == address.scalar_subquery(),
                )
                .values(is_email_verified=True, held_until=None, updated_at=now)
                .returning(User.id, User.username, User.email, User.created_at)
            ).one_or_none()
            if verified is None:
                raise self._why_not(connection, token_id)
        self._meters.verified(now - verified.created_at)
        return VerifiedUser(verified.id, verified.username, verified.email)

    @staticmethod
    def _why_not(connection: Connection, token_id: bytes) -> TokenError:
        used = connection.scalar(
            select(User.is_email_verified)
            .join(Verification, Verification.user_id == User.id)
            .where(Verification.id == token_id)
        )
        return TokenUsed() if used else TokenExpired()
