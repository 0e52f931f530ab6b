"""The engine, and transactions that fail in the domain's words."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect, text
from sqlalchemy.engine import URL

from identity.errors import Conflict, DatabaseUnavailable

# Every revision of the schema, oldest first. A constant, so that `serve` starts without Alembic
# (0.4 s); a test holds it to migrations/versions.
REVISIONS: Final = ("0001", "0002", "0003")

CONNECT_TIMEOUT = 3  # seconds, PostgreSQL
STATEMENT_TIMEOUT_MS = 5_000  # PostgreSQL; every statement of ours takes about a millisecond
POOL_TIMEOUT = 5.0  # seconds a call waits for a connection
POOL_SIZE = 20  # light calls hold one for about a millisecond, Registers only after their hash
BUSY_TIMEOUT_MS = 5_000  # how long SQLite waits for another writer

# SQLite's codes that speak of the file or of other users of it, not of our statements.
_SQLITE_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)
# PostgreSQL's, by the class of the SQLSTATE: connection, resources, operator intervention.
# And a server that only reads, as a standby does that is not promoted yet.
_POSTGRES_UNAVAILABLE = ("08", "53", "57", "25006")
# Serialization failure, deadlock: the same transaction may succeed when it is run again.
_POSTGRES_CONFLICT = frozenset({"40001", "40P01"})


class Database:
    """One database, and the two kinds of transactions on it."""

    def __init__(self, url: URL) -> None:
        self.engine: Engine = _engine(url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises DatabaseUnavailable."""
        with translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes, committed at the end of the block.

        Raises DatabaseUnavailable, Conflict, or `sqlalchemy.exc.IntegrityError`.
        """
        with translated(), self.engine.execution_options(writes=True).begin() as connection:
            yield connection

    def revision(self) -> str | None:
        """The revision that the schema is at; None for an empty database."""
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
            return found

    def close(self) -> None:
        """Closes the pooled connections."""
        self.engine.dispose()


def behind(revision: str | None) -> str | None:
    """Why this release can't work on a schema at that revision, in one line for the operator.

    None if it can: the schema is its own, or one that is ahead.
    """
    if revision is not None and revision not in REVISIONS[:-1]:
        return None
    return (
        f"the database is at revision {revision or 'none'}, this release needs {REVISIONS[-1]}: "
        "run `identity migrate`"
    )


def _engine(url: URL) -> Engine:
    # No parameters in exceptions: they are what people sent.
    options: dict[str, Any] = {"hide_parameters": True, "pool_timeout": POOL_TIMEOUT}
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}
    else:
        options["connect_args"] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "application_name": "identity",
            # Also what the end of the service may have to wait for.
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}",
        }
        options["pool_pre_ping"] = True
    engine = create_engine(url, pool_size=POOL_SIZE, max_overflow=0, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we begin ourselves, see below
    for pragma in (
        "journal_mode = WAL",  # readers go on while one writes
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "synchronous = FULL",  # what was acknowledged outlives a power cut
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once when another wrote between,
    # whatever the busy timeout: writers take the lock at the start.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def translated() -> Iterator[None]:
    """Gives the driver's errors their names in the domain, as `read` and `write` do."""
    try:
        yield
    except exc.TimeoutError as error:  # no connection came free
        raise DatabaseUnavailable from error
    except exc.DBAPIError as error:
        if error.connection_invalidated or _is_unavailable(error.orig):
            raise DatabaseUnavailable from error
        if getattr(error.orig, "sqlstate", None) in _POSTGRES_CONFLICT:
            raise Conflict from error
        raise


def _is_unavailable(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        # Extended codes keep the primary one in their lowest byte.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_UNAVAILABLE
    state = getattr(error, "sqlstate", None)
    if state is None:  # psycopg gives none where no server answered
        return type(error).__name__ in {"OperationalError", "ConnectionTimeout"}
    return bool(state.startswith(_POSTGRES_UNAVAILABLE))
