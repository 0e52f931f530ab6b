"""The wall clock, as far as it can be believed."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

# A clock that was ahead by more was wrong, and the correction is believed.
LONGEST_HOLD: Final = timedelta(hours=1)


def utc_now() -> datetime:
    """The machine's wall clock."""
    return datetime.now(UTC)


class SteadyClock:
    """The wall clock, but while it is set back this goes on at the pace of the monotonic clock.

    What has lapsed stays lapsed, and no wait grows. It meets the wall clock again when that has
    caught up. A wall clock that is set forward is followed.
    """

    def __init__(
        self,
        wall: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last = wall()
        self._ticks = monotonic()

    def now(self) -> datetime:
        """The moment, in UTC. Never earlier than one that was given before, but for a correction
        of more than LONGEST_HOLD."""
        with self._lock:
            wall, ticks = self._wall(), self._monotonic()
            steady = self._last + timedelta(seconds=ticks - self._ticks)
            is_set_back = wall < steady <= wall + LONGEST_HOLD
            self._last = steady if is_set_back else wall
            self._ticks = ticks
            return self._last
