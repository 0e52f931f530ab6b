"""How deep the queue of mails is. Reads no row that is settled, however long the history."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select

from identity.database import Database, read_clock
from identity.models import OutboxMail, OutboxPause


@dataclass(frozen=True)
class Depth:
    """The mails that are still to be sent."""

    queued: int
    delayed: int  # of these, how many failed at least once
    oldest: timedelta  # the age of the oldest; none is zero
    is_paused: bool


def depth(database: Database) -> Depth:
    """Looks at the queue. Raises DatabaseUnavailable."""
    # A mail has a time at which it is due exactly as long as it is to be sent; there is an index.
    waiting = select(
        func.count(),
        func.count().filter(OutboxMail.attempts > 0),
        func.min(OutboxMail.created_at),
    ).where(OutboxMail.due_at.is_not(None))
    with database.read() as connection:
        queued, delayed, oldest = connection.execute(waiting).one()
        is_paused = connection.scalar(select(OutboxPause.id)) is not None
        now = read_clock(connection, database.moment)
    # Another host's clock may be ahead of ours.
    age = timedelta() if oldest is None else max(now - oldest, timedelta())
    return Depth(queued, delayed, age, is_paused)
