"""The program `identity`."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version

from sqlalchemy.exc import DBAPIError

from identity import config, extras, serving
from identity.commands.doctor_arguments import add_doctor
from identity.commands.outbox_arguments import add_outbox
from identity.errors import DatabaseUnavailable
from identity.startup import EXIT_FAILED, EXIT_MISUSED, StartError
from identity.worker_process import Supervision


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        settings = config.load()
        if given.command == "migrate":
            return _migrate(settings)
        if given.command == "outbox":
            from identity.commands import outbox  # noqa: PLC0415 - `--help` needs no tables

            return outbox.run(given, settings.database_url)
        if given.command == "doctor":
            from identity.commands import doctor  # noqa: PLC0415 - the service needs none of it

            return doctor.run(given, settings, config.secret_files())
        return _serve(settings, given)
    except config.ConfigurationError as error:
        return _fail(str(error), EXIT_MISUSED)
    except StartError as error:
        return _fail(str(error), EXIT_FAILED)
    except DatabaseUnavailable as error:
        why = f"the database cannot be reached: {_first_line(error.__cause__ or error)}"
        return _fail(f"IDENTITY_DATABASE_URL: {why}", EXIT_FAILED)
    except DBAPIError as error:
        return _fail(f"IDENTITY_DATABASE_URL: {_first_line(error)}", EXIT_FAILED)
    except ModuleNotFoundError as error:
        return _fail(f"{error}: {extras.advice(error)}", EXIT_FAILED)


def _first_line(error: BaseException) -> str:
    """What the driver says, for the operator at the start; no call's values are in it yet."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="identity",
        description="Registers people over gRPC and proves their e-mail address.",
        epilog="Settings are environment variables named IDENTITY_...; the README lists them.",
    )
    parser.add_argument("--version", action="version", version=version("identity-service"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="answer calls until SIGTERM or SIGINT",
        description="Answers calls and delivers mails until SIGTERM or SIGINT, then lets the "
        "calls that have begun end and exits with 0, within 10 seconds. Prints "
        "`listening on HOST:PORT` to stdout when it is ready; logs go to stderr. With "
        "IDENTITY_WORKERS above 1, SIGHUP replaces the workers one after the other.",
    )
    # What a supervisor gives its workers: the descriptor of their line, and their number.
    serve.add_argument("--supervised", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--slot", type=int, help=argparse.SUPPRESS)
    commands.add_parser(
        "migrate",
        help="bring the database to the schema of this release",
        description="Brings the database that IDENTITY_DATABASE_URL names to the schema of this "
        "release. Harmless where it is there already.",
    )
    add_outbox(commands)
    add_doctor(commands)
    return parser


def _serve(settings: config.Settings, given: argparse.Namespace) -> int:
    if given.supervised is not None:
        return serving.run(settings, Supervision(given.supervised, given.slot))
    if settings.workers == 1:
        return serving.run(settings)
    from identity import supervisor  # noqa: PLC0415 - one process needs none

    return supervisor.run(settings)


def _migrate(settings: config.Settings) -> int:
    from identity import embedded, migrate  # noqa: PLC0415 - Alembic takes 0.4 s
    from identity.database import REVISIONS, Database  # noqa: PLC0415

    if settings.is_embedded:
        embedded.make_directory()
    with closing(Database(settings.database_url)) as database:
        found = database.revision()
    if found is not None and found not in REVISIONS:
        print(f"the database is at revision {found}, newer than this release: nothing to do")
        return 0
    try:
        migrate.upgrade(settings.database_url)
    except migrate.TableInUse:
        return _fail("a table was in use for too long: run `identity migrate` again", EXIT_FAILED)
    print(f"the database is at revision {REVISIONS[-1]}")
    return 0


def _fail(why: str, code: int) -> int:
    print(f"identity: {why}", file=sys.stderr)
    return code
