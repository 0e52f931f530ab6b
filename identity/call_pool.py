"""Threads for calls, of which few run at once.

Python runs one thread at a time. Where sixteen have something to run, they hand the interpreter to
and fro in the middle of each call, which on two cores takes longer than the calls do. So calls wait
in a queue, and few runners work it off. A runner whose call waits lets another take its place: at
once where it says so, as before the wait for a hash, else when it has been at one call for long.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final

# Seconds after which a call is taken to wait for something. Most take less than one millisecond;
# where one that does not wait takes longer, one more runs beside it.
STALL: Final = 0.002

_own = threading.local()


def step_aside() -> None:
    """The call that this thread runs, if any, is going to wait: another may run meanwhile."""
    runner: _Runner | None = getattr(_own, "runner", None)
    if runner is not None:
        runner.pool.step_aside(runner)


class CallPool(ThreadPoolExecutor):
    """As many threads as calls may wait at once, of which few run. First come, first served."""

    def __init__(
        self,
        threads: int,
        name: str,
        *,
        runners: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(threads, name)
        self._threads_at_most = threads
        self._most = runners
        self._clock = clock
        self._lock = threading.Lock()  # of all below
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._runners = 0  # never more than threads
        self._running: list[_Runner] = []  # of these, those that neither wait nor stand still
        self._is_shut_down = False
        self._is_wanted = threading.Event()  # calls wait for a runner
        self._watcher = threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True)

    def start(self) -> None:
        """From now on `look` is called while calls wait."""
        self._watcher.start()

    def submit(  # type: ignore[override]  # the base has names that are positions only
        self, work: Callable[..., Any], *arguments: object, **named: object
    ) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("the pool is shut down")
            self._calls.append((future, partial(work, *arguments, **named)))
            if len(self._calls) > self._fill() and not self._is_wanted.is_set():
                self._is_wanted.set()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. Those in the queue are run by whoever runs already."""
        with self._lock:
            self._is_shut_down = True
        self._is_wanted.set()
        super().shutdown(wait, cancel_futures=cancel_futures)

    def step_aside(self, runner: "_Runner") -> None:
        """For a runner's own thread: from now on another may take its place."""
        with self._lock:
            runner.is_aside = True
            if runner in self._running:
                self._running.remove(runner)
                self._fill()

    def take(self, runner: "_Runner") -> "tuple[Future[Any], Callable[[], Any]] | None":
        """The next call for a runner. None, its end, where there is none or no room any more."""
        with self._lock:
            if runner in self._running:
                self._running.remove(runner)
                has_room = len(self._running) < self._most
            else:
                # One that stood still goes on, as the next call may well do the same: where all
                # do, with a slow database, there are soon as many runners as it takes.
                has_room = not runner.is_aside or len(self._running) < self._most
            if not self._calls or not has_room:
                self._runners -= 1
                return None
            self._running.append(runner)
            runner.is_aside, runner.begun = False, self._clock()
            return self._calls.popleft()

    def look(self) -> None:
        """Where calls wait, lets others take the place of runners that do not come to an end."""
        with self._lock:
            if not self._calls:
                self._is_wanted.clear()
                return
            end = self._clock() - STALL
            self._running = [runner for runner in self._running if runner.begun > end]
            self._fill()

    def _fill(self) -> int:
        """With the lock held: begins the runners that there is work and room for; how many."""
        if self._is_shut_down:
            return 0
        room = min(self._most - len(self._running), self._threads_at_most - self._runners)
        number = max(0, min(room, len(self._calls)))
        for _ in range(number):
            runner = _Runner(self, self._clock())
            self._runners += 1
            self._running.append(runner)
            try:
                super().submit(runner.run)
            except RuntimeError:
                # No thread could be started, as beyond a limit on them. The next that is free runs
                # it; the call waits for it, and must not end the server.
                continue
        return number

    def _watch(self) -> None:
        while not self._is_shut_down:
            self._is_wanted.wait()
            time.sleep(STALL)
            self.look()


class _Runner:
    """One thread's way through the queue."""

    def __init__(self, pool: CallPool, begun: float) -> None:
        self.pool = pool
        self.begun = begun  # when it took the call that it is at
        self.is_aside = False  # by its own word

    def run(self) -> None:
        _own.runner = self
        try:
            while call := self.pool.take(self):
                _carry_out(*call)
        finally:
            _own.runner = None


def _carry_out(future: "Future[Any]", work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - as the base does
        future.set_exception(error)
    else:
        future.set_result(result)
