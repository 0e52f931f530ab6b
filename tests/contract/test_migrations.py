"""The schema: every revision up and down on both databases, and no drift from the models."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import DateTime, inspect, text
from sqlalchemy.engine import URL, make_url

from identity import migrate
from identity.database import REVISIONS, Database
from identity.models import Base

WAITING = b"another process migrates this database: waiting for it\n"


def tables(url: URL) -> set[str]:
    database = Database(url)
    try:
        return set(inspect(database.engine).get_table_names())
    finally:
        database.close()


def test_every_revision_goes_up_down_and_up_again(empty_database_url: URL) -> None:
    configuration = migrate.configuration(empty_database_url)
    for revision in REVISIONS:
        command.upgrade(configuration, revision)
        command.downgrade(configuration, "-1")
        command.upgrade(configuration, revision)
    command.downgrade(configuration, "base")
    assert tables(empty_database_url) == {"alembic_version"}
    migrate.upgrade(empty_database_url)
    assert tables(empty_database_url) == {"alembic_version", *Base.metadata.tables}


def test_the_migrated_schema_is_what_the_models_say(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_the_program_knows_every_revision_without_reading_them() -> None:
    configuration = migrate.configuration(make_url("sqlite:///unused.db"))
    script = ScriptDirectory.from_config(configuration)
    assert [revision.revision for revision in script.walk_revisions()][::-1] == list(REVISIONS)


def test_migrating_twice_is_harmless(empty_database_url: URL) -> None:
    migrate.upgrade(empty_database_url)
    migrate.upgrade(empty_database_url)
    database = Database(empty_database_url)
    assert database.revision() == REVISIONS[-1]
    database.close()


def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: URL) -> None:
    database = Database(empty_database_url)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE outbox (id INTEGER)"))  # in the revision's way
    with pytest.raises(Exception, match="already exists"):
        migrate.upgrade(empty_database_url)
    assert "users" not in tables(empty_database_url)
    database.close()


def test_times_are_stored_with_their_zone(postgres_url: URL) -> None:
    database = Database(postgres_url)
    for table in Base.metadata.tables:
        for column in inspect(database.engine).get_columns(table):
            if column["name"].endswith(("_at", "_until")):
                assert isinstance(column["type"], DateTime)
                assert column["type"].timezone
    database.close()


def begin_to_migrate(url: URL) -> "subprocess.Popen[bytes]":
    """As a process: Alembic keeps its context in globals."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IDENTITY_")}
    environment["IDENTITY_DATABASE_URL"] = url.render_as_string(hide_password=False)
    return subprocess.Popen(
        [sys.executable, "-m", "identity", "migrate"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_of_many_migrators_at_once_all_succeed(empty_database_url: URL) -> None:
    migrators = [begin_to_migrate(empty_database_url) for _ in range(4)]
    for migrator in migrators:
        stdout, stderr = migrator.communicate(timeout=60)
        assert (migrator.returncode, stderr.replace(WAITING, b"")) == (0, b"")
        assert stdout == f"the database is at revision {REVISIONS[-1]}\n".encode()


def test_a_migrator_that_waits_for_another_says_so(empty_postgres_url: URL) -> None:
    with closing(Database(empty_postgres_url)) as database, database.engine.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": 0x6964656E74697479})
        migrator = begin_to_migrate(empty_postgres_url)
        assert migrator.stderr is not None
        assert migrator.stderr.readline() == WAITING
        other.execute(text("SELECT pg_advisory_unlock_all()"))
        assert migrator.communicate(timeout=60)[1] == b""
        assert migrator.returncode == 0


def test_a_table_that_is_in_use_stops_the_migration_and_not_the_calls(
    empty_postgres_url: URL,
) -> None:
    command.upgrade(migrate.configuration(empty_postgres_url), "0002")
    with closing(Database(empty_postgres_url)) as database:
        with database.engine.begin() as other:
            other.execute(text("LOCK TABLE users"))
            migrator = begin_to_migrate(empty_postgres_url)
            stderr = migrator.communicate(timeout=60)[1]
            assert migrator.returncode == 1
            assert stderr == (
                b"identity: a table was in use for too long: run `identity migrate` again\n"
            )
        assert database.revision() == "0002"
        migrate.upgrade(empty_postgres_url)
        assert database.revision() == REVISIONS[-1]


CONCURRENTLY = '''"""temporary"""
from alembic import op

revision = "9999"
down_revision = "{head}"

def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_a", "users", if_exists=True, postgresql_concurrently=True)
        op.create_index("ix_a", "users", ["created_at"], postgresql_concurrently=True)
'''


def test_an_index_can_be_made_beside_the_calls(empty_database_url: URL, tmp_path: Path) -> None:
    configuration = migrate.configuration(empty_database_url)
    folder = tmp_path / "migrations"
    shutil.copytree(str(configuration.get_main_option("script_location")), folder)
    (folder / "versions" / "9999_temporary.py").write_text(CONCURRENTLY.format(head=REVISIONS[-1]))
    configuration.set_main_option("script_location", str(folder))
    command.upgrade(configuration, "head")
    with closing(Database(empty_database_url)) as database:
        assert database.revision() == "9999"
        assert "ix_a" in {index["name"] for index in inspect(database.engine).get_indexes("users")}
