"""What a generator is asked for, and what it found."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from identity.v1.identity_pb2 import RegisterRequest, VerifyEmailRequest

SERVICE: Final = "identity.v1.IdentityService"


@dataclass(frozen=True)
class Load:
    """Calls of one RPC, so many at once, as fast as they are answered."""

    endpoint: str
    rpc: str  # "VerifyEmail"
    requests: Sequence[RegisterRequest | VerifyEmailRequest]  # each in turn
    calls: int
    at_once: int
    per_second: int = 0  # so many calls at most; 0 for as many as are answered
    client: str = ""  # an address; where empty, each call comes from one of 100,000


@dataclass(frozen=True)
class Found:
    """How a load was answered."""

    seconds: float
    latencies: Sequence[float]  # seconds, of the calls in any order
    work: float  # CPU seconds of the generator
    codes: Mapping[str, int] = field(default_factory=dict)  # "OK", "InvalidArgument"; empty: unseen

    @property
    def per_second(self) -> float:
        """Calls, whatever their answer."""
        return len(self.latencies) / self.seconds

    @property
    def successes_per_second(self) -> float:
        return self.codes["OK"] / self.seconds

    def percentile(self, percent: int) -> float:
        """Seconds within which so many of the calls were answered."""
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1]

    def expect(self, code: str) -> "Found":
        """Itself. Raises AssertionError if any call ended otherwise."""
        assert not self.codes or set(self.codes) == {code}, f"calls ended with {self.codes}"
        return self
