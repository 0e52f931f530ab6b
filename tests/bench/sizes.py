"""What the same calls cost on a table of a million people."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Final

from tests.bench.bench import Bench, Line, Plot
from tests.bench.figures import Figure, ratios, reached, told
from tests.bench.people import People, token_of
from tests.bench.services import Services

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
SIZES_SHORT: Final = (1_000, 2_000)
TIMES: Final = 60  # each, a round
TIMES_SHORT: Final = 5
CLAIMED: Final = 20  # mails at once, as the deliverer does
CLAIMS: Final = 10
_MILLISECONDS: Final = 1e3


class Sized:
    """A database of so many people, and calls on it."""

    def __init__(self, bench: Bench, size: int) -> None:
        self._times = bench.size(TIMES, TIMES_SHORT)
        self._people = People(bench.postgres)
        self._services = bench.stack.enter_context(closing(Services(self._people.url)))
        # From all over the table, and nobody twice.
        self._numbers = iter(bench.random.sample(self._people.add(size), min(size, 1_000)))
        self._names = itertools.count()
        self._people.add(CLAIMED * (bench.rounds + 1) * CLAIMS, is_due=True)
        self._people.settle()

    def verify(self) -> Callable[[], object]:
        number = self._next()
        return lambda: self._services.verify(token_of(number))

    def register(self) -> Callable[[], object]:
        name = f"new{next(self._names)}"
        return lambda: self._services.register(name)

    def status(self) -> Callable[[], object]:
        number = self._next()
        return lambda: self._services.status(f"u{number}@example.com")

    def claim(self) -> Callable[[], object]:
        return lambda: self._services.outbox.claim(CLAIMED)

    def measured(self) -> dict[str, float]:
        """Milliseconds of each call, the median of a round."""
        return {
            "VerifyEmail": _median(self.verify, self._times),
            "Register": _median(self.register, self._times),
            "claim": _median(self.claim, CLAIMS),
            "status": _median(self.status, self._times),
        }

    def _next(self) -> int:
        return next(self._numbers)


def sizes(bench: Bench) -> Iterable[Figure]:
    """The same calls on tables of four sizes, in turn."""
    wanted = SIZES_SHORT if bench.is_short else SIZES
    tables = {}
    for size in wanted:
        bench.say(f"sizes: writes {size:,} people")
        tables[size] = Sized(bench, size)
    for table in tables.values():
        table.measured()  # plans, caches
    rounds = [
        {size: table.measured() for size, table in tables.items()} for _ in range(bench.rounds)
    ]
    lines = []
    for call in rounds[0][wanted[0]]:
        by_size = {size: [found[size][call] for found in rounds] for size in wanted}
        what = f"{call}, time with {wanted[-1]:,} users over {wanted[0]:,}"
        yield reached(f"size {call}", ratios(by_size[wanted[-1]], by_size[wanted[0]]), what=what)
        yield told(f"{call} with {wanted[-1]:,} users", by_size[wanted[-1]], " ms")
        lines.append(
            Line(call, [(size, statistics.median(found)) for size, found in by_size.items()])
        )
    bench.plots.append(Plot("bench-sizes.svg", "Cost over table size", "users", "ms", lines))


def _median(prepare: Callable[[], Callable[[], object]], times: int) -> float:
    return statistics.median(_timed(prepare) for _ in range(times))


def _timed(prepare: Callable[[], Callable[[], object]]) -> float:
    call = prepare()
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * _MILLISECONDS
