"""The one thread beside the calls: runs the background jobs, one after the other."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import structlog

from identity.errors import DatabaseUnavailable
from identity.tracebacks import describe, kind_of

POLL_INTERVAL: Final = 1.0  # seconds; what this process queues wakes the worker at once

# A bounded piece of work: is told when to stop, returns how much it did.
Job: TypeAlias = Callable[[Callable[[], bool]], int]

_log = structlog.get_logger()


class Worker:
    """Runs jobs until none has anything left, then waits to be woken or for the next poll."""

    def __init__(self, *, woken: Sequence[Job], polling: Sequence[Job]) -> None:
        """`woken` run whenever it is woken and with each poll, `polling` with each poll only."""
        self._woken = woken
        self._polling = polling
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._reachable = True
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Says that there is something to do, so that it does not wait for the next poll."""
        self._work.set()

    def stop(self, timeout: float) -> None:
        """Ends the thread after the piece of work at hand; gives up after `timeout` seconds."""
        self._stopping.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        poll_at = time.monotonic()
        while not self._stopping.is_set():
            self._work.clear()
            polled = 0
            if time.monotonic() >= poll_at:
                polled = self._attempt_all(self._polling)
                if not polled:
                    poll_at = time.monotonic() + POLL_INTERVAL
            if not self._attempt_all(self._woken) + polled:
                self._work.wait(max(0.0, poll_at - time.monotonic()))

    def _attempt_all(self, jobs: Sequence[Job]) -> int:
        return sum([self._attempt(job) for job in jobs])

    def _attempt(self, job: Job) -> int:
        """What the job did; 0 when it failed, so that the next try waits for the poll."""
        try:
            done = job(self._stopping.is_set)
        except DatabaseUnavailable as error:
            if self._reachable:  # once, not with every poll of an outage
                _log.warning("database_unavailable", error=kind_of(error.__cause__ or error))
            self._reachable = False
            return 0
        except Exception as error:  # noqa: BLE001 - the thread must outlive a job that fails
            _log.error("job_failed", **describe(error))
            return 0
        self._reachable = True
        return done
