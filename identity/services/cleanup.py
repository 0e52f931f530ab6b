"""Forgets what nobody needs any more, a little at a time."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import structlog
from sqlalchemy import ColumnElement, and_, delete, select

from identity.database import Database
from identity.models import IdempotencyKey, OutboxMail, User, Verification
from identity.services.idempotency import REMEMBERED

INTERVAL: Final = timedelta(minutes=10)
BATCH: Final = 500  # rows a transaction: no lock is held for long
MAXIMUM_BATCHES: Final = 20  # a run and a kind of row; what is left waits for the next run

NEVER_VERIFIED: Final = timedelta(days=7)  # after the hold lapsed
# Lapsed tokens still tell TOKEN_USED from TOKEN_EXPIRED for a while, and count for the limit of
# mails by address for a day.
LAPSED: Final = timedelta(days=7)
SENT: Final = timedelta(days=14)
DEAD: Final = timedelta(days=90)

Table: TypeAlias = type[User] | type[Verification] | type[OutboxMail] | type[IdempotencyKey]

_log = structlog.get_logger()


class Cleanup:
    """A job for the worker; any number of processes may run it."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now
        self._due_at = now()

    def run(self, is_stopping: Callable[[], bool]) -> int:
        """Deletes what is over, if ten minutes have passed since the last run. Returns rows."""
        now = self._now()
        if now < self._due_at:
            return 0
        self._due_at = now + INTERVAL
        total = 0
        for name, table, condition in self._over(now):
            deleted = self._delete_all(table, condition, is_stopping)
            if deleted:
                _log.info("cleaned_up", kind=name, rows=deleted)
            total += deleted
        return total

    @staticmethod
    def _over(
        now: datetime,
    ) -> Sequence[tuple[str, Table, ColumnElement[bool]]]:
        return (
            # `held_until` is NULL for whoever was verified, also after a later change of address.
            (
                "users never verified",
                User,
                and_(User.held_until < now - NEVER_VERIFIED, User.is_email_verified.is_(False)),
            ),
            ("lapsed verifications", Verification, Verification.expires_at < now - LAPSED),
            ("request ids", IdempotencyKey, IdempotencyKey.created_at < now - REMEMBERED),
            # The age of the row comes first in both, because that is what the index is on.
            (
                "sent mails",
                OutboxMail,
                and_(OutboxMail.created_at < now - SENT, OutboxMail.sent_at < now - SENT),
            ),
            (
                "dead mails",
                OutboxMail,
                and_(OutboxMail.created_at < now - DEAD, OutboxMail.dead_at < now - DEAD),
            ),
        )

    def _delete_all(
        self,
        table: Table,
        condition: ColumnElement[bool],
        is_stopping: Callable[[], bool],
    ) -> int:
        total = 0
        for _ in range(MAXIMUM_BATCHES):
            if is_stopping():
                break
            deleted = self._delete_batch(table, condition)
            total += deleted
            if deleted < BATCH:
                break
        return total

    def _delete_batch(self, table: Table, condition: ColumnElement[bool]) -> int:
        over = (
            select(table.id)
            .where(condition)
            .limit(BATCH)
            .with_for_update(skip_locked=True)  # what another process holds, it deletes or needs
            .cte("over")
        )
        with self._database.write() as connection:
            # The condition again: a row may have changed between the look and the lock.
            deleted = connection.scalars(
                delete(table)
                .where(table.id.in_(select(over.c.id)), condition)
                .returning(table.id)  # SQLite counts no rows of a statement that begins with WITH
            ).all()
        return len(deleted)
