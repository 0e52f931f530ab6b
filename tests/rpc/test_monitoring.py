"""Metrics and probes of the program as it runs, alone and with workers."""

import signal
import socket

import grpc
import psutil
import pytest

from identity.v1.identity_pb2_grpc import IdentityServiceStub
from identity.values import Endpoint
from tests.processes import PATIENCE, Program, Start, start
from tests.refusals import refused
from tests.requests import registration, verification
from tests.scrape import Scrape, fetch
from tests.valkey import Valkey

__all__ = ["start"]

LISTENING = r"^listening on (\S+)$"
CANARY_NAME = "canary.name"
CANARY_ADDRESS = "canary.address@example.com"
CANARY_PASSWORD = "Canary-Password-9!"


@pytest.fixture
def port() -> int:
    """One that is free, for the metrics."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        found: int = free.getsockname()[1]
    return found


def end(program: Program) -> None:
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[0] == 0


def test_a_process_shows_what_it_does_and_nothing_of_whom_for(start: Start, port: int) -> None:
    program = start(METRICS_LISTEN=f"127.0.0.1:{port}", LOG_FORMAT="json")
    endpoint = Endpoint("127.0.0.1", port)
    with grpc.insecure_channel(program.line(LISTENING)) as channel:
        stub = IdentityServiceStub(channel)
        stub.Register(registration(CANARY_NAME, CANARY_ADDRESS, CANARY_PASSWORD))
        token = program.line(r"token=([A-Za-z0-9_-]{64})$")
        stub.VerifyEmail(verification(token), metadata=(("x-request-id", "canary-id"),))
        refused(stub.VerifyEmail, verification(token))
    program.event("mail_sent")
    scrape = Scrape(endpoint)
    assert scrape.total("grpc_server_handled_total", grpc_method="VerifyEmail") == 2
    assert scrape.total("identity_registrations_total", result="registered") == 1
    assert scrape.total("identity_verifications_total", result="verified") == 1
    assert scrape.total("identity_verifications_total", result="token_used") == 1
    assert scrape.total("identity_time_to_verified_seconds_count") == 1
    assert scrape.total("identity_deliveries_total", result="sent") == 1
    assert scrape.total("identity_hashing_wait_seconds_count") == 1
    assert scrape.total("identity_hashing_queue") == 0
    assert scrape.total("identity_outbox_queued") == 0
    assert scrape.total("process_resident_memory_bytes") > 0
    assert "canary" not in scrape.text
    assert "127.0.0.1" not in scrape.text
    assert token not in scrape.text
    assert fetch(endpoint, "/readyz").status == 200
    end(program)


def test_workers_are_shown_as_one_and_count_calls_as_one(
    start: Start, port: int, valkey: Valkey
) -> None:
    program = start(
        WORKERS="2",
        RATE_LIMIT="30/60s",
        RATE_LIMIT_STORE=f"valkey://127.0.0.1:{valkey.port}",
        METRICS_LISTEN=f"127.0.0.1:{port}",
        LOG_FORMAT="json",
    )
    endpoint = Endpoint("127.0.0.1", port)
    listening = program.line(LISTENING)
    assert Scrape(endpoint).total("identity_workers_serving") == 2
    reasons = [verify(listening) for _ in range(40)]  # each on a connection of its own
    assert sorted(set(reasons)) == ["RATE_LIMITED", "TOKEN_INVALID"]
    assert reasons.count("TOKEN_INVALID") == 30
    before = Scrape(endpoint)
    assert before.total("grpc_server_handled_total", grpc_method="VerifyEmail") == 40
    assert before.total("identity_rate_limit_refusals_total", grpc_method="VerifyEmail") == 10
    victim = psutil.Process(program.process.pid).children()[0]
    victim.kill()
    program.event("worker_died")
    program.event("worker_started")
    after = Scrape(endpoint)
    assert after.total("grpc_server_handled_total", grpc_method="VerifyEmail") == 40
    assert after.total("identity_worker_restarts_total") == 1
    assert fetch(endpoint, "/readyz").status == 200
    end(program)


def verify(endpoint: str) -> str:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(endpoint, options) as channel:
        stub = IdentityServiceStub(channel)
        return refused(stub.VerifyEmail, verification("x"), timeout=PATIENCE).reason


def test_a_port_that_is_taken_stops_the_start_with_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, stderr = start(METRICS_LISTEN=listen).end()
    assert (code, len(stderr.splitlines())) == (1, 1)
    assert f"IDENTITY_METRICS_LISTEN: cannot listen on {listen}: " in stderr
