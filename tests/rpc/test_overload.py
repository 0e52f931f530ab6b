"""Callers that take what they can: calls without requests, floods, and what stays answered."""

import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event

from identity import config
from identity.security import passwords
from identity.security.passwords import ADMITTED_PER_CORE
from identity.server import cores_for_hashes
from tests.refusals import refused
from tests.requests import registration, verification
from tests.rpc.conftest import Running, Serve

REGISTER = "/identity.v1.IdentityService/Register"
VERIFY = "/identity.v1.IdentityService/VerifyEmail"
CHECK = "/grpc.health.v1.Health/Check"
PATIENCE = 30  # seconds
THREADS = 200  # more than the service has


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401
    return request.getfixturevalue(f"{request.param}_url")


class Silence(Iterator[bytes]):
    """Requests that do not come until the test ends."""

    def __init__(self) -> None:
        self._end = threading.Event()

    def __next__(self) -> bytes:
        self._end.wait(PATIENCE)
        raise StopIteration

    def end(self) -> None:
        self._end.set()


@pytest.fixture
def silence() -> Iterator[Silence]:
    silent = Silence()
    yield silent
    silent.end()


def silent_calls(running: Running, silence: Silence, method: str, number: int) -> list[Any]:
    call = running.channel.stream_unary(method)
    return [call.future(silence, timeout=PATIENCE) for _ in range(number)]


@pytest.mark.parametrize("method", [REGISTER, VERIFY, CHECK])
def test_calls_without_a_request_do_not_keep_others_waiting(
    serve: Serve, silence: Silence, method: str
) -> None:
    running = serve()
    silent = silent_calls(running, silence, method, THREADS)
    assert refused(running.stub.VerifyEmail, verification("x"), timeout=PATIENCE).reason
    assert running.stub.Register(registration(), timeout=PATIENCE).id
    answer = HealthStub(running.channel).Check(HealthCheckRequest(), timeout=PATIENCE)
    assert answer.status == HealthCheckResponse.SERVING
    assert {call.code() for call in silent} == {grpc.StatusCode.CANCELLED}


def test_calls_that_hash_take_no_thread_of_the_others(serve: Serve) -> None:
    before = set(threading.enumerate())
    serve().stub.Register(registration(), timeout=PATIENCE)
    names = {thread.name.rpartition("_")[0] for thread in set(threading.enumerate()) - before}
    assert "hashing-rpc" in names
    assert "rpc" not in names


def test_who_finds_no_room_to_wait_for_a_hash_is_told_at_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()

    def slowly(_password: str, _cost: int) -> str:
        may_end.wait(PATIENCE)
        return "x"

    monkeypatch.setattr(passwords, "hash_password", slowly)
    running = serve()
    admitted = ADMITTED_PER_CORE * cores_for_hashes(config.load())
    waiting = [
        running.stub.Register.future(
            registration(f"user{number}", f"user{number}@example.com"), timeout=PATIENCE
        )
        for number in range(admitted + 1)
    ]
    first = next(futures.as_completed(map(ended, waiting), PATIENCE)).result()
    assert first.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sum(call.done() for call in waiting) == 1
    may_end.set()
    codes = [call.code() for call in waiting if call is not first]
    assert set(codes) == {grpc.StatusCode.OK}


def ended(call: Any) -> "futures.Future[Any]":  # noqa: ANN401
    """As the standard library has it."""
    future: futures.Future[Any] = futures.Future()
    call.add_done_callback(future.set_result)
    return future


def test_calls_without_a_request_are_counted(serve: Serve, silence: Silence) -> None:
    running = serve(RATE_LIMIT="20/60s")
    codes = [call.code() for call in silent_calls(running, silence, REGISTER, 30)]
    assert codes.count(grpc.StatusCode.CANCELLED) == 20
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 10


def test_streams_of_reflection_do_not_keep_calls_waiting(serve: Serve, silence: Silence) -> None:
    running = serve()
    reflect = ServerReflectionStub(running.channel).ServerReflectionInfo
    streams = [reflect(silence, timeout=PATIENCE) for _ in range(THREADS)]
    assert refused(running.stub.VerifyEmail, verification("x"), timeout=PATIENCE).reason
    for stream in streams:
        stream.cancel()


def test_a_request_that_is_none_gets_the_status_that_grpc_gives(serve: Serve) -> None:
    channel = serve().channel
    codes = []
    for requests in ([], [b"\xff"], [b"x" * (64 * 1024 + 1)]):
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(REGISTER)(iter(requests), timeout=PATIENCE)
        codes.append(caught.value.code())
    assert codes == [
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ]


def test_metadata_above_the_limit_is_refused(serve: Serve) -> None:
    running = serve()
    call = running.stub.VerifyEmail
    with pytest.raises(grpc.RpcError) as caught:
        call(verification("x"), metadata=(("x-large", "x" * 15_000),), timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused(call, verification("x"), metadata=(("x-large", "x" * 7000),)).reason


def test_a_connection_that_pings_all_the_time_is_ended(serve: Serve) -> None:
    endpoint = serve().service.endpoint
    with socket.create_connection(endpoint, PATIENCE) as connection:
        client = H2Connection(H2Configuration(client_side=True))
        client.initiate_connection()
        for number in range(10):
            client.ping(number.to_bytes(8, "big"))
        connection.sendall(client.data_to_send())
        events: list[Event] = []
        while received := connection.recv(65536):
            events += client.receive_data(received)
    (ended,) = (event for event in events if isinstance(event, ConnectionTerminated))
    assert ended.error_code == ErrorCodes.ENHANCE_YOUR_CALM


def test_the_server_says_what_it_reflects_itself(serve: Serve) -> None:
    reflect = ServerReflectionStub(serve().channel).ServerReflectionInfo
    (answer,) = reflect(iter([ServerReflectionRequest(list_services="")]), timeout=PATIENCE)
    assert {service.name for service in answer.list_services_response.service} >= {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "identity.v1.DeliveryService",
        "identity.v1.IdentityService",
    }
