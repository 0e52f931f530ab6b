"""Windows in a Valkey server, shared by all processes that count there.

While the server does not answer, each process counts by itself: a limit that is counted in several
places is better than a call that fails, and better than none.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from identity.meters import Meters
from identity.ratelimit.connections import CONNECT_TIMEOUT, Connections, Script
from identity.ratelimit.memory import MemoryStore
from identity.ratelimit.store import LimitStore
from identity.ratelimit.window import Decision, Limit
from identity.tracebacks import kind_of
from identity.values import ValkeyServer

# Seconds that a call waits for the server, whatever holds it up. A call may lose 50 ms: the rest is
# for the thread to get its turn. An answer takes 0.1 ms, and the network's time.
PATIENCE: Final = 0.04
INTERVAL: Final = 1.0  # seconds between two looks at the server
# Seconds that the start waits for the first look. Later, calls would count apart until then.
START_PATIENCE: Final = 2.0

_MICROSECOND: Final = 1_000  # nanoseconds
_KEY: Final = "identity:limit"
# Bytes. Nobody can choose a client whose digest is that of another; all keys are of one length.
# It is no secret: who reads the store can try all IPv4 addresses.
_DIGEST_SIZE: Final = 16


def _script() -> Script:
    text = Path(__file__).with_name("window.lua").read_text("utf-8")
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_WINDOW: Final = _script()

_log = structlog.get_logger()


class ValkeyWindows:
    """One server and its windows. Whether it answers is known, and said, once for all of them."""

    def __init__(
        self,
        server: ValkeyServer,
        meters: Meters,
        *,
        clock: Callable[[], int] | None = None,
        patience: float = PATIENCE,
        interval: float = INTERVAL,
    ) -> None:
        """`clock`: nanoseconds, in the place of the server's own clock, of which microseconds
        count."""
        self._server = server
        self._meters = meters
        self._clock = clock
        self._patience = patience
        self._interval = interval
        self._connections: Connections | None = None  # None while the server is out of reach
        self._is_reachable: bool | None = None  # what was said; None before the first look
        self._change = threading.Lock()
        self._looked = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="limits", daemon=True)

    def window(self, name: str, limit: Limit) -> LimitStore:
        """The windows of that name, of which each client has one."""
        return _ValkeyStore(self, name, limit, self._clock)

    def start(self) -> None:
        """Connects, and goes on to look after the server. One that is out of reach is no error."""
        self._thread.start()
        self._looked.wait(START_PATIENCE)

    def close(self) -> None:
        """Counts locally from now on. Does not wait for a look that is under way."""
        self._stopping.set()
        with self._change:
            connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()

    def hit(self, key: str, *arguments: int) -> Decision | None:
        """Counts in the server; None if it is out of reach, known at once or after PATIENCE."""
        connections = self._connections
        if connections is None:
            return None
        try:
            return _evaluate(connections, key, *arguments, patience=self._patience)
        except Exception as error:  # noqa: BLE001 - no call fails because of the store
            self._lose(connections, error)
            return None

    def _run(self) -> None:
        while True:
            self._look()
            self._looked.set()
            if self._stopping.wait(self._interval):
                return

    def _look(self) -> None:
        """Connects, or sees whether the connections still do what calls want of them."""
        connections, fresh = self._connections, None
        try:
            if connections is not None:
                # With more patience than calls have: what keeps nobody waiting is no outage.
                _evaluate(connections, f"{_KEY}:look", 1, 1, patience=CONNECT_TIMEOUT)
                return
            fresh = Connections(self._server)
            _evaluate(fresh, f"{_KEY}:look", 1, 1, patience=self._patience)
        except Exception as error:  # noqa: BLE001 - whatever it is, calls would meet it too
            if fresh is not None:
                fresh.close()
            self._lose(connections, error)
        else:
            self._gain(fresh)

    def _gain(self, connections: Connections) -> None:
        with self._change:
            if self._stopping.is_set():
                connections.close()
                return
            self._connections = connections
            if self._is_reachable is False:
                _log.info("rate_limit_store_reachable")
            self._is_reachable = True
            self._meters.limit_store_changed(is_reachable=True)

    def _lose(self, connections: Connections | None, error: Exception) -> None:
        with self._change:
            if self._connections is not connections or self._stopping.is_set():
                return  # another call was first, and new ones may be there already
            self._connections = None
            if self._is_reachable is not False:
                self._is_reachable = False
                _log.error("rate_limit_store_unreachable", error=kind_of(_cause(error)))
                self._meters.limit_store_changed(is_reachable=False)
        if connections is not None:
            connections.close()


class _ValkeyStore:
    """One limit. Keeps local windows of the same size for when the server is out of reach."""

    def __init__(
        self, windows: ValkeyWindows, name: str, limit: Limit, clock: Callable[[], int] | None
    ) -> None:
        self.limit: Final = limit
        self._windows = windows
        self._key = f"{_KEY}:{name}"
        self._clock = clock
        # Upwards: a period cut short would admit too early.
        self._period = -(-limit.period_ns // _MICROSECOND)
        self._local = MemoryStore(limit, clock=clock or time.monotonic_ns)

    def hit(self, client: str) -> Decision:
        digest = hashlib.blake2b(client.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_SIZE)
        arguments = [self.limit.calls, self._period]
        if self._clock is not None:
            arguments.append(self._clock() // _MICROSECOND)
        decision = self._windows.hit(f"{self._key}:{digest.hexdigest()}", *arguments)
        return self._local.hit(client) if decision is None else decision


def _evaluate(connections: Connections, key: str, *arguments: int, patience: float) -> Decision:
    remaining, reset, retry = connections.evaluate(_WINDOW, key, *arguments, patience=patience)
    return Decision(remaining >= 0, max(remaining, 0), reset * _MICROSECOND, retry * _MICROSECOND)


def _cause(error: Exception) -> BaseException:
    """What the client wrapped: a certificate that was refused, a name that is not known."""
    if error.__suppress_context__ or error.__context__ is None:
        return error
    return error.__context__
