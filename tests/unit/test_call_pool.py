"""Calls run a few at a time, and none waits for one that waits itself."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from identity.call_pool import STALL, CallPool, step_aside
from tests.fakes import FakeClock

_numbers = itertools.count()

PATIENCE = 20  # seconds, for what takes none


@contextmanager
def pool(threads: int, runners: int, clock: FakeClock | None = None) -> Iterator[CallPool]:
    clock = clock or FakeClock()
    made = CallPool(threads, f"calls{next(_numbers)}", runners=runners, clock=clock.monotonic)
    try:
        yield made
    finally:
        made.shutdown(wait=False)


def threads_of(calls: CallPool) -> int:
    """How many it has: they are started, and counted, before the pool answers."""
    name = calls._thread_name_prefix  # type: ignore[attr-defined]
    return sum(thread.name.startswith(f"{name}_") for thread in threading.enumerate())


class Waiting:
    """Calls that wait until they are let go."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.begun = 0
        self._changed = threading.Condition()

    def __call__(self) -> None:
        with self._changed:
            self.begun += 1
            self._changed.notify_all()
        assert self.may_end.wait(PATIENCE)

    def have_begun(self, number: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.begun == number, PATIENCE)


class TickingClock(FakeClock):
    """Goes on by a second with each look."""

    def monotonic(self) -> float:
        self.advance(seconds=1)
        return super().monotonic()


def results(calls: list[Future[object]]) -> list[object]:
    return [call.result(PATIENCE) for call in calls]


def test_few_run_at_once() -> None:
    order: list[int] = []
    waiting = Waiting()
    with pool(threads=10, runners=2) as calls:
        first = [calls.submit(waiting) for _ in range(2)]
        others = [calls.submit(order.append, number) for number in range(50)]
        assert waiting.have_begun(2)
        assert threads_of(calls) == 2
        assert order == []
        waiting.may_end.set()
        results([*first, *others])
    assert sorted(order) == list(range(50))


def test_one_runner_keeps_the_order() -> None:
    order: list[int] = []
    with pool(threads=10, runners=1) as calls:
        results([calls.submit(order.append, number) for number in range(1000)])
    assert order == list(range(1000))


def test_a_call_that_steps_aside_lets_the_next_one_run() -> None:
    met = threading.Event()

    def wait() -> bool:
        step_aside()
        step_aside()  # once is enough, and twice no harm
        return met.wait(PATIENCE)

    with pool(threads=2, runners=1) as calls:
        assert results([calls.submit(wait), calls.submit(met.set)]) == [True, None]


def test_a_call_that_stands_still_lets_the_next_one_run_when_it_is_looked_for() -> None:
    clock = FakeClock()
    waiting, ran = Waiting(), threading.Event()
    with pool(threads=3, runners=2, clock=clock) as calls:
        still = [calls.submit(waiting) for _ in range(2)]
        assert waiting.have_begun(2)
        other = calls.submit(ran.set)
        calls.look()
        assert threads_of(calls) == 2
        clock.advance(seconds=STALL)
        calls.look()
        other.result(PATIENCE)
        waiting.may_end.set()
        results(still)


def test_while_it_is_started_it_is_looked_for() -> None:
    waiting = Waiting()
    with pool(threads=10, runners=2, clock=TickingClock()) as calls:
        calls.start()
        still = [calls.submit(waiting) for _ in range(10)]
        assert waiting.have_begun(10)
        waiting.may_end.set()
        results(still)


def test_there_are_never_more_threads_than_said() -> None:
    clock = FakeClock()
    waiting = Waiting()
    with pool(threads=3, runners=2, clock=clock) as calls:
        still = [calls.submit(waiting) for _ in range(8)]
        for _ in range(100):
            clock.advance(seconds=STALL)
            calls.look()
        assert waiting.have_begun(3)
        assert waiting.begun == 3
        waiting.may_end.set()
        results(still)


def test_who_comes_back_to_others_in_its_place_takes_no_more_calls() -> None:
    came_back = threading.Event()

    def leave() -> bool:
        step_aside()
        return came_back.wait(PATIENCE)

    waiting = Waiting()
    with pool(threads=3, runners=1) as calls:
        first, second = calls.submit(leave), calls.submit(waiting)
        assert waiting.have_begun(1)
        third = calls.submit(lambda: threading.current_thread().name)
        came_back.set()
        assert first.result(PATIENCE)
        waiting.may_end.set()
        (_, name) = results([second, third])
        assert name == f"{calls._thread_name_prefix}_1"  # type: ignore[attr-defined]


def test_who_stood_still_goes_on_beside_others() -> None:
    clock = FakeClock()
    slow, others = Waiting(), Waiting()
    with pool(threads=4, runners=1, clock=clock) as calls:
        first, second = calls.submit(slow), calls.submit(others)
        assert slow.have_begun(1)
        clock.advance(seconds=STALL)
        calls.look()
        assert others.have_begun(1)
        third = calls.submit(others)
        slow.may_end.set()
        first.result(PATIENCE)
        assert others.have_begun(2)
        assert threads_of(calls) == 2
        others.may_end.set()
        results([second, third])


def test_what_a_call_raises_is_its_own() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pool(threads=1, runners=1) as calls:
        failed, fine = calls.submit(fail), calls.submit(lambda: 7)
        with pytest.raises(KeyError):
            failed.result(PATIENCE)
        assert fine.result(PATIENCE) == 7


def test_a_call_that_was_cancelled_in_the_queue_does_not_run() -> None:
    waiting, ran = Waiting(), threading.Event()
    with pool(threads=1, runners=1) as calls:
        first, second, third = (
            calls.submit(waiting),
            calls.submit(ran.set),
            calls.submit(lambda: 7),
        )
        assert waiting.have_begun(1)
        assert second.cancel()
        waiting.may_end.set()
        assert results([first, third]) == [None, 7]
    assert not ran.is_set()


def test_what_is_in_the_queue_when_it_is_closed_still_runs() -> None:
    waiting = Waiting()
    with pool(threads=2, runners=1) as calls:
        first, second = calls.submit(waiting), calls.submit(lambda: 7)
        assert waiting.have_begun(1)
    waiting.may_end.set()
    assert results([first, second]) == [None, 7]


def test_after_that_it_takes_none() -> None:
    with pool(threads=2, runners=1) as calls:
        pass
    with pytest.raises(RuntimeError):
        calls.submit(lambda: 7)


def test_where_no_thread_can_be_started_calls_wait_for_those_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    waiting = Waiting()
    with pool(threads=9, runners=1, clock=clock) as calls:
        first = calls.submit(waiting)
        assert waiting.have_begun(1)
        with monkeypatch.context() as limited:
            limited.setattr(threading.Thread, "start", _fail_to_start)
            second = calls.submit(lambda: 7)
            clock.advance(seconds=STALL)
            calls.look()
        waiting.may_end.set()
        assert results([first, second]) == [None, 7]


def _fail_to_start(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
