"""Windows in Valkey: what is stored, and whose clock counts."""

import itertools
import random
from contextlib import closing
from typing import cast

import pytest

from identity.ratelimit.window import NANOSECONDS, Decision, Limit
from tests.valkey import Valkey
from tests.windows import SMALL, Open, RecordedMeters, remaining

PERIOD = SMALL.period_ns
MICROSECOND = 1_000  # nanoseconds


class Clock:
    """A server's clock: nanoseconds, that also go back."""

    def __init__(self) -> None:
        self.now = 1_767_268_800 * NANOSECONDS

    def __call__(self) -> int:
        return self.now


# What is stored


def test_windows_of_different_names_do_not_count_together(
    valkey: Valkey, open_windows: Open
) -> None:
    windows = open_windows(valkey.address())
    assert remaining(windows.window("one", SMALL), 4) == [2, 1, 0, -1]
    assert remaining(windows.window("two", SMALL), 4) == [2, 1, 0, -1]
    assert remaining(windows.window("one", SMALL), 1) == [-1]


def test_no_client_can_be_read_from_the_store_and_keys_are_short(
    valkey: Valkey, open_windows: Open
) -> None:
    store = open_windows(valkey.address()).window("default", SMALL)
    clients = ["192.0.2.1", "2001:db8::/64", "billing:" + "x" * 10_000]
    for client in clients:
        store.hit(client)
    with closing(valkey.client()) as look:
        keys = cast("list[str]", look.keys("identity:limit:default:*"))
        digests = {key.removeprefix("identity:limit:default:") for key in keys}
        assert len(digests) == 3
        assert all(len(digest) == 32 and int(digest, 16) for digest in digests)
        assert [look.type(key) for key in keys] == ["list"] * 3


def test_a_window_goes_by_itself_a_period_after_its_last_admitted_call(
    valkey: Valkey, open_windows: Open
) -> None:
    store = open_windows(valkey.address()).window("default", Limit.per_seconds(1, 86_400))
    store.hit("ann")
    with closing(valkey.client()) as look:
        (key,) = cast("list[str]", look.keys("identity:limit:default:*"))
        # The store's clock counts both; a millisecond more, as it cuts its own moments to those.
        admitted_at = int(cast("str", look.lindex(key, 0)))
        due = cast("int", look.execute_command("PEXPIRETIME", key))
        assert 0 <= due * 1_000 - admitted_at - 86_400 * 1_000_000 <= 60_000_000
        assert not store.hit("ann").admitted
        assert look.execute_command("PEXPIRETIME", key) == due


def test_a_window_is_not_forgotten_before_its_last_call_has_left(
    valkey: Valkey, open_windows: Open
) -> None:
    """Real time: the store's expiry counts milliseconds, the window microseconds."""
    store = open_windows(valkey.address()).window("default", Limit(1, 2 * 1_000_000))
    admitted_at: list[int] = []
    with closing(valkey.client()) as look:
        for _ in range(2_000):
            if store.hit("ann").admitted:
                (key,) = cast("list[str]", look.keys("identity:limit:default:*") or [""])
                moment = look.lindex(key, 0) if key else None
                admitted_at += [int(cast("str", moment))] if moment else []
    apart = [later - sooner for sooner, later in itertools.pairwise(admitted_at)]
    assert apart
    assert min(apart) >= 2_000


def test_a_script_that_was_flushed_is_sent_again(
    valkey: Valkey, open_windows: Open, meters: RecordedMeters
) -> None:
    store = open_windows(valkey.address()).window("default", SMALL)
    assert remaining(store, 1) == [2]
    with closing(valkey.client()) as client:
        client.script_flush()
    assert remaining(store, 3) == [1, 0, -1]
    assert meters.next()
    assert meters.are_read


def test_a_lower_limit_than_was_counted_with_tells_when_a_call_passes(
    valkey: Valkey, open_windows: Open
) -> None:
    """As while a new limit is rolled out: the processes count in the same windows."""
    clock = Clock()
    windows = open_windows(valkey.address(), clock=clock)
    for _ in range(3):
        windows.window("default", SMALL).hit("ann")
        clock.now += NANOSECONDS
    lower = windows.window("default", Limit.per_seconds(2, 60))
    refused = lower.hit("ann")
    assert refused == Decision(False, 0, PERIOD - 3 * NANOSECONDS, PERIOD - 2 * NANOSECONDS)
    clock.now += refused.retry_after_ns - MICROSECOND
    assert not lower.hit("ann").admitted
    clock.now += MICROSECOND
    assert lower.hit("ann").admitted


# Whose clock


def test_the_servers_clock_counts(valkey: Valkey, open_windows: Open) -> None:
    store = open_windows(valkey.address()).window("default", SMALL)
    with closing(valkey.client()) as look:
        before = look.time()
        store.hit("ann")
        after = look.time()
        (key,) = cast("list[str]", look.keys("identity:limit:default:*"))
        moment = int(cast("str", look.lindex(key, 0)))
    seconds, microseconds = cast("tuple[int, int]", before)
    assert moment >= seconds * 1_000_000 + microseconds
    seconds, microseconds = cast("tuple[int, int]", after)
    assert moment <= seconds * 1_000_000 + microseconds


def test_a_clock_that_is_set_back_admits_no_more_and_locks_nobody_out_for_longer_than_a_period(
    valkey: Valkey, open_windows: Open
) -> None:
    clock = Clock()
    store = open_windows(valkey.address(), clock=clock).window("default", SMALL)
    assert remaining(store, 3) == [2, 1, 0]
    clock.now -= 3_600 * NANOSECONDS
    assert store.hit("ann") == Decision(False, 0, PERIOD, PERIOD)
    clock.now += PERIOD - MICROSECOND
    assert remaining(store, 1) == [-1]
    clock.now += MICROSECOND
    assert remaining(store, 4) == [2, 1, 0, -1]


def test_calls_that_do_not_lie_in_the_future_keep_their_moments(
    valkey: Valkey, open_windows: Open
) -> None:
    clock = Clock()
    store = open_windows(valkey.address(), clock=clock).window("default", SMALL)
    for _ in range(3):
        store.hit("ann")
        clock.now += 10 * NANOSECONDS
    clock.now -= 15 * NANOSECONDS  # between the second and the third
    assert store.hit("ann").retry_after_ns == PERIOD - 15 * NANOSECONDS
    clock.now += PERIOD - 15 * NANOSECONDS
    assert remaining(store, 2) == [0, -1]
    clock.now += 10 * NANOSECONDS
    assert remaining(store, 2) == [0, -1]
    clock.now += 5 * NANOSECONDS
    assert remaining(store, 2) == [0, -1]


def test_a_long_window_outlives_a_clock_that_is_set_back(
    valkey: Valkey, open_windows: Open
) -> None:
    limit = Limit.per_seconds(2_500, 60)
    clock = Clock()
    store = open_windows(valkey.address(), clock=clock).window("default", limit)
    for _ in range(2_500):
        assert store.hit("ann").admitted
        clock.now += MICROSECOND
    clock.now -= 60 * NANOSECONDS
    for _ in range(2):
        assert store.hit("ann") == Decision(False, 0, PERIOD, PERIOD)
    clock.now += PERIOD
    assert store.hit("ann") == Decision(True, 2_499, PERIOD, 0)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_a_clock_does_backwards_no_window_of_true_time_holds_too_many_calls(
    valkey: Valkey, open_windows: Open, seed: int
) -> None:
    chosen = random.Random(seed)
    clock = Clock()
    store = open_windows(valkey.address(), clock=clock).window("default", SMALL)
    true_time, set_back_at = PERIOD, 0
    admitted: list[int] = []
    for _ in range(2_000):
        passed = chosen.choice([0, MICROSECOND, NANOSECONDS, PERIOD // 7, PERIOD // 3])
        true_time += passed
        clock.now += passed
        if chosen.random() < 0.05:
            clock.now -= chosen.choice([MICROSECOND, NANOSECONDS, PERIOD // 2, 9 * PERIOD])
            store.hit("nobody")  # others' calls change nothing
            set_back_at = true_time
        counted = sum(moment > true_time - PERIOD for moment in admitted)
        decision = store.hit("ann")
        admitted += [true_time] * decision.admitted
        if decision.admitted:
            assert counted < SMALL.calls
        elif true_time - set_back_at >= PERIOD:
            assert counted == SMALL.calls
