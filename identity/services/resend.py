"""Sending another verification mail, without telling who is registered."""

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from identity.database import Database
from identity.deadlines import Deadline
from identity.models import ResendRequest, User, Verification
from identity.services.registration import MAXIMUM_HOLD
from identity.services.verification import VerificationIssuer

# Mails to one address, that of Register included. Against using us to flood a mailbox.
QUIET: Final = timedelta(seconds=60)
DAY: Final = timedelta(hours=24)
MAILS_A_DAY: Final = 5

_BATCH: Final = 50  # requests looked at before other jobs have their turn

# Made once: to make a statement takes several times as long as to run it.
_REQUEST: Final = insert(ResendRequest)
_OLDEST: Final = (
    select(ResendRequest.id)
    .order_by(ResendRequest.created_at)
    .limit(1)
    .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer anyway
    .cte("oldest")
)
_TAKE: Final = (
    delete(ResendRequest)
    .where(ResendRequest.id.in_(select(_OLDEST.c.id)))
    .returning(ResendRequest.email)
)


class ResendService:
    """Takes requests in calls, and carries them out in the background.

    The call writes one row whatever the address, so that neither its reply nor its time tells a
    known address from an unknown or a verified one.
    """

    def __init__(
        self,
        database: Database,
        issuer: VerificationIssuer,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._issuer = issuer
        self._now = now

    def request(self, email: str, deadline: Deadline) -> None:
        """Notes that somebody wants another mail. Raises DeadlineTooShort, DatabaseUnavailable.

        A repeat is harmless: the limits by address hold over all requests.
        """
        with self._database.write() as connection:
            connection.execute(
                _REQUEST, {"id": str(uuid.uuid4()), "email": email, "created_at": self._now()}
            )
            deadline.check()  # the last moment at which nothing has happened yet
        # The worker is not woken: its work differs by address, and would slow down just the call
        # that comes next. It looks every second.

    def carry_out(self, is_stopping: Callable[[], bool]) -> int:
        """Works off requests, each in a transaction of its own; returns how many."""
        done = 0
        while done < _BATCH and not is_stopping() and self._carry_out_one():
            done += 1
        return done

    def _carry_out_one(self) -> bool:
        with self._database.write() as connection:
            email = connection.scalar(_TAKE)
            if email is None:
                return False
            self._resend(connection, email, self._now())
        return True

    def _resend(self, connection: Connection, email: str, now: datetime) -> None:
        # The lock makes the count below exact, and orders this against VerifyEmail and against a
        # Register that takes a lapsed registration over.
        user = connection.execute(
            select(User.id, User.is_email_verified, User.created_at)
            .where(User.email == email)
            .with_for_update()
        ).one_or_none()
        if user is None or user.is_email_verified:
            return
        end_of_hold = user.created_at + MAXIMUM_HOLD
        if now >= end_of_hold or not self._may_be_mailed(connection, user.id, now):
            return
        expires_at = min(now + self._issuer.lifetime, end_of_hold)
        self._issuer.issue(connection, user_id=user.id, email=email, now=now, expires_at=expires_at)
        connection.execute(
            update(User).where(User.id == user.id).values(held_until=expires_at, updated_at=now)
        )

    @staticmethod
    def _may_be_mailed(connection: Connection, user_id: str, now: datetime) -> bool:
        mails, newest = connection.execute(
            select(func.count(), func.max(Verification.created_at)).where(
                Verification.user_id == user_id, Verification.created_at > now - DAY
            )
        ).one()
        return mails < MAILS_A_DAY and (newest is None or newest <= now - QUIET)
