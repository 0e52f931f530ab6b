"""Whether the service can do its work: whether its database answers."""

import threading
from typing import Final, Protocol

import structlog

from identity.database import Database
from identity.tracebacks import kind_of

INTERVAL: Final = 1.0  # seconds between two looks
PROBE_TIMEOUT: Final = 1.0  # seconds; a database that takes longer for one row is no use

_log = structlog.get_logger()


class Report(Protocol):
    """Is told whether the service can do its work."""

    def __call__(self, *, is_serving: bool) -> None: ...


class DatabaseProbe:
    """Looks once a second, in a thread of its own, and reports each change."""

    def __init__(self, database: Database, report: Report) -> None:
        """`database` is the probe's own, with one connection: calls must not be able to keep it
        waiting, and a pool that is exhausted is no reason to send callers elsewhere.

        The database is taken to be reachable at first: the start has just used it.
        """
        self._database = database
        self._report = report
        self._is_reachable = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Reports nothing any more. Does not wait for a look that is under way."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            self._look()
        self._database.close()

    def _look(self) -> None:
        try:
            self._database.ping()
        except Exception as error:  # noqa: BLE001 - whatever it is, calls would meet it too
            if self._is_reachable:
                _log.error("not_serving", error=kind_of(error.__cause__ or error))
            self._change(is_reachable=False)
        else:
            if not self._is_reachable:
                _log.info("serving")
            self._change(is_reachable=True)

    def _change(self, *, is_reachable: bool) -> None:
        if is_reachable is not self._is_reachable and not self._stopping.is_set():
            self._report(is_serving=is_reachable)
        self._is_reachable = is_reachable
