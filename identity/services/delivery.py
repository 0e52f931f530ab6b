"""Why a person's mail has not come."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, select

from identity.database import Database, Moment, read_clock
from identity.deadlines import Deadline
from identity.errors import UserNotFound
from identity.mail.standing import MailStanding, State, standings
from identity.models import OutboxMail, OutboxPause, User
from identity.schemas import UserReference

# In a reply: two days of as many as one address may be sent.
MOST_MAILS: Final = 10


class DeliveryState(StrEnum):
    """How a mail stands in the eyes of whom it is for."""

    QUEUED = "queued"
    SENT = "sent"
    DEAD = "dead"
    PAUSED = "paused"  # queued, while no mail at all is accepted


@dataclass(frozen=True)
class MailStatus:
    """How one mail stands. No address, no name and no token is in it."""

    id: str
    state: DeliveryState
    attempts: int  # failed ones
    created_at: datetime
    sent_at: datetime | None
    dead_at: datetime | None
    # None while it is being tried, too, and during a pause, whose end nobody knows.
    next_try_at: datetime | None
    last_error: str | None
    pause_reason: str | None
    link_expires_at: datetime | None  # None once the link is forgotten


@dataclass(frozen=True)
class DeliveryStatus:
    """How a user's mails stand: the newest first, at most MOST_MAILS."""

    user_id: str
    is_email_verified: bool
    mails: tuple[MailStatus, ...]


class DeliveryStatusService:
    """Looks at the outbox for one user."""

    def __init__(self, database: Database, moment: Moment) -> None:
        """`moment` is of the clock that deliverers share: by it a claim ends."""
        self._database = database
        self._moment = moment

    def status(self, user: UserReference, deadline: Deadline) -> DeliveryStatus:
        """Tells how the user's mails stand. Changes nothing.

        Raises UserNotFound, DeadlineTooShort, DatabaseUnavailable.
        """
        wanted = select(
            User.id,
            User.is_email_verified,
            select(OutboxPause.reason).limit(1).scalar_subquery().label("pause_reason"),
        ).where(_is(user))
        with self._database.read() as connection:
            deadline.check()  # the wait for a connection may have taken all of it
            found = connection.execute(wanted).one_or_none()
            if found is None:
                raise UserNotFound
            rows = connection.execute(_newest(found.id)).mappings()
            mails = [MailStanding(**row) for row in rows]
            now = read_clock(connection, self._moment)
        return DeliveryStatus(
            found.id,
            found.is_email_verified,
            tuple(_status(mail, found.pause_reason, now) for mail in mails),
        )


def _is(user: UserReference) -> ColumnElement[bool]:
    return User.email == user.email if user.user_id is None else User.id == user.user_id


def _newest(user_id: str) -> Select[*tuple[Any, ...]]:
    # All of the user's mails first, a few: left alone, PostgreSQL may walk the index on created_at
    # through everybody's mails until it has met enough of them (400 ms among 600,000 of which it
    # had no statistics yet).
    theirs = (
        standings().where(OutboxMail.user_id == user_id).cte("theirs").prefix_with("MATERIALIZED")
    )
    return select(theirs).order_by(theirs.c.created_at.desc(), theirs.c.id.desc()).limit(MOST_MAILS)


def _status(mail: MailStanding, pause_reason: str | None, now: datetime) -> MailStatus:
    is_paused = mail.state is State.QUEUED and pause_reason is not None
    return MailStatus(
        id=mail.id,
        state=DeliveryState.PAUSED if is_paused else DeliveryState(mail.state),
        attempts=mail.attempts,
        created_at=mail.created_at,
        sent_at=mail.sent_at,
        dead_at=mail.dead_at,
        next_try_at=None if is_paused else mail.next_try_at(now),
        last_error=mail.last_error,
        pause_reason=pause_reason if is_paused else None,
        link_expires_at=mail.token_expires_at,
    )
