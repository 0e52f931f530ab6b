"""Threads for the calls that nobody counts: health and reflection."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

# Calls of one kind that have a thread or wait for one. All calls together have a bound, and these
# must not use it up, all three pools together.
MAXIMUM_CALLS: Final = 500


class OpenPool(ThreadPoolExecutor):
    """Says whether it has room for another call; who asks refuses the call where it has none."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, name)
        self._present = 0
        self._lock = threading.Lock()

    def has_room(self) -> bool:
        return self._present < MAXIMUM_CALLS

    def submit(  # type: ignore[override]  # the base has names that are positions only
        self, work: Callable[..., Any], *arguments: object, **named: object
    ) -> "Future[Any]":
        with self._lock:
            self._present += 1
        future = super().submit(work, *arguments, **named)
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _future: "Future[Any]") -> None:
        with self._lock:
            self._present -= 1
