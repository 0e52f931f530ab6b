"""Runs several worker processes on one port, and keeps them running.

Imports no gRPC, whose threads and sockets a process can't share, and touches no database: each
worker is a fresh process that reads its own settings. See docs/decisions/0012.
"""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from identity import logs, monitoring
from identity.config import ConfigurationError, Settings
from identity.listening import reserved
from identity.startup import StartError, announce
from identity.values import Endpoint
from identity.worker_process import WorkerProcess, Workers

# A worker ends by itself within 8 s of SIGTERM. Whoever stops us kills after 10.
STOP_LIMIT: Final = 9.0  # seconds
# Not for the first start, which may have to wait for a migration.
START_LIMIT: Final = 60.0  # seconds until a worker that does not serve is given up
LONGEST_DELAY: Final = 30.0  # seconds between two tries to start a worker
STEADY: Final = 60.0  # seconds of service after which a death is a first one again

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Vacancy:
    """A worker that died, and is to be started again."""

    due: float
    failures: int


def run(settings: Settings) -> int:
    """Runs `settings.workers` workers until SIGTERM or SIGINT. Returns the exit code.

    Raises ConfigurationError or StartError.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigurationError(
            "IDENTITY_WORKERS: processes can't share a port on this system: set IDENTITY_WORKERS=1"
        )
    logs.configure(logs.LogFormat(settings.log_format), logs.LogLevel(settings.log_level))
    with monitoring.shared(settings) as shared, reserved(settings.listen) as endpoint:
        supervisor = Supervisor(
            settings.workers, endpoint, shared.environment, slot_ended=shared.slot_ended
        )
        with shared.shown(lambda: supervisor.counts):
            return supervisor.run()


def restart_delay(failures: int) -> float:
    """Seconds until a worker is started again, after so many in a row have died early."""
    return min(2.0 ** min(failures - 1, 10), LONGEST_DELAY) if failures else 0.0


class Supervisor:
    """Starts the workers, replaces those that die, and on SIGHUP all, one after the other.

    Workers have slots: the lowest numbers that are free, from 0 to the number of workers, as one
    more may run while one replaces another.
    """

    def __init__(
        self,
        number: int,
        endpoint: Endpoint,
        environment: Mapping[str, str],
        slot_ended: Callable[[int], None],
    ) -> None:
        """`environment` is what workers get beside ours.

        `slot_ended` is told the slot of each worker that has ended, before it is taken again."""
        self._wanted = number
        self._endpoint = endpoint
        self._environment = os.environ | {"IDENTITY_LISTEN": str(endpoint), **environment}
        self._slot_ended = slot_ended
        self._workers: dict[int, WorkerProcess] = {}  # by slot
        self._vacancies: list[_Vacancy] = []
        self._restarted = 0
        self._is_stopping = False
        self._reload_is_wanted = False
        self._is_reloading = False
        self._outdated: list[WorkerProcess] = []  # still to be replaced
        self._successor: WorkerProcess | None = None  # of the first of these; does not serve yet
        self._selector = selectors.DefaultSelector()

    @property
    def counts(self) -> Workers:
        """As they are now; for any thread."""
        workers = list(self._workers.values())
        serving = sum(worker.is_serving and not worker.is_retired for worker in workers)
        return Workers(len(workers), serving, self._restarted)

    def run(self) -> int:
        """Returns the exit code after SIGTERM or SIGINT. Raises StartError."""
        with self._signals():
            try:
                code = self._start()
                while code is None and not self._is_stopping:
                    self._tend()
            finally:
                self._stop()
        return code or 0

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Takes signals as notes, and wakes the selector with each."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            self._selector.register(ours, selectors.EVENT_READ, lambda: ours.recv(1024))
            signal.signal(signal.SIGTERM, self._note_stop)
            signal.signal(signal.SIGINT, self._note_stop)
            signal.signal(signal.SIGHUP, self._note_reload)
            signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the selector
            try:
                yield
            finally:
                signal.set_wakeup_fd(-1)
                self._selector.unregister(ours)

    def _note_stop(self, *_: object) -> None:
        self._is_stopping = True

    def _note_reload(self, *_: object) -> None:
        self._reload_is_wanted = True

    def _start(self) -> int | None:
        """Brings up all workers. An exit code if one ended instead, in its own words.

        The first one is started alone: so what hinders the start is told once, and a key or a
        database that is missing is made once.
        """
        for number in (1, self._wanted):
            while len(self._workers) < number:
                try:
                    self._spawn()
                except OSError as error:
                    raise StartError(f"cannot start a worker: {error.strerror}") from None
            while not all(worker.has_served for worker in self._workers.values()):
                ended = self._turn()
                if self._is_stopping:
                    return 0
                if ended and ended[0].exit_code:
                    return ended[0].exit_code
                if ended:
                    ((how, what),) = ended[0].how_it_ended().items()
                    raise StartError(f"a worker ended before all served: {how} {what}")
        announce(self._endpoint)
        return None

    def _spawn(self, failures: int = 0, limit: float | None = None) -> WorkerProcess:
        slot = next(slot for slot in range(self._wanted + 1) if slot not in self._workers)
        worker = WorkerProcess(slot, self._environment, failures, limit)
        self._workers[slot] = worker
        self._selector.register(worker.line, selectors.EVENT_READ, lambda: self._hear(worker))
        return worker

    def _hear(self, worker: WorkerProcess) -> None:
        had_served = worker.has_served
        if not worker.hear():
            self._selector.unregister(worker.line)
        if worker.has_served and not had_served:
            _log.info("worker_started", slot=worker.slot, pid=worker.pid)

    def _turn(self) -> list[WorkerProcess]:
        """Waits for whatever comes next. Returns workers that have ended without being told to."""
        waits = [worker.seconds_left() for worker in self._workers.values()]
        waits += [max(0.0, vacancy.due - time.monotonic()) for vacancy in self._vacancies]
        timeout = min((wait for wait in waits if wait is not None), default=None)
        for key, _ in self._selector.select(timeout):
            key.data()
        for worker in self._workers.values():
            if worker.is_overdue():
                _log.error("worker_killed", slot=worker.slot, pid=worker.pid)
                worker.kill()
        ended = [worker for worker in self._workers.values() if worker.has_ended()]
        for worker in ended:
            self._forget(worker)
        return [worker for worker in ended if not worker.is_retired]

    def _forget(self, worker: WorkerProcess) -> None:
        if worker.line in self._selector.get_map():
            self._selector.unregister(worker.line)
        worker.line.close()
        del self._workers[worker.slot]
        self._slot_ended(worker.slot)
        if worker.is_retired:
            _log.info("worker_ended", slot=worker.slot, pid=worker.pid, **worker.how_it_ended())

    def _tend(self) -> None:
        ended = self._turn()
        if self._is_stopping:
            return
        for worker in ended:
            self._take_death(worker)
        self._fill_vacancies()
        self._go_on_reloading()

    def _take_death(self, worker: WorkerProcess) -> None:
        _log.error(
            "worker_died",
            slot=worker.slot,
            pid=worker.pid,
            serving=self.counts.serving,
            **worker.how_it_ended(),
        )
        if worker is self._successor:
            self._give_up_reloading()
            return
        if worker in self._outdated:
            has_successor = self._successor is not None and worker is self._outdated[0]
            self._outdated.remove(worker)
            if has_successor:
                self._successor = None
                return
        failures = 0 if worker.has_served_for(STEADY) else worker.failures
        self._vacate(failures)

    def _vacate(self, failures: int) -> None:
        due = time.monotonic() + restart_delay(failures)
        self._vacancies.append(_Vacancy(due, failures + 1))

    def _fill_vacancies(self) -> None:
        now = time.monotonic()
        due = [vacancy for vacancy in self._vacancies if vacancy.due <= now]
        self._vacancies = [vacancy for vacancy in self._vacancies if vacancy.due > now]
        for vacancy in due:
            try:
                self._spawn(vacancy.failures, START_LIMIT)
                self._restarted += 1
            except OSError as error:
                _log.error("worker_not_started", error=error.strerror)
                self._vacate(vacancy.failures)

    def _go_on_reloading(self) -> None:
        """One worker after the other: its successor serves, then it is told to end, and ends."""
        if self._successor and self._successor.has_served:
            self._successor = None
            self._outdated.pop(0).retire(STOP_LIMIT)
        if self._reload_is_wanted and not self._successor:
            self._begin_reload()
        if not self._is_reloading or self._successor or self._somebody_leaves():
            return
        if not self._outdated:
            self._is_reloading = False
            _log.info("reloaded")
            return
        try:
            self._successor = self._spawn(limit=START_LIMIT)
        except OSError as error:
            _log.error("worker_not_started", error=error.strerror)
            self._give_up_reloading()

    def _begin_reload(self) -> None:
        """Counts all workers as outdated, also those that have just replaced others."""
        _log.info("reloading")
        self._reload_is_wanted = False
        self._is_reloading = True
        self._outdated = [worker for worker in self._workers.values() if not worker.is_retired]
        # What others died of at their start may be mended now.
        self._vacancies = [_Vacancy(time.monotonic(), 1) for _ in self._vacancies]

    def _give_up_reloading(self) -> None:
        """Those that are not replaced yet stay: what they read at their start was usable."""
        _log.error("reload_failed", outdated=len(self._outdated))
        self._successor = None
        self._outdated.clear()
        self._is_reloading = False

    def _somebody_leaves(self) -> bool:
        return any(worker.is_retired for worker in self._workers.values())

    def _stop(self) -> None:
        """Tells all workers to end, and waits until they have."""
        for worker in self._workers.values():
            worker.retire(STOP_LIMIT)
        self._vacancies.clear()
        while self._workers:
            self._turn()
