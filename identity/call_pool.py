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
        self._running: list[_Runner] = []  # of these, those that have not stepped aside
        self._is_closed = False
        self._is_wanted = threading.Event()  # calls wait
        self._watcher = threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True)

    def start(self) -> None:
        """From now on `look` is called while calls wait."""
        self._watcher.start()

    def submit(  # type: ignore[override]  # the base has names that are positions only
        self, work: Callable[..., Any], *arguments: object, **named: object
    ) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._lock:
            self._calls.append((future, partial(work, *arguments, **named)))
            self._fill()
            if self._calls and not self._is_wanted.is_set():
                self._is_wanted.set()
        return future

    def close(self) -> None:
        """Starts no more threads; those that run go on until all calls have been run."""
        with self._lock:
            self._is_closed = True
        self._is_wanted.set()
        self.shutdown(wait=False)

    def step_aside(self, runner: "_Runner") -> None:
        """For a runner's own thread: from now on another may take its place."""
        with self._lock:
            if runner in self._running:
                self._running.remove(runner)
                self._fill()

    def take(self, runner: "_Runner") -> "tuple[Future[Any], Callable[[], Any]] | None":
        """The next call for a runner. None, its end, where there is none or no room any more."""
        with self._lock:
            is_running = runner in self._running
            if self._calls and (is_running or len(self._running) < self._most):
                if not is_running:
                    self._running.append(runner)
                runner.begun = self._clock()
                return self._calls.popleft()
            if is_running:
                self._running.remove(runner)
            self._runners -= 1
            return None

    def look(self) -> None:
        """Where calls wait, lets others take the place of runners that do not come to an end."""
        with self._lock:
            if not self._calls:
                self._is_wanted.clear()
                return
            end = self._clock() - STALL
            self._running = [runner for runner in self._running if runner.begun > end]
            self._fill()

    def _fill(self) -> None:
        """With the lock held: begins the runners that there is work and room for."""
        if self._is_closed:
            return
        threads = self._threads_at_most - self._runners
        for _ in range(min(self._most - len(self._running), len(self._calls), threads)):
            runner = _Runner(self, self._clock())
            self._runners += 1
            self._running.append(runner)
            super().submit(runner.run)

    def _watch(self) -> None:
        while not self._is_closed:
            self._is_wanted.wait()
            time.sleep(STALL)
            self.look()


class _Runner:
    """One thread's way through the queue."""

    def __init__(self, pool: CallPool, begun: float) -> None:
        self.pool = pool
        self.begun = begun  # when it took the call that it is at

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
