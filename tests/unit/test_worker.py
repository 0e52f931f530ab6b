"""The background thread: which jobs run when."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from identity import worker as module
from identity.worker import Worker

PATIENCE = 20  # seconds, for what takes none


class Job:
    """Tells each time it is run, and does as many pieces of work as it is given."""

    def __init__(self, *work: int) -> None:
        self._work = list(work)
        self.runs = threading.Semaphore(0)
        self.count = 0

    def __call__(self, _is_stopping: Callable[[], bool]) -> int:
        self.count += 1
        self.runs.release()
        return self._work.pop(0) if self._work else 0

    def has_run(self) -> bool:
        return self.runs.acquire(timeout=PATIENCE)


@contextmanager
def running(woken: Job, polling: Job) -> Iterator[Worker]:
    worker = Worker(woken=[woken], polling=[polling])
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(PATIENCE)


@pytest.fixture
def rare_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL", 3600.0)


@pytest.mark.usefixtures("rare_polls")
def test_all_jobs_run_at_the_start_and_until_they_have_nothing_left() -> None:
    woken, polling = Job(), Job(3, 2)
    with running(woken, polling):
        assert all(polling.has_run() for _ in range(3))
        assert all(woken.has_run() for _ in range(3))
    assert polling.count == 3


@pytest.mark.usefixtures("rare_polls")
def test_what_wakes_the_worker_runs_the_jobs_that_are_for_it() -> None:
    woken, polling = Job(), Job()
    with running(woken, polling) as worker:
        assert woken.has_run()
        for _ in range(3):
            worker.wake()
            assert woken.has_run()
    assert polling.count == 1


@pytest.mark.usefixtures("rare_polls")
def test_work_that_goes_on_brings_no_polls() -> None:
    woken, polling = Job(*[1] * 1000), Job()
    with running(woken, polling):
        assert all(woken.has_run() for _ in range(1001))
    assert polling.count == 1


def test_polls_come_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL", 0.001)
    woken, polling = Job(), Job()
    with running(woken, polling):
        assert all(polling.has_run() for _ in range(3))
        assert all(woken.has_run() for _ in range(3))


@pytest.mark.usefixtures("rare_polls")
def test_a_job_that_fails_waits_for_the_next_poll_and_stops_no_other() -> None:
    woken = Job()

    def fail(_is_stopping: Callable[[], bool]) -> int:
        raise KeyError("x")

    worker = Worker(woken=[woken], polling=[fail])
    worker.start()
    try:
        assert woken.has_run()
        worker.wake()
        assert woken.has_run()
    finally:
        worker.stop(PATIENCE)
