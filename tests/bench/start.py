"""How long a process takes to answer, and how much memory it takes."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import grpc
from sqlalchemy.engine import make_url

from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.bench.bench import Bench
from tests.bench.calls import unsigned
from tests.bench.figures import Figure, interleaved, reached, told
from tests.bench.loads import Load
from tests.bench.people import People
from tests.bench.programs import Program
from tests.requests import verification

CALLS: Final = 1_000_000
CALLS_SHORT: Final = 1_000
LOADS: Final = 10  # after each the memory is looked at
_AT_ONCE: Final = 16
_MEGABYTE: Final = 1e6


def start(bench: Bench) -> Iterable[Figure]:
    """From the start of the process to the first reply, next to a bare server's."""
    people = People(bench.postgres)
    bench.service(people.url).end()  # its files have been read once
    seconds = interleaved(
        bench.rounds,
        lambda: _started(lambda: bench.service(people.url)),
        lambda: _started(lambda: bench.start("tests.bench.empty")),
    )
    yield reached("start", seconds[0], " s")
    yield told("start of the bare server to its first answer", seconds[1], " s")


def memory(bench: Bench) -> Iterable[Figure]:
    """Of a process on SQLite: after its first call, and while 100,000 clients call."""
    url = make_url(f"sqlite:///{bench.folder / 'identity.db'}")
    calls = bench.size(CALLS, CALLS_SHORT) // LOADS
    with bench.service(url) as service:
        endpoint = service.listening()
        _first_answer(endpoint)
        sizes = [_size(service)]
        requests = unsigned(endpoint, calls, _AT_ONCE).requests
        for number in range(1, LOADS + 1):
            load = Load(endpoint, "VerifyEmail", requests, calls, _AT_ONCE)
            bench.run("100,000 clients", load, service).expect("InvalidArgument")
            sizes.append(_size(service))
            bench.say(f"memory: {number * calls:,} calls, {sizes[-1]:.0f} MB")
    half = LOADS // 2
    yield reached("idle memory", sizes[:1], " MB")
    what = f"its growth over {LOADS * calls:,} calls of 100,000 clients"
    yield reached("growth", [max(0.0, sizes[-1] - sizes[0])], " MB", what)
    yield told(
        "of this in the second half of the calls", [max(0.0, sizes[-1] - sizes[half])], " MB"
    )


def _started(begin: Callable[[], Program]) -> float:
    begun = time.perf_counter()
    with begin() as program:
        _first_answer(program.listening())
        return time.perf_counter() - begun


def _first_answer(endpoint: str) -> None:
    with grpc.insecure_channel(endpoint) as channel:
        try:
            IdentityServiceStub(channel).VerifyEmail(verification("x"), timeout=30)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.code()  # noqa: PT017


def _size(program: Program) -> float:
    """MB of memory that is its own, or shared with others."""
    return float(program.process.memory_info().rss) / _MEGABYTE
