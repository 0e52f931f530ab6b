"""SQLite's engine, for the embedded case: several threads and processes on one file."""

import sqlite3
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

BUSY_TIMEOUT: Final = 4.0  # seconds a writer waits for another

# Codes that speak of the file or of other users of it, not of our statements.
_UNAVAILABLE: Final = frozenset(
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


def sqlite_engine(url: URL, **pool: Any) -> Engine:  # noqa: ANN401
    """The engine. Connections with the execution option `writes` begin as writers."""
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT, "check_same_thread": False},
        hide_parameters=True,  # they are what people sent
        **pool,
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def is_unavailable(error: sqlite3.Error) -> bool:
    """Whether the database could not be used at all: locked, full, gone."""
    # Extended codes keep the primary one in their lowest byte.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNAVAILABLE


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we begin ourselves, see below
    for pragma in (
        "journal_mode = WAL",  # readers go on while one writes
        f"busy_timeout = {int(BUSY_TIMEOUT * 1000)}",
        "synchronous = FULL",  # what was acknowledged outlives a power cut
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once when another wrote between,
    # whatever the busy timeout: writers take the lock at the start.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
