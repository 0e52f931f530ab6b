"""What SQLite's file may do to a registration, and what is left of it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import URL

from identity.database import Database
from identity.deadlines import Deadline
from identity.errors import DatabaseUnavailable
from identity.schemas import Registration
from identity.security.passwords import PasswordHasher
from tests.fakes import FakeClock
from tests.registrar import registrar
from tests.requests import PASSWORD

Register = Callable[[int], object]


@pytest.fixture
def database(sqlite_url: URL) -> Iterator[Database]:
    with closing(Database(sqlite_url, connections=1)) as opened:
        yield opened


@pytest.fixture
def register(database: Database, clock: FakeClock) -> Iterator[Register]:
    hasher = PasswordHasher(4, 1)
    service = registrar(database, hasher, clock)

    def call(number: int) -> object:
        registration = Registration.checked(
            username=f"user{number}", email=f"user{number}@example.com", password=PASSWORD
        )
        return service.register(registration, "", Deadline())

    yield call
    hasher.close()


def rows(database: Database) -> set[int]:
    """How many users, verifications and mails there are: one number if none is half."""
    with database.read() as connection:
        return {
            connection.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608
            for table in ("users", "verifications", "outbox")
        }


def test_a_file_that_is_full_leaves_no_half_registration(
    database: Database, register: Register
) -> None:
    """At whichever of its statements a registration meets the end."""
    register(0)
    room = 0

    def limit(connection: sqlite3.Connection, *_: object) -> None:
        used = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {used + room}")

    event.listen(database.engine, "checkout", limit)
    stored, refused = 1, 0
    for room in (0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0):  # noqa: B007 - limit() reads it
        for _ in range(20):
            try:
                register(stored)
            except DatabaseUnavailable:
                refused += 1
                break
            stored += 1
        assert rows(database) == {stored}
    assert refused > 0
    event.remove(database.engine, "checkout", limit)
    with database.write() as connection:
        connection.execute(text("PRAGMA max_page_count = 1000000"))
    register(stored)
    assert rows(database) == {stored + 1}


def test_what_was_acknowledged_is_on_the_disk(database: Database) -> None:
    with database.read() as connection:
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
