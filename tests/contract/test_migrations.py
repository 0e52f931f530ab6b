"""The schema: every revision up and down on both databases, and no drift from the models."""

import os
import subprocess
import sys

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


def test_of_many_migrators_at_once_all_succeed(empty_database_url: URL) -> None:
    """As processes: Alembic keeps its context in globals."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IDENTITY_")}
    environment["IDENTITY_DATABASE_URL"] = empty_database_url.render_as_string(hide_password=False)
    migrators = [
        subprocess.Popen(
            [sys.executable, "-m", "identity", "migrate"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for migrator in migrators:
        stdout, stderr = migrator.communicate(timeout=60)
        assert (migrator.returncode, stderr) == (0, b"")
        assert stdout == f"the database is at revision {REVISIONS[-1]}\n".encode()
