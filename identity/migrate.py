"""Migrates the schema with Alembic. Only here is Alembic imported: it takes 0.4 s."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from identity.errors import DatabaseUnavailable

_PACKAGE = Path(__file__).parent
_LOCKED = "55P03"  # PostgreSQL's lock_not_available


class TableInUse(Exception):
    """A transaction held a table for too long. Revisions before the one at hand are done."""


def upgrade(url: URL) -> None:
    """Brings the database to the newest revision. Harmless where it is there already.

    Raises TableInUse, DatabaseUnavailable.
    """
    try:
        command.upgrade(configuration(url), "head")
    except DatabaseUnavailable as error:
        cause = error.__cause__
        if isinstance(cause, DBAPIError) and getattr(cause.orig, "sqlstate", "") == _LOCKED:
            raise TableInUse from error
        raise


def configuration(url: URL) -> Config:
    """Alembic's configuration in code: `[tool.alembic]` is only there in a checkout."""
    packaged = _PACKAGE / "migrations"  # in a wheel; in a checkout they stand beside the package
    scripts = packaged if packaged.is_dir() else _PACKAGE.parent / "migrations"
    config = Config(attributes={"url": url})
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    return config
