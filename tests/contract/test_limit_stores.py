"""What every store of windows promises, in memory and on a real valkey-server."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from identity.meters import Meters
from identity.ratelimit.memory import MemoryStore
from identity.ratelimit.store import LimitStore
from identity.ratelimit.valkey import ValkeyWindows
from identity.ratelimit.window import NANOSECONDS, Decision, Limit
from tests.fakes import FakeClock
from tests.valkey import PATIENCE, Valkey

LIMIT = Limit.per_seconds(100, 60)
PERIOD = LIMIT.period_ns
SMALL = Limit.per_seconds(3, 60)
MICROSECOND = 1_000  # nanoseconds; stores may count no finer moments

# Makes a store of the limit, on the test's clock.
Make = Callable[[Limit], LimitStore]


@pytest.fixture(params=["memory", "valkey"])
def make(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[Make]:
    if request.param == "memory":
        yield lambda limit: MemoryStore(limit, clock=clock.monotonic_ns)
        return
    server: Valkey = request.getfixturevalue("valkey")
    windows = ValkeyWindows(server.address(), Meters(), clock=clock.monotonic_ns, patience=PATIENCE)
    windows.start()
    yield lambda limit: windows.window("test", limit)
    windows.close()


def advance(clock: FakeClock, nanoseconds: int) -> None:
    assert nanoseconds % MICROSECOND == 0
    clock.advance(microseconds=nanoseconds // MICROSECOND)


def admitted(store: LimitStore, client: str, calls: int) -> int:
    """How many of so many calls were admitted."""
    return sum(store.hit(client).admitted for _ in range(calls))


def test_a_client_calls_until_refused_waits_as_told_and_calls_again(
    make: Make, clock: FakeClock
) -> None:
    store = make(LIMIT)
    assert store.limit == LIMIT
    for number in range(1, 101):
        decision = store.hit("ann")
        assert decision.admitted
        assert decision.remaining == 100 - number
        assert decision.reset_after_ns == PERIOD - (number - 1) * PERIOD // 200
        assert decision.retry_after_ns == 0
        advance(clock, PERIOD // 200)
    refused = store.hit("ann")
    assert refused == Decision(False, 0, PERIOD // 2, PERIOD // 2)
    advance(clock, refused.retry_after_ns - MICROSECOND)
    assert not store.hit("ann").admitted
    advance(clock, MICROSECOND)
    assert store.hit("ann").admitted
    assert not store.hit("ann").admitted


def test_refused_calls_do_not_prolong_the_wait(make: Make, clock: FakeClock) -> None:
    store = make(SMALL)
    assert admitted(store, "ann", 3) == 3
    for _ in range(59):
        advance(clock, NANOSECONDS)
        assert not store.hit("ann").admitted
    advance(clock, NANOSECONDS)
    assert admitted(store, "ann", 10) == 3


def test_clients_do_not_count_against_one_another(make: Make) -> None:
    store = make(SMALL)
    assert admitted(store, "ann", 5) == 3
    assert admitted(store, "bob", 5) == 3
    # As a certificate may name it.
    assert admitted(store, "b\u00f6b \udcff\n" + "b" * 10_000, 5) == 3


def test_a_window_reaches_over_the_edge_of_a_minute(make: Make, clock: FakeClock) -> None:
    store = make(LIMIT)
    advance(clock, PERIOD - MICROSECOND)
    assert admitted(store, "ann", 60) == 60
    advance(clock, MICROSECOND)
    assert admitted(store, "ann", 60) == 40


def test_many_calls_leave_a_window_together(make: Make, clock: FakeClock) -> None:
    store = make(Limit.per_seconds(1_000, 60))
    assert admitted(store, "ann", 999) == 999
    advance(clock, PERIOD - MICROSECOND)
    assert admitted(store, "ann", 2) == 1
    advance(clock, MICROSECOND)
    assert store.hit("ann") == Decision(True, 998, PERIOD - MICROSECOND, 0)


def test_of_200_calls_at_once_exactly_100_are_admitted(make: Make) -> None:
    assert_exactly_100_of_200([make(LIMIT)])


@pytest.mark.parametrize("seed", range(3))
def test_at_random_moments_a_window_decides_as_a_naive_count(
    make: Make, clock: FakeClock, seed: int
) -> None:
    chosen = random.Random(seed)
    store = make(SMALL)
    past: dict[str, list[int]] = {}
    for _ in range(2_000):
        advance(
            clock, chosen.choice([0, MICROSECOND, NANOSECONDS, PERIOD // 6, PERIOD // 3, PERIOD])
        )
        now = clock.monotonic_ns()
        client = f"client {chosen.randrange(6)}"
        counted = [moment for moment in past.get(client, []) if moment > now - PERIOD]
        is_admitted = len(counted) < SMALL.calls
        past[client] = counted + [now] * is_admitted
        wait = past[client][0] + PERIOD - now
        assert store.hit(client) == Decision(
            is_admitted, SMALL.calls - len(past[client]), wait, 0 if is_admitted else wait
        )


# Several stores, as several processes have them


def assert_exactly_100_of_200(stores: list[LimitStore]) -> None:
    together = threading.Barrier(200, timeout=PATIENCE)
    decisions: list[Decision] = []

    def call(number: int) -> None:
        together.wait()
        decisions.append(stores[number % len(stores)].hit("ann"))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(decision.admitted for decision in decisions) == 100
    told = sorted(decision.remaining for decision in decisions if decision.admitted)
    assert told == list(range(100))
    assert len(decisions) == 200


def test_of_200_calls_at_once_over_four_processes_worth_of_stores_exactly_100_are_admitted(
    valkey: Valkey,
) -> None:
    with ExitStack() as stack:
        stores = []
        for _ in range(4):
            windows = ValkeyWindows(valkey.address(), Meters(), patience=PATIENCE)
            windows.start()
            stack.callback(windows.close)
            stores.append(windows.window("test", LIMIT))
        assert_exactly_100_of_200(stores)
