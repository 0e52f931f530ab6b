"""Looks at a database file without changing it, or what lies beside it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from identity.database import REVISIONS, behind
from identity.doctor.finding import Finding, failed, foreign, passed
from identity.doctor.schema import schema

BUSY_TIMEOUT: Final = 2.0  # seconds


def sqlite_findings(path: Path, *, is_embedded: bool) -> Iterator[Finding]:
    """`is_embedded`: the file is the default one, which `serve` makes and migrates by itself."""
    place = path.parent
    if not path.exists():
        yield from _absent(path, is_embedded=is_embedded)
        return
    try:
        revision = _revision(path)
    except sqlite3.Error as error:
        why = foreign(str(error))
        yield failed("database", f"SQLite, {path}: {why}", "see whether this is the right file")
        return
    yield passed("database", f"SQLite, {path}; a file is for processes of one machine")
    if is_embedded and behind(revision):
        found = f"at revision {revision or 'none'}; the start brings it to {REVISIONS[-1]}"
        yield passed("database.schema", found)
    else:
        yield schema(revision)
    unwritable = [each for each in (place, path) if not os.access(each, os.W_OK)]
    if unwritable:
        yield failed(
            "database.writes",
            f"{' and '.join(map(str, unwritable))}: not writable",
            "give the service's user the directory and the file, on a disk that takes writes",
        )
    else:
        yield passed("database.writes", "the file and its directory take writes")


def _absent(path: Path, *, is_embedded: bool) -> Iterator[Finding]:
    place = path.parent
    # The start makes the default directory too, in the current one.
    home = place.parent if is_embedded and not place.exists() else place
    if not (home.is_dir() and os.access(home, os.W_OK)):
        yield failed(
            "database.writes",
            f"{home}: no such directory, or not writable",
            "make the directory and give it to the service's user",
        )
    elif is_embedded:
        yield passed("database", f"SQLite, {path}: the first start makes it; for one machine")
    else:
        yield failed("database", f"SQLite, {path}: no such file", "run `identity migrate`")


def _revision(path: Path) -> str | None:
    # Even a reader makes a log and an index beside the file, and leaves them there. Without a log
    # that file is whole, and can be read as if nobody ever wrote to it.
    has_log = path.with_name(f"{path.name}-wal").exists()
    options = "mode=ro" if has_log else "mode=ro&immutable=1"
    where = f"{path.absolute().as_uri()}?{options}"
    with closing(sqlite3.connect(where, uri=True, timeout=BUSY_TIMEOUT)) as connection:
        tables = "SELECT 1 FROM sqlite_schema WHERE name = 'alembic_version'"
        if connection.execute(tables).fetchone() is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])
