"""What an operator does with the queue of mails: look, count, mend, drop.

Deliverers go on meanwhile, so each change is one conditional UPDATE; why it left a mail alone is
looked up afterwards.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, Update, and_, func, or_, select, update

from identity.database import Database
from identity.mail.standing import MailStanding, State, standings
from identity.models import OutboxMail, OutboxPause, User, Verification

BATCH: Final = 500  # mails changed in one transaction: a few ms, which no deliverer notices
DROPPED: Final = "dropped by operator"
SENT_SINCE: Final = timedelta(hours=24)
# Reasons are protocol codes and names of exceptions: there are never many.
MOST_ERRORS: Final = 50


class Obstacle(StrEnum):
    """Why a mail was left as it is. The values are public: scripts read them."""

    UNKNOWN = "unknown"
    SENT = "sent"
    DEAD = "dead"
    CLAIMED = "claimed"
    VERIFIED = "verified_already"
    GONE = "verification_gone"
    OVER = "token_over"
    CHANGED = "changed_meanwhile"


@dataclass(frozen=True, kw_only=True)
class QueuedMail(MailStanding):
    """How a mail stands, with whom it is for. No token and no token's id is in it."""

    user_id: str
    username: str
    is_email_verified: bool
    email: str


@dataclass
class Changes:
    """What became of the mails that were named: how many changed, and why the others did not."""

    changed: int = 0
    obstacles: dict[str, Obstacle] = field(default_factory=dict)  # by the mail's id

    def add(self, others: "Changes") -> None:
        self.changed += others.changed
        self.obstacles |= others.obstacles


@dataclass(frozen=True)
class Pause:
    """Since when no mail at all is accepted, why, and when one is tried again."""

    since: datetime
    reason: str
    probe_at: datetime


@dataclass(frozen=True)
class Figures:
    """The queue in numbers."""

    queued: int
    oldest_queued: timedelta | None  # its age
    delayed: int  # queued, and failed at least once
    dead: int
    dead_by_error: list[tuple[str | None, int]]  # the most frequent first, at most MOST_ERRORS
    sent_lately: int  # within SENT_SINCE
    pause: Pause | None


_IS_IN: Final[dict[State, ColumnElement[bool]]] = {
    State.QUEUED: and_(OutboxMail.sent_at.is_(None), OutboxMail.dead_at.is_(None)),
    State.DEAD: and_(OutboxMail.sent_at.is_(None), OutboxMail.dead_at.is_not(None)),
    State.SENT: OutboxMail.sent_at.is_not(None),
}


class OutboxAdministration:
    """The queue as an operator sees it. Every method raises DatabaseUnavailable."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        """`now` is the clock that deliverers share."""
        self._database = database
        self.now = now

    def mails(self, states: Collection[State], limit: int) -> list[QueuedMail]:
        """At most `limit` mails in one of these states, the newest first."""
        newest = (
            _mails()
            .where(or_(*(_IS_IN[state] for state in states)))
            .order_by(OutboxMail.created_at.desc(), OutboxMail.id.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return _read(connection, newest)

    def mail(self, mail_id: str) -> QueuedMail | None:
        """The mail of that id; None if there is none."""
        with self._database.read() as connection:
            found = _read(connection, _mails().where(OutboxMail.id == mail_id))
        return found[0] if found else None

    def dead(self) -> Iterator[list[str]]:
        """The ids of all dead mails, BATCH at a time, each batch in a transaction of its own."""
        batch = [""]
        while batch:
            # In the order of the key: what dies again after its retry is not met a second time.
            following = (
                select(OutboxMail.id)
                .where(_IS_IN[State.DEAD], OutboxMail.id > batch[-1])
                .order_by(OutboxMail.id)
                .limit(BATCH)
            )
            with self._database.read() as connection:
                batch = list(connection.scalars(following))
            if batch:
                yield batch

    def retry(self, mail_ids: Collection[str]) -> Changes:
        """Makes mails due now, as if they had never been tried; at most BATCH of them.

        The last error stays until the next try. Left alone: what is sent, what has no use any
        more, and what a deliverer holds. A repeat changes nothing that matters.
        """
        now = self.now()
        valid = select(Verification.id).where(
            Verification.id == OutboxMail.verification_id, Verification.expires_at > now
        )
        unverified = select(User.id).where(
            User.id == OutboxMail.user_id, User.is_email_verified.is_(False)
        )
        return self._change(
            mail_ids,
            update(OutboxMail)
            .where(
                OutboxMail.sent_at.is_(None),
                _unclaimed(now),
                valid.exists(),
                unverified.exists(),
            )
            .values(due_at=now, claimed_by=None, attempts=0, dead_at=None),
            lambda mail: _obstacle_to_retry(mail, now),
        )

    def drop(self, mail_ids: Collection[str]) -> Changes:
        """Settles queued mails as dead, so that they are never sent; at most BATCH of them.

        Left alone: what is sent or dead, and what a deliverer holds, as it may be under way to
        the mail server. A repeat is harmless.
        """
        now = self.now()
        return self._change(
            mail_ids,
            update(OutboxMail)
            .where(_IS_IN[State.QUEUED], _unclaimed(now))
            .values(due_at=None, claimed_by=None, dead_at=now, last_error=DROPPED),
            lambda mail: _obstacle_to_drop(mail, now),
        )

    def figures(self) -> Figures:
        """Counts, ages, and the pause."""
        now = self.now()
        queued, dead = _IS_IN[State.QUEUED], _IS_IN[State.DEAD]
        totals = select(
            func.count().filter(queued).label("queued"),
            func.min(OutboxMail.created_at).filter(queued).label("oldest"),
            func.count().filter(queued, OutboxMail.attempts > 0).label("delayed"),
            func.count().filter(dead).label("dead"),
            func.count().filter(OutboxMail.sent_at > now - SENT_SINCE).label("sent_lately"),
        ).select_from(OutboxMail)
        number = func.count()
        by_error = (
            select(OutboxMail.last_error, number)
            .where(dead)
            .group_by(OutboxMail.last_error)
            .order_by(number.desc(), OutboxMail.last_error)
            .limit(MOST_ERRORS)
        )
        pause = select(OutboxPause.since, OutboxPause.reason, OutboxPause.probe_at).limit(1)
        with self._database.read() as connection:
            total = connection.execute(totals).one()
            errors = [(error, count) for error, count in connection.execute(by_error)]
            paused = connection.execute(pause).mappings().one_or_none()
        return Figures(
            queued=total.queued,
            # Another host's clock may be ahead of ours.
            oldest_queued=max(now - total.oldest, timedelta()) if total.oldest else None,
            delayed=total.delayed,
            dead=total.dead,
            dead_by_error=errors,
            sent_lately=total.sent_lately,
            pause=Pause(**paused) if paused else None,
        )

    def _change(
        self,
        mail_ids: Collection[str],
        change: Update,
        obstacle: Callable[[QueuedMail], Obstacle],
    ) -> Changes:
        """Changes those of the mails that the condition allows, and says why not the others."""
        with self._database.write() as connection:
            changed = set(
                connection.scalars(
                    change.where(OutboxMail.id.in_(mail_ids)).returning(OutboxMail.id)
                )
            )
            others = [mail_id for mail_id in mail_ids if mail_id not in changed]
            found = _read(connection, _mails().where(OutboxMail.id.in_(others))) if others else []
        known = {mail.id: obstacle(mail) for mail in found}
        return Changes(
            len(changed), {mail_id: known.get(mail_id, Obstacle.UNKNOWN) for mail_id in others}
        )


def _mails() -> Select[*tuple[Any, ...]]:
    return (
        standings()
        .add_columns(
            OutboxMail.user_id,
            User.username,
            User.is_email_verified,
            func.coalesce(Verification.email, User.email).label("email"),
        )
        .join(User, User.id == OutboxMail.user_id)
    )


def _read(connection: Connection, mails: Select[*tuple[Any, ...]]) -> list[QueuedMail]:
    return [QueuedMail(**row) for row in connection.execute(mails).mappings()]


def _unclaimed(now: datetime) -> ColumnElement[bool]:
    # A dead mail is due never.
    return or_(
        OutboxMail.claimed_by.is_(None), OutboxMail.due_at.is_(None), OutboxMail.due_at <= now
    )


def _obstacle_to_retry(mail: QueuedMail, now: datetime) -> Obstacle:
    if mail.state is State.SENT:
        return Obstacle.SENT
    if mail.is_email_verified:
        return Obstacle.VERIFIED
    if mail.token_expires_at is None:
        return Obstacle.GONE
    if mail.token_expires_at <= now:
        return Obstacle.OVER
    return Obstacle.CLAIMED if mail.is_claimed(now) else Obstacle.CHANGED


def _obstacle_to_drop(mail: QueuedMail, now: datetime) -> Obstacle:
    if mail.state is State.SENT:
        return Obstacle.SENT
    if mail.state is State.DEAD:
        return Obstacle.DEAD
    return Obstacle.CLAIMED if mail.is_claimed(now) else Obstacle.CHANGED
