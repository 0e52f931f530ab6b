"""How much time a call has left."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from identity.errors import DeadlineTooShort


@dataclass(frozen=True)
class Deadline:
    """A moment on a monotonic clock after which nobody waits for the answer any more."""

    at: float = math.inf
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(
        cls, seconds: float | None, clock: Callable[[], float] = time.monotonic
    ) -> "Deadline":
        """The deadline `seconds` from now; None is none at all."""
        return cls(math.inf if seconds is None else clock() + seconds, clock)

    def remaining(self) -> float:
        """Seconds left, never negative; infinite without a deadline."""
        return max(0.0, self.at - self.clock())

    def check(self) -> None:
        """Raises DeadlineTooShort once the deadline has passed."""
        if self.remaining() <= 0:
            raise DeadlineTooShort
