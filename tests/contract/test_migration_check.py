"""Revisions that would stop the service, or break old code, are refused by `make check`."""

import re
import shutil
from pathlib import Path

import pytest

from identity.database import REVISIONS
from scripts import migrations

TEMPLATE = '''"""temporary"""
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
accepted_dangers = {accepted!r}

def upgrade() -> None:
{body}
'''
CONCURRENTLY = """with op.get_context().autocommit_block():
    op.drop_index("ix_users_a", "users", if_exists=True, postgresql_concurrently=True)
    op.create_index("ix_users_a", "users", ["created_at"], postgresql_concurrently=True)"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Our migrations, in a folder that may be written to."""
    copy = tmp_path / "migrations"
    shutil.copytree(migrations.VERSIONS, copy)
    return copy


def write(folder: Path, body: str, accepted: tuple[str, ...] = ()) -> None:
    indented = re.sub("^", "    ", body, flags=re.MULTILINE)
    revision = TEMPLATE.format(head=REVISIONS[-1], accepted=accepted, body=indented)
    (folder / "versions" / "9999_temporary.py").write_text(revision)


def test_our_revisions_are_safe(folder: Path) -> None:
    assert migrations.main([str(folder)]) == 0


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (
            'op.create_index("ix_users_a", "users", ["created_at"])',
            "require-concurrent-index-creation",
        ),
        (
            'op.add_column("users", sa.Column("a", sa.String(9), nullable=False))',
            "adding-required-field",
        ),
        ('op.alter_column("users", "held_until", nullable=False)', "adding-not-nullable-field"),
        ('op.alter_column("users", "email", type_=sa.Text())', "changing-column-type"),
        ('op.create_unique_constraint("uq_a", "users", ["id"])', "disallowed-unique-constraint"),
        (
            'op.create_foreign_key("fk_a", "outbox", "users", ["id"], ["id"])',
            "adding-foreign-key-constraint",
        ),
        ('op.drop_column("users", "held_until")', "ban-drop-column"),
        ('op.alter_column("users", "email", new_column_name="a")', "renaming-column"),
        ('op.execute("CREATE INDEX ix ON users (id)")', "require-concurrent-index-creation"),
    ],
)
def test_a_danger_is_refused_with_its_revision(
    folder: Path, capfd: pytest.CaptureFixture[str], body: str, rule: str
) -> None:
    write(folder, body)
    assert migrations.main([str(folder)]) == 1
    told = capfd.readouterr().err
    assert rule in told
    assert "dangerous while old code runs: 9999\n" in told


@pytest.mark.parametrize(
    "body",
    [
        'op.add_column("users", sa.Column("a", sa.String(9)))',
        'op.add_column("users", sa.Column("a", sa.String(9), nullable=False, server_default="b"))',
        'op.create_table("a", sa.Column("b", sa.Text()))\nop.create_index("c", "a", ["b"])',
        CONCURRENTLY,
    ],
)
def test_the_safe_way_is_not(folder: Path, body: str) -> None:
    write(folder, body)
    assert migrations.main([str(folder)]) == 0


def test_a_danger_can_be_accepted_by_its_name(folder: Path) -> None:
    write(folder, 'op.drop_column("users", "held_until")', ("ban-drop-column",))
    assert migrations.main([str(folder)]) == 0
