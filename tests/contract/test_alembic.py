"""Alembic's own program works in a checkout, for those who write the next revision."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a checkout has of migrations, in a folder that may be written to."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def alembic(checkout: Path, url: URL, *arguments: str) -> str:
    """Runs the program; fails with what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IDENTITY_")}
    environment["IDENTITY_DATABASE_URL"] = url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_up_down_and_no_drift(checkout: Path, empty_database_url: URL) -> None:
    alembic(checkout, empty_database_url, "upgrade", "head")
    assert "No new upgrade operations detected" in alembic(checkout, empty_database_url, "check")
    alembic(checkout, empty_database_url, "downgrade", "-1")
    alembic(checkout, empty_database_url, "upgrade", "head")


def test_a_new_revision_writes_plain_types_and_can_be_run(
    checkout: Path, empty_database_url: URL
) -> None:
    """Against an empty database with no revisions, autogenerate writes the whole schema."""
    for revision in (checkout / "migrations" / "versions").glob("*.py"):
        revision.unlink()
    alembic(checkout, empty_database_url, "revision", "--autogenerate", "-m", "all of it")
    (written,) = (checkout / "migrations" / "versions").glob("*_all_of_it.py")
    assert "identity." not in written.read_text()
    alembic(checkout, empty_database_url, "upgrade", "head")
    alembic(checkout, empty_database_url, "check")
    alembic(checkout, empty_database_url, "downgrade", "-1")
