"""The whole service, in this process, on a real port, with a real mail server behind it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import grpc
import pytest
import structlog
from sqlalchemy.engine import URL

from identity import config, logs
from identity.database import Database
from identity.server import Service
from identity.v1 import identity_pb2_grpc
from tests.fakes import FakeClock
from tests.mailbox import Mailbox

KEYS = "0123456789abcdef0123456789abcdef0123"


@dataclass(frozen=True)
class Running:
    """A service that answers, and a client of it."""

    service: Service
    channel: grpc.Channel
    stub: identity_pb2_grpc.IdentityServiceStub


Serve = Callable[..., Running]


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as opened:
        yield opened


@pytest.fixture
def serve(
    database_url: URL, mailbox: Mailbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serve]:
    """Starts a service; keyword arguments are settings without their prefix."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            running(database_url, mailbox.port, clock, monkeypatch, settings)
        )


@contextmanager
def running(
    database_url: URL,
    smtp_port: int,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
) -> Iterator[Running]:
    environment = {
        "LISTEN": "127.0.0.1:0",
        "DATABASE_URL": database_url.render_as_string(hide_password=False),
        "SECRET_KEYS": KEYS,
        "BCRYPT_COST": "4",
        "EMAIL_SENDER": "smtp",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(smtp_port),
        "SMTP_TLS": "none",
        "RATE_LIMIT": "100000/60s",
        "LOG_FORMAT": "json",
    } | settings
    for name, value in environment.items():
        monkeypatch.setenv(f"IDENTITY_{name}", value)
    loaded = config.load()
    handlers = logging.getLogger().handlers
    logs.configure(logs.LogFormat(loaded.log_format), logs.LogLevel(loaded.log_level))
    service = Service(loaded, now=clock.now)
    service.start()
    try:
        with grpc.insecure_channel(str(service.endpoint)) as channel:
            yield Running(service, channel, identity_pb2_grpc.IdentityServiceStub(channel))
    finally:
        service.stop()
        structlog.reset_defaults()
        logging.getLogger().handlers = handlers


@pytest.fixture
def rows(database: Database) -> Callable[[str], list[dict[str, object]]]:
    """All rows of a table."""

    def select(table: str) -> list[dict[str, object]]:
        with database.read() as connection:
            found = connection.exec_driver_sql(f"SELECT * FROM {table}")  # noqa: S608
            return [dict(row) for row in found.mappings()]

    return select
