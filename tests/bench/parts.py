"""Where a journey's time goes: each of its parts by itself, in this process, by one thread."""

import itertools
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Final

from identity.mail.smtp import SmtpSender, SmtpServer, SmtpTls
from identity.security.passwords import hash_password
from tests.bench.bench import Bench
from tests.bench.calls import AT_ONCE, unsigned
from tests.bench.chain import all_interceptors, logged
from tests.bench.figures import Figure, told
from tests.bench.people import People, token_of
from tests.bench.services import COST, Services, checked
from tests.bench.stopwatch import Stopwatch
from tests.requests import PASSWORD

TIMES: Final = 100  # a round and a part
TIMES_SHORT: Final = 20
_CALLS_A_JOURNEY: Final = 2
_PARTS: Final = ("gRPC", "interceptors", "validation", "hash", "SQL", "commit", "service", "mail")


def parts(bench: Bench) -> Iterable[Figure]:
    """Shares of the sum of all parts, in percent."""
    journey = _Journey(bench, bench.size(TIMES, TIMES_SHORT))
    with logged(bench):
        rounds = [journey.measured() for _ in range(bench.rounds)]
    for part in _PARTS:
        shares = [100 * found[part] / sum(found.values()) for found in rounds]
        yield told(f"of a journey's work: {part}", shares, " %")
    yield told(
        "a journey's work, all parts", [sum(found.values()) * 1000 for found in rounds], " ms"
    )


class _Journey:
    """Seconds of each part of one journey; waits for the database and the mail server count."""

    def __init__(self, bench: Bench, times: int) -> None:
        self._bench = bench
        self._times = times
        self._people = People(bench.postgres)
        self._services = bench.stack.enter_context(closing(Services(self._people.url)))
        self._stopwatch = Stopwatch(self._services.database.engine)
        self._interceptors = all_interceptors()
        self._empty = bench.start("tests.bench.empty")
        self._endpoint = self._empty.listening()
        self._names = itertools.count()
        sender = SmtpSender(
            SmtpServer("127.0.0.1", bench.sink.port, SmtpTls.NONE),
            "bench@example.com",
            ssl.create_default_context(),
        )
        self._deliverer = self._services.deliverer(sender)

    def measured(self) -> dict[str, float]:
        validation = self._each(lambda: checked(self._name()))
        hashing = self._each(lambda: hash_password(PASSWORD, COST))
        people = iter(self._people.add(self._times))
        self._stopwatch.reset()
        calls = self._each(lambda: self._services.register(self._name()))
        calls += self._each(lambda: self._services.verify(token_of(next(people))))
        sql, commit = (
            seconds / self._times
            for seconds in (self._stopwatch.statements, self._stopwatch.commits)
        )
        return {
            "gRPC": self._grpc() * _CALLS_A_JOURNEY,
            "interceptors": self._interceptors(self._times) / 1e6 * _CALLS_A_JOURNEY,
            "validation": validation,
            "hash": hashing,
            "SQL": sql,
            "commit": commit,
            "service": max(0.0, calls - validation - hashing - sql - commit),
            "mail": self._mail(),
        }

    def _grpc(self) -> float:
        """The work of a bare server for an empty call."""
        before = self._empty.cpu()
        calls = self._times * 20  # the system counts in hundredths of a second
        self._bench.generators.run(unsigned(self._endpoint, calls, AT_ONCE))
        return (self._empty.cpu() - before) / calls

    def _mail(self) -> float:
        """From the queue to the note that it is sent; those of the Registers above."""
        begun, sent = time.perf_counter(), 0
        while delivered := self._deliverer.deliver_due():
            sent += delivered
        return (time.perf_counter() - begun) / sent

    def _each(self, call: Callable[[], object]) -> float:
        begun = time.perf_counter()
        for _ in range(self._times):
            call()
        return (time.perf_counter() - begun) / self._times

    def _name(self) -> str:
        return f"part{next(self._names)}"
