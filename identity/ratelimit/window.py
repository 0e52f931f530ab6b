"""The sliding window: a pure function of a clock and a state.

Exact: of all windows of the limit's length, none ever holds more admitted calls than the limit,
whatever the speed at which they come. That takes the moment of every admitted call, eight bytes
each. Moments are whole nanoseconds, so that "waiting exactly as told" has no rounding to lose to.
"""

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final, NamedTuple, Self, TypeAlias

NANOSECONDS: Final = 1_000_000_000

# The moments of the admitted calls, oldest first. Never changed in place: every call makes a new
# array of exactly the size it needs, where append() would allocate ahead. At 100 calls the copy
# costs 0.1 µs; limits of tens of thousands of calls would want a ring.
Moments: TypeAlias = "array[int]"

EMPTY: Final[Moments] = array("q")


@dataclass(frozen=True)
class Limit:
    """At most `calls` calls in any `period_ns` nanoseconds."""

    calls: int
    period_ns: int

    @classmethod
    def per_seconds(cls, calls: int, seconds: float) -> Self:
        return cls(calls, round(seconds * NANOSECONDS))

    def __str__(self) -> str:
        return f"{self.calls} calls in any {self.period_ns / NANOSECONDS:g} seconds"


class Decision(NamedTuple):
    """What became of a call. Times are nanoseconds from the call on."""

    admitted: bool
    remaining: int  # calls left now
    reset_after_ns: int  # until the oldest counted call leaves the window
    retry_after_ns: int  # until a call is admitted again, if none comes before; 0 if admitted


def admit(moments: Moments, limit: Limit, now: int) -> tuple[Decision, Moments]:
    """Counts a call at `now`, or refuses it without counting. `now` must never go back.

    A call leaves the window when it is exactly as old as the period.
    """
    horizon = now - limit.period_ns
    if moments and moments[0] <= horizon:
        moments = moments[bisect_right(moments, horizon) :]
    if len(moments) >= limit.calls:
        wait = moments[0] - horizon
        return Decision(False, 0, wait, wait), moments
    moments = moments + array("q", (now,))
    return Decision(True, limit.calls - len(moments), moments[0] - horizon, 0), moments


def has_run_out(moments: Moments, limit: Limit, now: int) -> bool:
    """Whether every call has left the window, so that forgetting it changes nothing."""
    return not moments or moments[-1] <= now - limit.period_ns
