"""How much time a call has left."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from identity.errors import DeadlineTooShort


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Deadline:
    """Until when, and whether at all, somebody waits for the answer."""

    at: float = math.inf  # on `clock`, in seconds
    clock: Callable[[], float] = time.monotonic
    is_wanted: Callable[[], bool] = _always  # False once the caller has cancelled

    @classmethod
    def after(
        cls,
        seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
        is_wanted: Callable[[], bool] = _always,
    ) -> Self:
        """The deadline `seconds` from now; None is none at all."""
        return cls(math.inf if seconds is None else clock() + seconds, clock, is_wanted)

    def remaining(self) -> float:
        """Seconds left, never negative; infinite without a deadline."""
        return max(0.0, self.at - self.clock())

    def check(self) -> None:
        """Raises DeadlineTooShort once nobody waits any more."""
        if self.remaining() <= 0 or not self.is_wanted():
            raise DeadlineTooShort
