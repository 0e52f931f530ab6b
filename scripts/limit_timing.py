"""Shows what counting a call costs, in memory and in Valkey, and what an outage costs a call.

Starts a valkey-server on loopback and prints the microseconds of a hit: in memory; in Valkey; with
windows of 100 and of 100,000 calls in the cases that take the store longest. Then freezes the
server, and prints what the first and the following calls lose.

    .venv/bin/python -m scripts.limit_timing
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from identity.meters import Meters
from identity.ratelimit.memory import MemoryStore
from identity.ratelimit.store import LimitStore
from identity.ratelimit.valkey import ValkeyWindows
from identity.ratelimit.window import NANOSECONDS, Limit
from identity.values import MAXIMUM_CALLS
from tests.valkey import Valkey

HITS = 5_000
CLIENTS = 200
OUTAGES = 20
PERIOD = 60 * NANOSECONDS


class Clock:
    """Nanoseconds, set by hand."""

    now = PERIOD

    def __call__(self) -> int:
        return self.now


def timed(call: Callable[[], object]) -> float:
    """Microseconds."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e6


def report(name: str, took: list[float]) -> None:
    took.sort()
    p99 = took[len(took) * 99 // 100]
    print(f"{name:34} median {statistics.median(took):9.0f} us   p99 {p99:9.0f} us")


def hits(store: LimitStore) -> list[float]:
    clients = [f"192.0.2.{number}" for number in range(CLIENTS)]
    return [timed(lambda: store.hit(clients[number % CLIENTS])) for number in range(HITS)]  # noqa: B023


def worst(server: Valkey, calls: int) -> None:
    """The window is filled; all but one of its calls leave at once; then the clock is set back."""
    clock = Clock()
    windows = ValkeyWindows(server.address(), Meters(), clock=clock, patience=10)
    windows.start()
    store = windows.window(f"worst {calls}", Limit(calls, PERIOD))
    for _ in range(calls - 1):
        store.hit("ann")
    clock.now += PERIOD - NANOSECONDS
    store.hit("ann")
    report(f"{calls} calls: refused", [timed(lambda: store.hit("ann")) for _ in range(100)])
    clock.now += NANOSECONDS
    report(f"{calls} calls: all leave but one", [timed(lambda: store.hit("ann"))])
    for _ in range(calls - 2):
        store.hit("ann")
    clock.now -= 30 * NANOSECONDS
    report(f"{calls} calls: clock set back", [timed(lambda: store.hit("ann"))])
    windows.close()


def outages(server: Valkey) -> None:
    """What calls lose to a server that is frozen, again and again."""
    first, following = [], []
    for _ in range(OUTAGES):
        windows = ValkeyWindows(server.address(), Meters())
        windows.start()
        store = windows.window("outage", Limit(100, PERIOD))
        server.freeze()
        first.append(timed(lambda: store.hit("ann")))  # noqa: B023
        following += [timed(lambda: store.hit("ann")) for _ in range(100)]  # noqa: B023
        server.thaw()
        windows.close()
    report("frozen: the first call", first)
    report("frozen: the following calls", following)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    limit = Limit(100, PERIOD)
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as server:
        report("memory", hits(MemoryStore(limit)))
        windows = ValkeyWindows(server.address(), Meters(), patience=10)
        windows.start()
        report("valkey", hits(windows.window("default", limit)))
        windows.close()
        worst(server, 100)
        worst(server, MAXIMUM_CALLS)
        outages(server)


if __name__ == "__main__":
    main()
