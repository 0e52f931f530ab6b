"""Fakes at our own Protocols, and a clock that only moves when told."""

from datetime import UTC, datetime, timedelta

from identity.mail.sender import Mail

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class FakeClock:
    """A wall clock and a monotonic clock that move together."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed = timedelta()

    def advance(self, **duration: float) -> None:
        """Moves time on, by the arguments of a timedelta."""
        self._elapsed += timedelta(**duration)

    def now(self) -> datetime:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Seconds."""
        return self._elapsed.total_seconds()

    def monotonic_ns(self) -> int:
        return self._elapsed // timedelta(microseconds=1) * 1000


class RecordingSender:
    """A Sender that keeps what it is given; `failures` are raised first, one a mail."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.mails: list[Mail] = []
        self.closed = 0

    def send(self, mail: Mail) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.mails.append(mail)

    def close(self) -> None:
        self.closed += 1
