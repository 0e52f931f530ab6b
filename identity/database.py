"""The engine, and transactions that fail in the domain's words."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    bindparam,
    event,
    exc,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry

from identity import sqlite
from identity.clock import utc_now
from identity.errors import Conflict, DatabaseUnavailable
from identity.meters import SILENT, Meters
from identity.models import UtcDateTime

# Every revision of the schema, oldest first. A constant, so that `serve` starts without Alembic
# (0.4 s); a test holds it to migrations/versions.
REVISIONS: Final = ("0001", "0002", "0003")

_TAKEN: Final = "taken"  # in the pool's record of a connection

STATEMENT_TIMEOUT = 3.0  # seconds, PostgreSQL; every statement of a call takes milliseconds
POOL_TIMEOUT = 2.0  # seconds a call waits for a connection

# PostgreSQL's, by the class of the SQLSTATE: connection, resources, operator intervention.
# And a wait for a lock, an idle transaction, a server that only reads: each one ended by a time-out
# or a change of roles that is none of the call's making.
_POSTGRES_UNAVAILABLE = ("08", "53", "57", "55P03", "25P03", "25P04", "25006")
# Serialization failure, deadlock: the same transaction may succeed when it is run again.
_POSTGRES_CONFLICT = frozenset({"40001", "40P01"})


# The moment at which a statement runs, as a value in it.
Moment: TypeAlias = ColumnElement[datetime]


def moment_of(clock: Callable[[], datetime]) -> Moment:
    """By a clock of this process."""
    return bindparam(None, callable_=clock, type_=UtcDateTime())


def read_clock(connection: Connection, moment: Moment) -> datetime:
    """The moment now."""
    return connection.execute(select(moment)).scalar_one()


class Database:
    """One database, and the two kinds of transactions on it."""

    def __init__(
        self,
        url: URL,
        *,
        connections: int = 20,
        statement_timeout: float | None = STATEMENT_TIMEOUT,
        longest_rest: float | None = None,
        meters: Meters = SILENT,
    ) -> None:
        """Opens nothing yet; at most `connections` are ever open.

        For PostgreSQL, in seconds: `statement_timeout`, None for work that may take any time;
        `longest_rest` of a connection before it is looked at, None for the usual one.
        """
        pool = {"pool_size": connections, "max_overflow": 0, "pool_timeout": POOL_TIMEOUT}
        self.has_clock = url.get_backend_name() != "sqlite"
        # By the clock that all processes on this database share. SQLite has none but the machine's.
        self.moment: Final[Moment] = (
            func.clock_timestamp(type_=UtcDateTime()) if self.has_clock else moment_of(utc_now)
        )
        if self.has_clock:
            from identity.postgres import LONGEST_REST, postgres_engine  # noqa: PLC0415 - an extra

            rest = LONGEST_REST if longest_rest is None else longest_rest
            self.engine: Engine = postgres_engine(url, statement_timeout, rest, **pool)
        else:
            self.engine = sqlite.sqlite_engine(url, **pool)
        # The same engine and pool, made once: each costs as much as a statement. PostgreSQL needs
        # no transaction around what is one statement; SQLite's `BEGIN` says who writes.
        at_once = {"isolation_level": "AUTOCOMMIT"} if self.has_clock else {}
        self._reading = self.engine.execution_options(**at_once)
        self._writing = self.engine.execution_options(writes=True)
        self._single = self.engine.execution_options(writes=True, **at_once)
        _count_connections(self.engine, meters)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """For statements that only read. Raises DatabaseUnavailable.

        In PostgreSQL each sees what is committed when it begins, in a transaction or not; without
        one, it takes one round trip where it took three.
        """
        with translated(), self._reading.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes, committed at the end of the block.

        Raises DatabaseUnavailable, Conflict, or `sqlalchemy.exc.IntegrityError`.
        """
        with translated(), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def single(self) -> Iterator[Connection]:
        """For statements of which each may stand by itself: in PostgreSQL each is a transaction.

        Raises as `write` does.
        """
        with translated(), self._single.begin() as connection:
            yield connection

    def revision(self) -> str | None:
        """The revision that the schema is at; None for an empty database."""
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
            return found

    def ping(self) -> None:
        """Raises DatabaseUnavailable where the database does not answer."""
        with self.read() as connection:
            # A row of a table: SQLite answers a bare SELECT without looking at the file.
            connection.execute(text("SELECT version_num FROM alembic_version"))

    def now(self) -> datetime:
        """The moment on the clock that all processes on this database share."""
        with self.read() as connection:
            return read_clock(connection, self.moment)

    def close(self) -> None:
        """Closes the pooled connections."""
        self.engine.dispose()


def _count_connections(engine: Engine, meters: Meters) -> None:
    """Tells of connections that are in use."""

    def taken(_connection: object, record: ConnectionPoolEntry, *_: object) -> None:
        record.info[_TAKEN] = True
        meters.connection_taken()

    def returned(_connection: object, record: ConnectionPoolEntry) -> None:
        # One that could not be made is returned without having been taken.
        if record.info.pop(_TAKEN, False):
            meters.connection_returned()

    event.listen(engine, "checkout", taken)
    event.listen(engine, "checkin", returned)


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
        return sqlite.is_unavailable(error)
    state = getattr(error, "sqlstate", None)
    if state is None:  # psycopg gives none where no server answered
        return type(error).__name__ in {"OperationalError", "ConnectionTimeout"}
    return bool(state.startswith(_POSTGRES_UNAVAILABLE))
