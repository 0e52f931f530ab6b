"""An end to waiting for callers."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import grpc

TICK: Final = 0.1  # seconds between two looks at who waits


class Patience:
    """Cancels calls that keep a thread waiting for too long; sooner while many do.

    Those that wait are looked at by the clock: waking a thread with each call would cost more than
    most calls wait.
    """

    def __init__(
        self,
        seconds: float,
        *,
        crowd: int,
        seconds_in_a_crowd: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With more than `crowd` waiting, each may wait for `seconds_in_a_crowd` only."""
        self._seconds = seconds
        self._crowd = crowd
        self._seconds_in_a_crowd = seconds_in_a_crowd
        self._clock = clock
        self._waiting: OrderedDict[int, tuple[float, grpc.ServicerContext]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, context: grpc.ServicerContext) -> None:
        """The call waits from now on, until `end`."""
        since = self._clock()
        with self._lock:
            self._waiting[id(context)] = (since, context)  # which lives for as long

    def end(self, context: grpc.ServicerContext) -> None:
        """It waits no more."""
        with self._lock:
            self._waiting.pop(id(context), None)

    @contextmanager
    def waiting(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Both, around a block."""
        self.begin(context)
        try:
            yield
        finally:
            self.end(context)

    def look(self) -> None:
        """Cancels those whose time is over."""
        with self._lock:  # whoever has ended meanwhile is not cancelled
            now = self._clock()
            while self._waiting:
                key, (since, context) = next(iter(self._waiting.items()))  # the longest
                is_crowded = len(self._waiting) > self._crowd
                if now - since < (self._seconds_in_a_crowd if is_crowded else self._seconds):
                    break
                del self._waiting[key]
                context.cancel()


class Lookout:
    """Looks at all who wait, again and again, in a thread of its own."""

    def __init__(self, *patiences: Patience) -> None:
        self._patiences = patiences
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(TICK):
            for patience in self._patiences:
                patience.look()
