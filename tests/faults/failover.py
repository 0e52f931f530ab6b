"""The primary dies under load, and its synchronous standby takes over."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.faults.bench import Bench, Conclude
from tests.faults.ledger import settle
from tests.faults.load import Load, Person
from tests.faults.nodes import channel_to, nodes
from tests.faults.postgres import PostgresServer, primary_and_standby, url_of
from tests.faults.sink import Sink
from tests.faults.table import Figure, at_least, below, exactly, only

ROUNDS: Final = 10
ROUNDS_SHORT: Final = 1
_BEFORE: Final = 2.0  # seconds of load before the primary dies
_LONGEST_GAP: Final = 2.0  # seconds until the standby is promoted
_ANSWER: Final = 10.0  # seconds after the promotion until both processes must have answered
_AFTER: Final = 2.0  # seconds of load after that
_DRAIN: Final = 120.0  # seconds; a lease is one minute


def failover(bench: Bench) -> Conclude:
    conclusions = [_Failover(bench, number) for number in range(bench.rounds(ROUNDS, ROUNDS_SHORT))]
    for number, one in enumerate(conclusions):
        one.run()
        bench.say(f"round {number + 1}")
    return lambda: _worst([list(one.conclude()) for one in conclusions])


class _Failover:
    """One primary that dies; its standby and the service go on until the conclusion."""

    def __init__(self, bench: Bench, number: int) -> None:
        self._bench = bench
        self._number = number

    def run(self) -> None:
        stack = self._bench.stack
        self._sink = stack.enter_context(Sink())
        primary, self._standby = stack.enter_context(primary_and_standby())
        self._pair = nodes(
            stack,
            self._bench.folder / str(self._number),
            url_of(primary, self._standby),
            self._sink.port,
            2,
        )
        for node in self._pair:
            node.start()
        pids = [node.pid for node in self._pair]
        channels = [stack.enter_context(channel_to(node)) for node in self._pair]
        # Each process has a load of its own, so that each must answer again.
        self._loads = [Load([channel], self._bench.random.getrandbits(32)) for channel in channels]
        self._seconds = self._fail_over(primary, self._standby, self._loads)
        for load in self._loads:
            load.stop()
        self._restarts = sum(node.pid != pid for node, pid in zip(self._pair, pids, strict=True))

    def _fail_over(
        self, primary: PostgresServer, standby: PostgresServer, loads: Sequence[Load]
    ) -> float:
        """Seconds from the promotion until both loads are answered."""
        rest = threading.Event()
        for load in loads:
            load.start()
        rest.wait(_BEFORE)
        primary.kill()
        rest.wait(self._bench.random.uniform(0, _LONGEST_GAP))
        self._acknowledged_before = sum(len(load.acknowledged()) for load in loads)
        answered = [threading.Event() for _ in loads]
        standby.promote()
        promoted = time.monotonic()
        for load, event in zip(loads, answered, strict=True):
            load.on_acknowledged(event.set)
        for event in answered:
            event.wait(_ANSWER)
        seconds = time.monotonic() - promoted
        rest.wait(_AFTER)
        return seconds

    def conclude(self) -> Iterator[Figure]:
        people = self._people()
        self._sink.wait_for(len(people), _DRAIN)
        for node in self._pair:
            node.stop()
        failures = [failure for load in self._loads for failure in load.failures()]
        yield at_least("registrations before the primary died", self._acknowledged_before, 1)
        yield below("from the promotion until both processes answer", self._seconds, _ANSWER)
        yield exactly("processes started again", self._restarts, 0)
        yield at_least("calls that failed", len(failures), 1)
        yield only("how they failed", failures, "UNAVAILABLE DATABASE_UNAVAILABLE")
        yield from settle(url_of(self._standby), people, self._sink)
        unforeseen = [line for node in self._pair for line in node.events("unforeseen")]
        yield exactly("unforeseen errors in the log", len(unforeseen), 0)

    def _people(self) -> list[Person]:
        return [person for load in self._loads for person in load.acknowledged()]


def _worst(rounds: Sequence[Sequence[Figure]]) -> list[Figure]:
    """Of each figure the worst of all rounds: a wrong one, or else that of the first."""
    worst = []
    for figures in zip(*rounds, strict=True):
        wrong = [figure for figure in figures if not figure.is_right]
        worst.append((wrong or list(figures))[0])
    return [exactly("rounds", len(rounds), len(rounds)), *worst]
