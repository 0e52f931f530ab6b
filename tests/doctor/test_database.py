"""What is said of databases as they really are, and that they stay as they were."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from identity import embedded, migrate
from identity.database import REVISIONS, Database
from identity.doctor.postgres import postgres_findings
from tests.doctor.conftest import KEYS, Doctor, Report

ALL = ("", ".schema", ".writes", ".clock", ".connections", ".durability")


def report(doctor: Doctor, url: URL, **settings: object) -> Report:
    whole = url.render_as_string(hide_password=False)
    return doctor(**{"DATABASE_URL": whole, "SECRET_KEYS": KEYS, **settings})


def change(url: URL, statement: str) -> None:
    with closing(Database(url)) as database, database.write() as connection:
        connection.execute(text(statement))


def test_a_sound_postgresql_passes_every_check(doctor: Doctor, postgres_url: URL) -> None:
    found = report(doctor, postgres_url)
    assert {name: found.result_of(f"database{name}") for name in ALL} == dict.fromkeys(ALL, "pass")
    assert "PostgreSQL 18" in found.found("database")
    assert found.code == 0


def test_a_schema_that_is_behind_fails_and_names_the_command(
    doctor: Doctor, empty_database_url: URL
) -> None:
    with closing(Database(empty_database_url)) as database:
        database.revision()  # an empty file
    found = report(doctor, empty_database_url)
    assert found.checks["database.schema"] == (
        "fail",
        f"at revision none, this release needs {REVISIONS[-1]}",
        "run `identity migrate`",
    )
    with closing(Database(empty_database_url)) as database:
        assert database.revision() is None


def test_a_schema_that_is_ahead_is_a_warning(doctor: Doctor, database_url: URL) -> None:
    change(database_url, "UPDATE alembic_version SET version_num = '9999'")
    found = report(doctor, database_url)
    assert found.result_of("database.schema") == "warn"
    assert "9999" in found.found("database.schema")


def test_a_postgresql_that_only_reads_fails_though_it_can_be_reached(
    doctor: Doctor, postgres_url: URL
) -> None:
    change(
        postgres_url,
        f"ALTER DATABASE {postgres_url.database} SET default_transaction_read_only = on",
    )
    found = report(doctor, postgres_url)
    assert found.result_of("database") == "pass"
    assert found.result_of("database.schema") == "pass"
    assert found.result_of("database.writes") == "fail"
    assert found.found("database.writes").startswith("read-only")


@pytest.fixture
def stranger(postgres_url: URL, postgres_uri: str) -> Iterator[URL]:
    """The same database for a role that was granted nothing."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
        yield postgres_url.set(username="stranger", password="stranger")
        connection.execute("DROP ROLE stranger")


def test_a_role_without_its_privileges_is_told_what_it_lacks(
    doctor: Doctor, stranger: URL, postgres_url: URL
) -> None:
    found = report(doctor, stranger)
    assert found.result_of("database") == "pass"
    assert found.checks["database.schema"][:2] == (
        "fail",
        "permission denied for table alembic_version",
    )
    assert found.result_of("database.writes") == "fail"
    assert "no DELETE on idempotency_keys" in found.found("database.writes")
    assert found.result_of("database.durability") == "pass"

    change(
        postgres_url,
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO stranger",
    )
    try:
        assert report(doctor, stranger).result_of("database.writes") == "pass"
    finally:
        change(postgres_url, "DROP OWNED BY stranger")


def test_commits_that_wait_for_no_disk_are_a_warning(doctor: Doctor, postgres_url: URL) -> None:
    url = postgres_url.update_query_dict({"options": "-c synchronous_commit=off"})
    assert report(doctor, url).result_of("database.durability") == "warn"


def test_more_connections_than_the_server_allows_are_a_warning(
    doctor: Doctor, postgres_url: URL
) -> None:
    many = report(doctor, postgres_url, WORKERS=64, RATE_LIMIT_STORE="valkey://127.0.0.1:1")
    assert many.result_of("database.connections") == "warn"
    assert "97 allowed" in many.found("database.connections")  # of 100, 3 for superusers


@pytest.mark.parametrize(
    ("ahead", "result"),
    [(0, "pass"), (10, "warn"), (-10, "warn"), (100, "fail"), (-100, "fail")],
)
def test_clocks_that_differ_are_told_by_how_much(
    postgres_url: URL, ahead: int, result: str
) -> None:
    def now() -> datetime:
        return datetime.now(UTC) - timedelta(seconds=ahead)

    findings = {each.name: each for each in postgres_findings(postgres_url, 20, now)}
    clock = findings["database.clock"]
    assert clock.result == result
    assert clock.found.startswith(f"{abs(ahead)}.")
    assert ("ahead of" in clock.found) or ahead <= 0


def test_a_postgresql_that_is_not_there_fails_in_one_line(
    doctor: Doctor, postgres_url: URL
) -> None:
    found = report(doctor, make_url("postgresql+psycopg://identity:hunter2@127.0.0.1:1/identity"))
    assert [name for name in found.checks if name.startswith("database")] == ["database"]
    assert found.found("database").endswith("Connection refused")
    missing = report(doctor, postgres_url.set(database="missing"))
    assert 'database "missing" does not exist' in missing.found("database")


def test_a_file_that_is_being_written_is_read_as_it_stands(
    doctor: Doctor, sqlite_url: URL, tmp_path: Path
) -> None:
    with closing(Database(sqlite_url)) as database:
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        assert (tmp_path / "identity.db-wal").exists()  # where the change still stands
        found = report(doctor, sqlite_url)
        assert found.result_of("database.schema") == "fail"
        assert "at revision 0001" in found.found("database.schema")


def test_a_file_that_rests_is_not_touched(doctor: Doctor, sqlite_url: URL, tmp_path: Path) -> None:
    def state() -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()}

    before = state()
    found = report(doctor, sqlite_url)
    assert found.code == 0
    assert found.result_of("database.writes") == "pass"
    assert "one machine" in found.found("database")
    assert state() == before


def test_a_file_that_is_not_there_is_made_by_migrate_alone(doctor: Doctor, tmp_path: Path) -> None:
    absent = tmp_path / "absent.db"
    assert report(doctor, make_url(f"sqlite:///{absent}")).checks["database"] == (
        "fail",
        f"SQLite, {absent}: no such file",
        "run `identity migrate`",
    )
    assert not absent.exists()
    nowhere = make_url(f"sqlite:///{tmp_path / 'nowhere' / 'identity.db'}")
    assert report(doctor, nowhere).result_of("database.writes") == "fail"


def test_a_file_that_is_no_database_fails(doctor: Doctor, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"not a database" * 1000)
    found = report(doctor, make_url(f"sqlite:///{other}"))
    assert found.result_of("database") == "fail"
    assert "file is not a database" in found.found("database")


def test_the_default_file_may_be_behind_as_the_start_migrates_it(doctor: Doctor) -> None:
    embedded.make_directory()
    with closing(sqlite3.connect("var/identity.db")):
        pass
    found = doctor()
    assert found.result_of("database.schema") == "pass"
    assert "the start brings it" in found.found("database.schema")
    migrate.upgrade(make_url("sqlite:///var/identity.db"))
    assert doctor().found("database.schema") == f"at revision {REVISIONS[-1]}"
