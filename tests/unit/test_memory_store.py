"""Windows in memory: little room. What every store promises is in contract/test_limit_stores.py."""

import gc
import threading
import tracemalloc
from time import sleep

import pytest
from structlog.testing import capture_logs

from identity.ratelimit.memory import MemoryStore
from identity.ratelimit.window import Decision, Limit

LIMIT = Limit.per_seconds(100, 60)
PERIOD = LIMIT.period_ns
SMALL = Limit.per_seconds(3, 60)


class Nanoseconds:
    """A clock of whole nanoseconds that only moves when told."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def time() -> Nanoseconds:
    return Nanoseconds()


class Interrupted(str):
    """A client whose every look-up lets other threads go first."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        sleep(0)
        return super().__hash__()


def admitted(store: MemoryStore, client: str, calls: int) -> int:
    """How many of so many calls were admitted."""
    return sum(store.hit(client).admitted for _ in range(calls))


# Many at once


def test_of_200_calls_at_once_exactly_100_are_admitted() -> None:
    store = MemoryStore(LIMIT, clock=lambda: 0)
    together = threading.Barrier(200)
    decisions: list[Decision] = []

    def call() -> None:
        together.wait()
        decisions.append(store.hit(Interrupted("ann")))

    threads = [threading.Thread(target=call) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(decision.admitted for decision in decisions) == 100
    told = sorted(decision.remaining for decision in decisions if decision.admitted)
    assert told == list(range(100))


# Little room


def test_a_window_is_kept_while_its_newest_call_counts(time: Nanoseconds) -> None:
    store = MemoryStore(SMALL, clock=time, maximum_clients=2)
    store.hit("ann")
    time.now = PERIOD - 1
    assert admitted(store, "ann", 2) == 2
    time.now = 2 * PERIOD - 2
    for number in range(10):  # others come and make the store look for what it can drop
        store.hit(f"other {number}")
    assert admitted(store, "ann", 5) == 1


def test_clients_beyond_the_capacity_share_one_window(time: Nanoseconds) -> None:
    store = MemoryStore(SMALL, clock=time, maximum_clients=2)
    assert admitted(store, "ann", 1) == admitted(store, "bob", 1) == 1
    decisions = [store.hit(f"new {number}") for number in range(5)]
    assert [decision.admitted for decision in decisions] == [True, True, True, False, False]
    assert [decision.remaining for decision in decisions] == [2, 1, 0, 0, 0]
    assert decisions[-1].retry_after_ns == PERIOD


def test_a_full_store_leaves_the_clients_it_knows_untouched(time: Nanoseconds) -> None:
    store = MemoryStore(SMALL, clock=time, maximum_clients=2)
    assert admitted(store, "ann", 1) == 1
    assert admitted(store, "bob", 4) == 3
    assert sum(store.hit(f"new {number}").admitted for number in range(50)) == 3
    assert admitted(store, "ann", 4) == 2
    assert admitted(store, "bob", 1) == 0


def test_there_is_room_again_after_windows_have_run_out(time: Nanoseconds) -> None:
    store = MemoryStore(SMALL, clock=time, maximum_clients=2)
    for client in ("ann", "bob", "new", "new", "new"):
        assert store.hit(client).admitted
    assert not store.hit("new").admitted
    time.now = PERIOD
    assert admitted(store, "new", 4) == 3
    assert admitted(store, "newer", 4) == 3


def test_a_client_that_was_counted_in_the_shared_window_gets_no_second_share_when_room_comes(
    time: Nanoseconds,
) -> None:
    """Never more than the limit in any window, whichever window a call was counted in."""
    store = MemoryStore(SMALL, clock=time, maximum_clients=1)
    store.hit("ann")
    time.now = PERIOD - 1
    in_the_shared_window = admitted(store, "new", 3)
    time.now = PERIOD  # the window of ann has run out: there is room for one of its own
    assert in_the_shared_window + admitted(store, "new", 3) == 3


def test_a_client_that_calls_on_and_on_does_not_keep_the_windows_of_others(
    time: Nanoseconds,
) -> None:
    store = MemoryStore(SMALL, clock=time, maximum_clients=3)
    with capture_logs() as lines:
        for number in range(20):
            assert admitted(store, "ann", 1) == 1
            assert admitted(store, f"client {number}", 4) == 3
            time.now += PERIOD // 2
    assert lines == []


def test_a_full_store_is_told_to_the_operator_once(time: Nanoseconds) -> None:
    store = MemoryStore(SMALL, clock=time, maximum_clients=2)
    with capture_logs() as lines:
        for number in range(100):
            store.hit(f"client {number}")
            store.hit("client 0")
    assert lines == [{"event": "rate_limit_full", "log_level": "warning", "clients": 2}]


def test_a_store_that_is_full_once_more_is_told_once_more(time: Nanoseconds) -> None:
    store = MemoryStore(SMALL, clock=time, maximum_clients=2)
    with capture_logs() as lines:
        for name in "first", "second":
            for number in range(10):
                store.hit(f"{name} {number}")
            time.now += PERIOD
    assert [line["event"] for line in lines] == ["rate_limit_full"] * 2


# Memory


@pytest.mark.parametrize(
    ("clients", "calls", "bytes_a_client"),
    [
        (2_000, 10, 400),
        (1_000, 100, 1_100),
        # Fewer: to trace a million calls takes ten seconds, and here the moments outweigh the rest.
        (200, 1_000, 1_000 * 8 + 300),
    ],
)
def test_a_client_at_its_limit_takes_little_memory(
    time: Nanoseconds, clients: int, calls: int, bytes_a_client: int
) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        store = MemoryStore(Limit.per_seconds(calls, 60), clock=time)
        for number in range(clients):
            client = f"2001:db8:{number:x}:{number:x}::/64"
            assert admitted(store, client, calls) == calls
            time.now += 1
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / clients <= bytes_a_client


def test_run_out_windows_are_let_go_while_new_clients_come(time: Nanoseconds) -> None:
    """Else a store that has once seen its capacity in clients would stay full for ever."""
    store = MemoryStore(SMALL, clock=time, maximum_clients=100)
    with capture_logs() as lines:
        for generation in range(20):
            for number in range(90):
                assert admitted(store, f"client {generation} {number}", 4) == 3
            time.now += PERIOD
    assert lines == []
