"""The interceptors by themselves: real ones, called as gRPC calls them, by one thread."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple

import grpc
import structlog

from identity import logs, policy
from identity.callers import Caller
from identity.calls import Call, current_call
from identity.interceptors.callers import CallersInterceptor
from identity.interceptors.clients import Clients
from identity.interceptors.hold import HoldInterceptor
from identity.interceptors.observe import ObserveInterceptor
from identity.interceptors.patience import Patience
from identity.interceptors.pools import PoolInterceptor
from identity.interceptors.ratelimit import RateLimitInterceptor
from identity.interceptors.reading import ReadingInterceptor
from identity.log_writer import LineWriter
from identity.meters import SILENT
from identity.ratelimit.limits import Limits
from identity.ratelimit.memory import MemoryWindows
from identity.ratelimit.window import NANOSECONDS, Limit
from identity.v1.identity_pb2 import VerifyEmailRequest, VerifyEmailResponse
from tests.bench.bench import Bench
from tests.bench.figures import Figure, interleaved, reached, told

CALLS: Final = 8_000  # a round: no client comes to its limit in all of them
CALLS_SHORT: Final = 200
CLIENTS: Final = 1_000
MANY_CLIENTS: Final = 100_000
_METHOD: Final = "/identity.v1.IdentityService/VerifyEmail"
_LIMIT: Final = Limit(100, 60 * NANOSECONDS)  # the default
_MICROSECONDS: Final = 1e6
_ANYBODY: Final = Caller("", policy.OPEN)
_REQUEST: Final = VerifyEmailRequest(token="x" * 64).SerializeToString()
_REPLY: Final = VerifyEmailResponse()


class _Details(NamedTuple):
    method: str
    invocation_metadata: Sequence[tuple[str, str]]


class _Context:
    """As much of a call as interceptors touch."""

    def __init__(self, client: str) -> None:
        self._peer = f"ipv4:{client}:50000"
        self._trailing: tuple[Any, ...] = ()

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("user-agent", "grpc-python/1.85.0"),)

    def peer(self) -> str:
        return self._peer

    def set_trailing_metadata(self, metadata: tuple[Any, ...]) -> None:
        self._trailing = metadata

    def trailing_metadata(self) -> tuple[Any, ...]:
        return self._trailing


def interceptors(bench: Bench) -> Iterable[Figure]:
    """All of them and the limiter alone, over calls that do nothing; medians over rounds."""
    calls = bench.size(CALLS, CALLS_SHORT)
    many = bench.size(MANY_CLIENTS, CLIENTS)
    with logged(bench):
        whole = all_interceptors()
        alone = _difference([_observe(), _reading()], [_reading()])
        few, crowd = _limiter(CLIENTS), _limiter(many)
        found = interleaved(
            bench.rounds,
            lambda: whole(calls),
            lambda: few(calls),
            lambda: crowd(calls),
            lambda: alone(calls),
        )
    yield reached("interceptors", found[0], " us")
    yield reached("limiter, some", found[1], " us", f"the limiter, {CLIENTS:,} clients")
    yield reached("limiter, many", found[2], " us", f"the limiter, {many:,} clients")
    yield told("of all interceptors, the one that names, counts and logs the call", found[3], " us")


@contextmanager
def logged(bench: Bench) -> Iterator[None]:
    """Meanwhile this process logs as the service does, into a file."""
    before = structlog.get_config()
    with (bench.folder / "lines").open("a") as file:
        lines = LineWriter(file.fileno())
        logs.configure(logs.LogFormat.JSON, logs.LogLevel.INFO, lines)
        try:
            yield
        finally:
            lines.close()
            structlog.configure(**before)


def all_interceptors() -> Callable[[int], float]:
    """Makes so many calls; the microseconds that all interceptors add to each."""
    return _difference(_interceptors(), [])


def _difference(
    chosen: Sequence[grpc.ServerInterceptor], others: Sequence[grpc.ServerInterceptor]
) -> Callable[[int], float]:
    with_them, without = _chain(chosen), _chain(others)
    # Below nothing only where a round is as short as a test.
    return lambda calls: max(0.0, _timed(with_them, calls) - _timed(without, calls))


def _interceptors() -> list[grpc.ServerInterceptor]:
    """In the order of identity/transport.py."""
    limits = Limits(MemoryWindows(), {_METHOD: (policy.GENERAL, _LIMIT)}, {})
    return [
        PoolInterceptor({}),
        HoldInterceptor(),
        _observe(),
        RateLimitInterceptor(limits),
        CallersInterceptor(),
        _reading(),
    ]


def _observe() -> ObserveInterceptor:
    return ObserveInterceptor(Clients(), lambda _context: _ANYBODY, SILENT)


def _reading() -> ReadingInterceptor:
    patience = Patience(5.0, crowd=8, seconds_in_a_crowd=1.0)
    return ReadingInterceptor(patience, patience)


def _chain(chosen: Sequence[grpc.ServerInterceptor]) -> Callable[[_Context], object]:
    """What gRPC does with a call, from its headers to its reply, but for its own part."""
    decode = VerifyEmailRequest.FromString
    handler = grpc.unary_unary_rpc_method_handler(lambda *_: _REPLY, decode)
    details = _Details(_METHOD, ())

    find: Callable[[Any], Any] = lambda _details: handler  # noqa: E731 - replaced right below
    for interceptor in reversed(chosen):
        find = _before(interceptor, find)
    if not chosen:
        return lambda context: find(details).unary_unary(decode(_REQUEST), context)
    return lambda context: find(details).stream_unary(iter((_REQUEST,)), context)


def _before(interceptor: Any, following: Callable[[Any], Any]) -> Callable[[Any], Any]:  # noqa: ANN401
    return lambda details: interceptor.intercept_service(following, details)


def _timed(chain: Callable[[_Context], object], calls: int) -> float:
    """Microseconds a call."""
    contexts = [_Context(f"10.0.{n // 250 % 4}.{n % 250}") for n in range(calls)]
    begun = time.perf_counter()
    for context in contexts:
        chain(context)
    return (time.perf_counter() - begun) / calls * _MICROSECONDS


def _limiter(clients: int) -> Callable[[int], float]:
    """Makes so many calls; the microseconds that the limiter adds to each. Windows are warm."""
    limits = Limits(MemoryWindows(), {_METHOD: (policy.GENERAL, _LIMIT)}, {})

    def reply(_requests: object, _context: object) -> object:
        return _REPLY

    limited = RateLimitInterceptor(limits).around(reply, _METHOD)
    turns = itertools.cycle(
        Call(_METHOD, "id", f"10.{n // 10_000}.{n // 100 % 100}.{n % 100}", _ANYBODY)
        for n in range(clients)
    )
    _drive(limited, turns, clients)
    return lambda calls: max(0.0, _drive(limited, turns, calls) - _drive(reply, turns, calls))


def _drive(behavior: Callable[..., object], turns: Iterator[Call], calls: int) -> float:
    # Each call is one of its own: what its reply bears is gathered in it.
    work = [
        (replace(call, trailing=[]), _Context(call.client))
        for call in itertools.islice(turns, calls)
    ]
    begun = time.perf_counter()
    for call, context in work:
        current_call.set(call)
        behavior(None, context)
    return (time.perf_counter() - begun) / calls * _MICROSECONDS
