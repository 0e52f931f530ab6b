"""The program `identity`."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from typing import Final

from sqlalchemy.exc import DBAPIError

from identity import config, extras
from identity.commands.doctor_arguments import add_doctor
from identity.commands.outbox_arguments import add_outbox
from identity.errors import DatabaseUnavailable

# How long a thread may keep the interpreter before another gets a turn. A tenth of the default:
# a call waits for the turn several times, and its answer is short (1,000 -> 1,260 calls/s).
SWITCH_INTERVAL: Final = 0.0005  # seconds

EXIT_FAILED: Final = 1
EXIT_MISUSED: Final = 2  # as argparse: the fault lies in what was given


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
        return _serve(settings)
    except config.ConfigurationError as error:
        return _fail(str(error), EXIT_MISUSED)
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
    commands.add_parser(
        "serve",
        help="answer calls until SIGTERM or SIGINT",
        description="Answers calls and delivers mails until SIGTERM or SIGINT, then lets the "
        "calls that have begun end and exits with 0, within 10 seconds. Prints "
        "`listening on HOST:PORT` to stdout when it is ready; logs go to stderr.",
    )
    commands.add_parser(
        "migrate",
        help="bring the database to the schema of this release",
        description="Brings the database that IDENTITY_DATABASE_URL names to the schema of this "
        "release. Harmless where it is there already.",
    )
    add_outbox(commands)
    add_doctor(commands)
    return parser


def _serve(settings: config.Settings) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # gRPC's core writes lines of a form of its own to stderr, which readers of JSON lines trip
    # over. With TLS they are read for the handshakes that failed. Read when gRPC is imported.
    has_tls = settings.tls_cert is not None
    os.environ["GRPC_VERBOSITY"] = "INFO" if has_tls else "NONE"
    from identity import grpc_log, logs  # noqa: PLC0415 - `migrate` and `--help` start without the server
    from identity.meters import Meters  # noqa: PLC0415
    from identity.server import Service  # noqa: PLC0415

    meters = Meters()
    logs.configure(
        logs.LogFormat(settings.log_format),
        logs.LogLevel(settings.log_level),
        grpc_log.capture(meters) if has_tls else None,
    )
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        service = Service(settings, meters=meters)
    except config.StartError as error:
        return _fail(str(error), EXIT_FAILED)
    service.start()
    try:
        print(f"listening on {service.endpoint}", flush=True)
    except OSError as error:
        service.stop()
        return _fail(f"cannot write to stdout: {error.strerror}", EXIT_FAILED)
    stop.wait()
    service.stop()
    sys.stdout.flush()
    # Not sys.exit(), which waits for every thread of a pool: those still at work are in calls
    # that nobody waits for any more, and a supervisor would kill us meanwhile.
    os._exit(0)


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
