"""Callers that take what they can get: connections, cancelled calls, frames by the byte, size."""

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, Self

import grpc
import psutil
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from sqlalchemy.engine import make_url

from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.faults.bench import Bench, Conclude
from tests.faults.nodes import Node, channel_to, nodes
from tests.faults.sink import Sink
from tests.faults.table import Figure, at_least, below, exactly, only, told
from tests.requests import registration, verification

CONNECTIONS: Final = 10_000
CONNECTIONS_SHORT: Final = 2_000
CANCELLED: Final = 20_000
CANCELLED_SHORT: Final = 2_000
DRIPPING: Final = 300  # connections, each with a call whose request comes byte by byte
DRIP_SECONDS: Final = 12.0
DRIP_SECONDS_SHORT: Final = 8.0  # longer than the service has patience
LARGE: Final = 500  # calls with 15 KB of metadata, and as many of 1 MB
LARGE_SHORT: Final = 100
# MiB that the process may take more than before: 20 KiB for each idle connection, some for floods.
MOST_MEMORY: Final = 300
_ANSWER: Final = 1.0  # seconds in which health must have answered, at all times
_DEADLINE: Final = 20.0  # seconds
_REGISTER: Final = "/identity.v1.IdentityService/Register"


def floods(bench: Bench) -> Conclude:
    _allow_many_files()
    sink = bench.stack.enter_context(Sink())
    url = make_url(f"sqlite:///{bench.folder / 'identity.db'}")
    (node,) = nodes(bench.stack, bench.folder, url, sink.port, 1)
    node.start()
    process = psutil.Process(node.pid)
    figures: list[Figure] = []
    with Pulse(node) as pulse, channel_to(node) as channel:
        before = _memory(process)
        for name, flood in (
            ("idle connections", _idle(node, bench.rounds(CONNECTIONS, CONNECTIONS_SHORT))),
            ("cancelled calls", _cancelled(channel, bench.rounds(CANCELLED, CANCELLED_SHORT))),
            ("requests byte by byte", _dripping(node, _drip_seconds(bench))),
            ("15 KB of metadata", _metadata(channel, bench.rounds(LARGE, LARGE_SHORT))),
            ("messages of 1 MB", _messages(channel, bench.rounds(LARGE, LARGE_SHORT))),
        ):
            bench.say(name)
            pulse.begin()
            figures += [_renamed(name, figure) for figure in flood]
            figures.append(below(f"{name}: the slowest answer of health", pulse.end(), _ANSWER))
            figures.append(_memory_figure(f"{name}: memory", _memory(process) - before))
        reply = IdentityServiceStub(channel).Register(registration(), timeout=_DEADLINE)
        figures.append(exactly("registrations afterwards", int(bool(reply.id)), 1))
    is_alive = process.is_running()
    node.stop()
    figures.append(exactly("crashes", int(not is_alive), 0))
    unforeseen = node.events("unforeseen", "job_failed", "library")
    figures.append(exactly("unforeseen errors in the log", len(unforeseen), 0))
    return lambda: figures


class Pulse:
    """Asks for health all the time, on a connection of its own; remembers the slowest answer."""

    def __init__(self, node: Node) -> None:
        self._channel = channel_to(node)
        self._health = HealthStub(self._channel)
        self._slowest = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._ask()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._channel.close()

    def begin(self) -> None:
        self._slowest = 0.0

    def end(self) -> float:
        """Seconds of the slowest answer since `begin`, one more among them."""
        self._ask()
        return self._slowest

    def _run(self) -> None:
        while not self._ending.wait(0.05):
            self._ask()

    def _ask(self) -> None:
        begun = time.monotonic()
        with suppress(grpc.RpcError):  # it took its deadline then
            self._health.Check(HealthCheckRequest(), timeout=_DEADLINE)
        self._slowest = max(self._slowest, time.monotonic() - begun)


def _idle(node: Node, number: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(_connection(node))
        yield exactly("open at once", number, number)


def _cancelled(channel: grpc.Channel, number: int) -> Iterator[Figure]:
    """Calls that are given up as soon as they are made, half of them in the middle of a hash."""
    stub = IdentityServiceStub(channel)
    for count in range(number):
        request = registration(f"c{count}", f"c{count}@example.com")
        call = stub.Register.future(request, timeout=_DEADLINE)
        if count % 2:
            stub.VerifyEmail.future(verification("x"), timeout=_DEADLINE).cancel()
        call.cancel()
    yield told("calls", number)


def _dripping(node: Node, seconds: float) -> Iterator[Figure]:
    """Every connection has a call whose request is announced, and comes a byte at a time."""
    with ExitStack() as stack:
        drips = [_Drip(stack.enter_context(_connection(node)), node) for _ in range(DRIPPING)]
        end = time.monotonic() + seconds
        bytes_sent = 0
        while time.monotonic() < end:
            bytes_sent += sum(drip.send_one_byte() for drip in drips)
            threading.Event().wait(0.2)
        yield at_least("bytes sent", bytes_sent, DRIPPING)
        yield exactly("calls that are still held", sum(not drip.has_ended() for drip in drips), 0)


class _Drip:
    def __init__(self, connection: socket.socket, node: Node) -> None:
        self._socket = connection
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._h2.initiate_connection()
        self._h2.clear_outbound_data_buffer()  # sent already
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", _REGISTER),
            (":authority", node.endpoint),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        self._h2.send_headers(1, headers)
        # A message of 1,000 bytes is announced.
        self._h2.send_data(1, b"\0" + (1000).to_bytes(4, "big"))
        self._socket.sendall(self._h2.data_to_send())
        self._socket.setblocking(False)
        self._ended = False

    def send_one_byte(self) -> int:
        """1, or 0 once the service wants no more of it."""
        try:
            self._h2.send_data(1, b"\n")
            self._socket.sendall(self._h2.data_to_send())
        except (OSError, ProtocolError):
            self._ended = True
            return 0
        return 1

    def has_ended(self) -> bool:
        """Whether the service has given the call up."""
        if not self._ended:
            with suppress(BlockingIOError):
                while received := self._socket.recv(65536):
                    names = {type(event).__name__ for event in self._h2.receive_data(received)}
                    self._ended |= bool(names & {"StreamReset", "StreamEnded"})
                self._ended = True  # it hung up
        return self._ended


def _metadata(channel: grpc.Channel, number: int) -> Iterator[Figure]:
    call = IdentityServiceStub(channel).VerifyEmail
    large = (("x-large", "x" * 15_000),)
    calls = [
        call.future(verification("x"), metadata=large, timeout=_DEADLINE) for _ in range(number)
    ]
    yield only("how they ended", [_code(call) for call in calls], "RESOURCE_EXHAUSTED")


def _messages(channel: grpc.Channel, number: int) -> Iterator[Figure]:
    call = channel.unary_unary(_REGISTER)
    calls = [call.future(b"\0" * 1_000_000, timeout=_DEADLINE) for _ in range(number)]
    yield only("how they ended", [_code(call) for call in calls], "RESOURCE_EXHAUSTED")


def _code(call: Any) -> str:  # noqa: ANN401 - what a stub returns
    code: grpc.StatusCode = call.code()
    return code.name


@contextmanager
def _connection(node: Node) -> Iterator[socket.socket]:
    """HTTP/2 with nothing in it yet."""
    host, _, port = node.endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), _DEADLINE) as opened:
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        opened.sendall(h2.data_to_send())
        yield opened


def _drip_seconds(bench: Bench) -> float:
    return DRIP_SECONDS_SHORT if bench.is_short else DRIP_SECONDS


def _renamed(flood: str, figure: Figure) -> Figure:
    return Figure(f"{flood}: {figure.what}", figure.value, figure.wanted, figure.is_right)


def _memory(process: psutil.Process) -> float:
    """MiB."""
    return float(process.memory_info().rss) / 2**20


def _memory_figure(what: str, growth: float) -> Figure:
    return Figure(what, f"+{growth:.0f} MiB", f"< {MOST_MEMORY} MiB", growth < MOST_MEMORY)


def _allow_many_files() -> None:
    """Both ends of the connections are on this machine; the service inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
