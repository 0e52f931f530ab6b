"""Looks at a PostgreSQL server by the connections that the service would make."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from identity.database import Database
from identity.doctor.finding import Finding, failed, foreign, passed, warned
from identity.doctor.schema import schema
from identity.errors import DatabaseUnavailable
from identity.models import Base

STATEMENT_TIMEOUT: Final = 2.0  # seconds; each one takes milliseconds
# Lives of tokens go by our clock and leases by the server's: seconds do no harm, a minute is the
# shortest life that a link can be given.
NOTICEABLE_SKEW: Final = timedelta(seconds=2)
MAXIMUM_SKEW: Final = timedelta(seconds=60)

_WITHHELD: Final = text(
    "SELECT t.name, p.name FROM unnest(CAST(:tables AS text[])) AS t(name),"
    " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(name)"
    " WHERE to_regclass(t.name) IS NOT NULL AND NOT has_table_privilege(t.name, p.name)"
    " ORDER BY t.name, p.name"
)
# What is left of max_connections for roles like ours.
_ALLOWED: Final = text(
    "SELECT sum(CASE name WHEN 'max_connections' THEN 1 ELSE -1 END * setting::int)"
    " FROM pg_settings WHERE name IN ('max_connections', 'reserved_connections',"
    " 'superuser_reserved_connections')"
)

# psycopg's, before what libpq says.
_PREFIX: Final = re.compile(r"^connection (failed|is bad): ")


def postgres_findings(url: URL, connections: int, now: Callable[[], datetime]) -> Iterator[Finding]:
    """`connections`: how many the service opens at most, over all its workers."""
    if "@" in (url.host or ""):  # the end of a password: not to be shown, nor looked up
        yield failed(
            "database",
            "the host in IDENTITY_DATABASE_URL holds an @",
            "percent-encode the password: @ as %40",
        )
        return
    refusal = _refusal(url)
    if refusal is not None and "read-only" in refusal:
        # As `serve` connects, a server that only reads is turned away.
        url = url.update_query_dict({"target_session_attrs": "any"})
        refusal = _refusal(url)
    if refusal is not None:
        mend = "look at IDENTITY_DATABASE_URL, and whether the server lets this machine in"
        yield failed("database", refusal, mend)
        return
    with closing(_opened(url)) as database:
        looks: Sequence[tuple[str, Callable[[], Finding]]] = (
            ("database", lambda: _server(database)),
            ("database.schema", lambda: schema(database.revision())),
            ("database.writes", lambda: _writes(database)),
            ("database.clock", lambda: _clock(database, now)),
            ("database.connections", lambda: _room(database, connections)),
            ("database.durability", lambda: _durability(database)),
        )
        for name, look in looks:
            try:
                yield look()
            except (DatabaseUnavailable, DBAPIError) as error:
                yield failed(name, _told(error), "let the service's role read and write all tables")


def _opened(url: URL) -> Database:
    return Database(url, connections=1, statement_timeout=STATEMENT_TIMEOUT)


def _refusal(url: URL) -> str | None:
    """Why the database cannot be used, in the driver's words; None if it can."""
    try:
        with closing(_opened(url)) as database, database.read():
            return None
    except (DatabaseUnavailable, DBAPIError) as error:
        return _told(error)


def _told(error: DatabaseUnavailable | DBAPIError) -> str:
    """The driver's words: they name hosts, roles and tables, and no password."""
    cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else error
    return foreign(_PREFIX.sub("", str(getattr(cause, "orig", cause))))


def _server(database: Database) -> Finding:
    with database.read() as connection:
        version = foreign(str(connection.scalar(text("SHOW server_version"))))
        driver: Any = connection.connection.dbapi_connection  # psycopg's own
        return passed("database", f"PostgreSQL {version} at {driver.info.host}:{driver.info.port}")


def _writes(database: Database) -> Finding:
    with database.read() as connection:
        is_read_only = connection.scalar(text("SHOW transaction_read_only")) == "on"
        is_standby = connection.scalar(text("SELECT pg_is_in_recovery()"))
        tables = sorted(Base.metadata.tables)
        withheld = connection.execute(_WITHHELD, {"tables": tables}).all()
    if is_read_only:
        return failed(
            "database.writes",
            "read-only: a standby" if is_standby else "read-only by default_transaction_read_only",
            "name the primary in IDENTITY_DATABASE_URL, or end the server's read-only mode",
        )
    if withheld:
        (table, privilege), more = withheld[0], len(withheld) - 1
        return failed(
            "database.writes",
            f"no {privilege} on {table}"
            + (f", and {more} more privileges missing" if more else ""),
            "grant SELECT, INSERT, UPDATE, DELETE on all tables to the role of the service",
        )
    return passed("database.writes", "takes writes")


def _clock(database: Database, now: Callable[[], datetime]) -> Finding:
    before = now()
    theirs = database.now()
    skew = theirs - (before + (now() - before) / 2)
    told = (
        f"{abs(skew).total_seconds():.1f} s {'ahead of' if skew > timedelta() else 'behind'} ours"
    )
    mend = "let both machines follow a time server"
    if abs(skew) > MAXIMUM_SKEW:
        return failed("database.clock", told, mend)
    if abs(skew) > NOTICEABLE_SKEW:
        return warned("database.clock", told, mend)
    return passed("database.clock", told)


def _room(database: Database, wanted: int) -> Finding:
    with database.read() as connection:
        allowed = int(connection.execute(_ALLOWED).scalar_one())
    found = f"{wanted} wanted by this process and its workers, {allowed} allowed by the server"
    if wanted > allowed:
        mend = "raise max_connections, or lower IDENTITY_WORKERS"
        return warned("database.connections", found, mend)
    return passed("database.connections", found)


def _durability(database: Database) -> Finding:
    with database.read() as connection:
        found = connection.scalar(text("SHOW synchronous_commit"))
    if found == "off":
        return warned(
            "database.durability",
            "synchronous_commit is off: a crash of the server loses what was acknowledged",
            "set synchronous_commit to on for this database",
        )
    return passed("database.durability", f"synchronous_commit is {foreign(str(found))}")
