"""The pool of hashing threads: what it admits, what it refuses, and when.

A pool reads its clock when a hash begins and when it has ended. `Gate` is a clock that lets nobody
go on until it is opened: what is admitted meanwhile stays in the pool.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from identity.deadlines import Deadline
from identity.errors import DeadlineTooShort, Overloaded
from identity.security.passwords import PasswordHasher, verify_password
from tests.fakes import FakeClock

COST = 4
PASSWORD = "Passw0rd!"
NO_HASH = ""  # verifying against it takes no time, whatever the cost
SLOW_COST = 16  # by the first guess, 4.32 seconds a hash
TIMEOUT = 10.0  # seconds after which what has not happened will not


class Gate:
    """A clock that stands still, and stops whoever reads it until the gate is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.reached = threading.Semaphore(0)
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        self.reached.release()
        self.opened.wait(TIMEOUT)
        self.opened.set()  # a test that waits for a refusal which does not come must end as well
        return 0.0


class Announcing:
    """The clock of a caller's deadline, which tells when that caller begins to wait."""

    def __init__(self, clock: Callable[[], float], waiting: threading.Semaphore) -> None:
        self._clock = clock
        self._waiting = waiting
        self._caller: int | None = None

    def __call__(self) -> float:
        if self._caller is None:
            self._caller = threading.get_ident()  # admission reads it first
        elif self._caller == threading.get_ident():
            self._waiting.release()  # then the caller, for how long to wait
        return self._clock()


class Callers:
    """People who call the pool at the same time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(100)
        self._waiting = threading.Semaphore(0)

    def call(self, hasher: PasswordHasher, deadline: Deadline | None = None) -> "Future[bool]":
        """Verifies something, and returns when the pool has admitted it."""
        at, clock = (deadline.at, deadline.clock) if deadline else (math.inf, time.monotonic)
        deadline = Deadline(at, Announcing(clock, self._waiting))
        answer = self._threads.submit(hasher.verify, PASSWORD, NO_HASH, deadline)
        assert self._waiting.acquire(timeout=TIMEOUT)
        return answer

    def leave(self) -> None:
        self._threads.shutdown()


@pytest.fixture
def callers() -> Iterator[Callers]:
    made = Callers()
    yield made
    made.leave()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


def within(seconds: float) -> Deadline:
    """A deadline so far ahead, on a clock that stands still."""
    return Deadline(seconds, lambda: 0.0)


def pool(*, cost: int = COST, cores: int = 1, clock: Callable[[], float]) -> PasswordHasher:
    return PasswordHasher(cost, cores, clock)


# Deadlines


def test_a_deadline_tells_what_is_left_and_never_less_than_nothing(clock: FakeClock) -> None:
    deadline = Deadline.after(10, clock.monotonic)
    assert deadline.remaining() == 10
    clock.advance(seconds=9.5)
    assert deadline.remaining() == 0.5
    deadline.check()
    clock.advance(seconds=0.5)
    assert deadline.remaining() == 0
    with pytest.raises(DeadlineTooShort):
        deadline.check()
    clock.advance(days=1)
    assert deadline.remaining() == 0


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_deadline_that_is_over_when_it_is_made_is_too_short(
    seconds: float, clock: FakeClock
) -> None:
    with pytest.raises(DeadlineTooShort):
        Deadline.after(seconds, clock.monotonic).check()


def test_without_a_deadline_there_is_always_time(clock: FakeClock) -> None:
    for deadline in (Deadline(), Deadline.after(None, clock.monotonic)):
        clock.advance(days=10_000)
        assert deadline.remaining() == math.inf
        deadline.check()


# An idle pool


def test_the_pool_hashes_and_verifies() -> None:
    hasher = PasswordHasher(COST, cores=2)
    stored = hasher.hash(PASSWORD, Deadline())
    assert stored.startswith("$bcrypt-sha256$v=2,t=2b,r=4$")
    assert verify_password(PASSWORD, stored)
    assert hasher.verify(PASSWORD, stored, Deadline())
    assert not hasher.verify("another", stored, Deadline())
    hasher.close()


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05])
def test_a_deadline_that_holds_no_hash_is_refused_before_any_work(
    seconds: float, gate: Gate
) -> None:
    hasher = pool(clock=gate)
    with pytest.raises(DeadlineTooShort):
        hasher.hash(PASSWORD, within(seconds))
    with pytest.raises(DeadlineTooShort):
        hasher.verify(PASSWORD, NO_HASH, within(seconds))
    assert gate.readings == 0
    hasher.close()


def test_a_refused_call_takes_no_place(gate: Gate) -> None:
    hasher = pool(cost=SLOW_COST, clock=gate)
    for _ in range(200):
        with pytest.raises(DeadlineTooShort):
            hasher.hash(PASSWORD, within(1))
    gate.opened.set()
    assert not hasher.verify(PASSWORD, NO_HASH, within(10))
    hasher.close()


def test_an_idle_pool_admits_a_sufficient_deadline_even_after_very_slow_hashes() -> None:
    """A machine that once stood still must not refuse for ever."""
    readings = iter([0.0, 3_600.0] * 5 + [0.0, 0.0])
    hasher = pool(clock=lambda: next(readings))
    for _ in range(5):
        hasher.verify(PASSWORD, NO_HASH, within(1))
    assert verify_password(PASSWORD, hasher.hash(PASSWORD, within(1)))
    hasher.close()


def test_a_machine_quicker_than_guessed_admits_shorter_deadlines() -> None:
    hasher = pool(cost=SLOW_COST, clock=lambda: 0.0)
    with pytest.raises(DeadlineTooShort):
        hasher.verify(PASSWORD, NO_HASH, within(1))
    hasher.verify(PASSWORD, NO_HASH, Deadline())
    assert not hasher.verify(PASSWORD, NO_HASH, within(1))
    hasher.close()


# A busy pool


def test_a_call_that_could_not_end_before_its_deadline_is_refused_before_any_work(
    gate: Gate, callers: Callers
) -> None:
    hasher = pool(cost=SLOW_COST, clock=gate)  # 4.32 seconds each, one after another
    begun = [callers.call(hasher), callers.call(hasher)]
    assert gate.reached.acquire(timeout=TIMEOUT)
    with pytest.raises(Overloaded) as caught:
        hasher.verify(PASSWORD, NO_HASH, within(12.9))
    assert 0 < caught.value.retry_after <= 12.96
    begun.append(callers.call(hasher, within(13)))
    assert gate.readings == 1  # the others wait in the queue
    gate.opened.set()
    assert [answer.result(TIMEOUT) for answer in begun] == [False] * 3
    hasher.close()


def test_nobody_waits_longer_than_people_do_even_without_a_deadline(
    gate: Gate, callers: Callers
) -> None:
    hasher = pool(cost=SLOW_COST, clock=gate)
    begun = [callers.call(hasher) for _ in range(3)]  # the fourth would wait 17 seconds
    with pytest.raises(Overloaded):
        hasher.verify(PASSWORD, NO_HASH, Deadline())
    gate.opened.set()
    assert [answer.result(TIMEOUT) for answer in begun] == [False] * 3
    assert not hasher.verify(PASSWORD, NO_HASH, Deadline())  # and now there is room
    hasher.close()


def test_a_queue_shrinks_with_the_number_of_cores(gate: Gate, callers: Callers) -> None:
    hasher = pool(cost=SLOW_COST, cores=2, clock=gate)
    begun = [callers.call(hasher) for _ in range(6)]
    with pytest.raises(Overloaded):
        hasher.verify(PASSWORD, NO_HASH, Deadline())
    gate.opened.set()
    assert [answer.result(TIMEOUT) for answer in begun] == [False] * 6
    hasher.close()


def test_the_queue_is_bounded_in_number_however_quick_the_hashes(
    gate: Gate, callers: Callers
) -> None:
    hasher = pool(clock=gate)
    begun = [callers.call(hasher) for _ in range(hasher.admitted_at_most)]
    with pytest.raises(Overloaded) as caught:
        hasher.verify(PASSWORD, NO_HASH, Deadline())
    assert caught.value.retry_after > 0
    gate.opened.set()
    assert [answer.result(TIMEOUT) for answer in begun] == [False] * hasher.admitted_at_most
    hasher.close()


def test_a_caller_whose_deadline_passes_in_the_queue_does_not_wait_for_its_turn(
    gate: Gate, callers: Callers
) -> None:
    hasher = pool(clock=gate)
    first = callers.call(hasher)
    assert gate.reached.acquire(timeout=TIMEOUT)
    readings = iter([0.0])  # in time to be admitted, and late ever after
    with pytest.raises(DeadlineTooShort):
        hasher.verify(PASSWORD, NO_HASH, Deadline(5, lambda: next(readings, 6.0)))
    assert not first.done()
    gate.opened.set()
    assert first.result(TIMEOUT) is False
    hasher.close()
    assert gate.readings == 2  # the first one's beginning and end


def test_a_call_whose_deadline_has_passed_when_its_turn_comes_is_ended_without_work(
    gate: Gate, callers: Callers, clock: FakeClock
) -> None:
    hasher = pool(clock=gate)
    first = callers.call(hasher)
    assert gate.reached.acquire(timeout=TIMEOUT)
    second = callers.call(hasher, Deadline.after(1_000, clock.monotonic))
    clock.advance(seconds=1_000)
    gate.opened.set()
    with pytest.raises(DeadlineTooShort):
        second.result(TIMEOUT)
    assert first.result(TIMEOUT) is False
    hasher.close()
    assert gate.readings == 2


def test_closing_refuses_what_is_queued_and_does_not_wait_for_what_runs(
    gate: Gate, callers: Callers
) -> None:
    hasher = pool(clock=gate)
    running = callers.call(hasher)
    assert gate.reached.acquire(timeout=TIMEOUT)
    queued = callers.call(hasher)
    hasher.close()
    with pytest.raises(Overloaded):
        queued.result(TIMEOUT)
    assert not running.done()
    gate.opened.set()
    assert running.result(TIMEOUT) is False


def test_a_closed_pool_hashes_no_more() -> None:
    hasher = PasswordHasher(COST, cores=1)
    hasher.close()
    with pytest.raises(Overloaded):
        hasher.hash(PASSWORD, Deadline())


def test_who_waits_for_a_hash_says_so_before() -> None:
    gate = Gate()
    said = threading.Semaphore(0)
    hasher = PasswordHasher(COST, 1, clock=gate, before_wait=said.release)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(hasher.hash, PASSWORD, Deadline())
        assert said.acquire(timeout=TIMEOUT)
        assert not gate.opened.is_set()
        gate.opened.set()
        assert verify_password(PASSWORD, answer.result(TIMEOUT))
    hasher.close()
