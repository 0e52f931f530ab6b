"""Windows in the memory of this process."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog

from identity.ratelimit.window import EMPTY, Decision, Limit, Moments, admit, has_run_out

# 210 MB where every client is at a limit of 100 calls, 60 MB where each has made ten.
MAXIMUM_CLIENTS: Final = 200_000
# Windows looked at for dropping at each call. More than one, so that the number shrinks while
# new clients come; few, so that no call pays for the others.
_DROPPED_AT_ONCE: Final = 2

_log = structlog.get_logger()


class MemoryStore:
    """One limit, one window a client, in the order of their last admitted call.

    Only windows that have run out are dropped. When there is no room, all new clients share one
    window: nobody gets around the limit by being many, and those already known are not touched.
    """

    def __init__(
        self,
        limit: Limit,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        maximum_clients: int = MAXIMUM_CLIENTS,
    ) -> None:
        self.limit: Final = limit
        self._clock = clock
        self._maximum_clients = maximum_clients
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, Moments] = OrderedDict()
        self._overflow = EMPTY
        self._overflowing = False

    def hit(self, client: str) -> Decision:
        with self._lock:
            now = self._clock()  # inside the lock: moments must be in order
            self._drop_run_out(now)
            window = self._windows.get(client)
            if window is None and len(self._windows) >= self._maximum_clients:
                return self._hit_overflow(now)
            if window is None:
                # It may have been counted in the shared window, so those calls are its own as long
                # as they live. Nearly always that window is empty.
                window, self._overflowing = self._overflow, False
            decision, window = admit(window, self.limit, now)
            self._windows[client] = window
            if decision.admitted:
                self._windows.move_to_end(client)
            return decision

    def _drop_run_out(self, now: int) -> None:
        for _ in range(_DROPPED_AT_ONCE):
            if not self._windows:
                return
            client = next(iter(self._windows))
            if not has_run_out(self._windows[client], self.limit, now):
                return
            del self._windows[client]

    def _hit_overflow(self, now: int) -> Decision:
        if not self._overflowing:  # once, not with every call of a flood
            self._overflowing = True
            _log.warning("rate_limit_full", clients=self._maximum_clients)
        decision, self._overflow = admit(self._overflow, self.limit, now)
        return decision


class MemoryWindows:
    """A store for each limit, in the memory of this process."""

    def start(self) -> None:
        """Nothing to do."""

    def window(self, name: str, limit: Limit) -> MemoryStore:
        return MemoryStore(limit)

    def close(self) -> None:
        """Nothing to do."""
