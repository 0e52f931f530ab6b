"""Alembic's environment, for `identity migrate` and for `alembic` in a checkout."""

import sys
import time
from contextlib import closing
from typing import Literal

from alembic import context
from sqlalchemy import Connection, text

from identity import config, embedded
from identity.database import Database, translated
from identity.models import Base, UtcDateTime

LOCK_KEY = 0x6964656E74697479  # "identity" in ASCII
POLL_INTERVAL = 0.1  # seconds
# Seconds a statement waits for a table: whoever comes meanwhile queues up behind it.
LOCK_TIMEOUT = 3


def plain(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Writes our own types as what they are in the database: revisions outlive our code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def run(connection: Connection) -> None:
    """Runs the migrations on this connection."""
    is_sqlite = connection.dialect.name == "sqlite"
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite alters a table by copying it.
        render_as_batch=is_sqlite,
        # Both databases can; Alembic assumes that SQLite can't.
        transactional_ddl=True,
        # An index made concurrently ends the transaction: it must not be that of other revisions.
        # SQLite has none, and a transaction around all of it, the look at the revision included,
        # is what lets one of several migrators through at a time.
        transaction_per_migration=not is_sqlite,
        compare_server_default=True,
        render_item=plain,
    )
    with context.begin_transaction():
        context.run_migrations()


def write() -> None:
    """Writes the SQL for PostgreSQL, and runs nothing (`alembic upgrade --sql`)."""
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def wait_for_turn(connection: Connection) -> None:
    """Lets one migrator at a time through, of all replicas that start together.

    Tries and sleeps, because one that waited inside PostgreSQL would hold a snapshot, which an
    index made concurrently by the other waits for: a deadlock. The lock ends with the connection.
    """
    is_waiting = False
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}):
        if not is_waiting:
            print("another process migrates this database: waiting for it", file=sys.stderr)
            is_waiting = True
        connection.commit()
        time.sleep(POLL_INTERVAL)


def main() -> None:
    """Finds the database: handed over in code, or in the environment."""
    url = context.config.attributes.get("url")
    if url is None:
        settings = config.load()
        if settings.is_embedded:
            embedded.make_directory()
        url = settings.database_url
    with (
        translated(),
        # A migration may take as long as it takes.
        closing(Database(url, statement_timeout=None)) as database,
        database.engine.execution_options(writes=True).connect() as connection,
    ):
        if connection.dialect.name == "sqlite":
            # A copied table is dropped, and with foreign keys on that would delete what refers
            # to it. The pragma does nothing inside a transaction.
            connection.connection.execute("PRAGMA foreign_keys = OFF")
        else:
            wait_for_turn(connection)
            connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}s'"))
            connection.commit()
        run(connection)
        connection.commit()


if context.is_offline_mode():
    write()
else:
    main()
