"""Several processes count calls in one Valkey server, which dies in the middle."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from typing import Final

from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.crowd import at_once
from tests.faults.bench import Bench, Conclude
from tests.faults.nodes import Node, channel_to, nodes
from tests.faults.postgres import postgres_server, url_of
from tests.faults.table import Figure, at_least, exactly, only, told
from tests.requests import verification
from tests.valkey import Valkey

PROCESSES: Final = 4
LIMIT: Final = 100
CALLS: Final = 200
ROUNDS: Final = 20
ROUNDS_SHORT: Final = 6
KILLS: Final = 10
KILLS_SHORT: Final = 3
CALLERS: Final = 8
_DEADLINE: Final = 20.0  # seconds
_REFUSED: Final = "RESOURCE_EXHAUSTED RATE_LIMITED"
_ADMITTED: Final = "INVALID_ARGUMENT TOKEN_INVALID"  # what every admitted call meets


def limits(bench: Bench) -> Conclude:
    figures = [*_exact(bench), *_without(bench)]
    return lambda: figures


def _exact(bench: Bench) -> Iterator[Figure]:
    """Calls at once, spread over all processes: the limit is one."""
    url = url_of(bench.stack.enter_context(postgres_server()))
    with Valkey(bench.folder) as server:
        crowd = nodes(
            bench.stack,
            bench.folder / "exact",
            url,
            1,
            PROCESSES,
            RATE_LIMIT=f"{LIMIT}/60s",
            RATE_LIMIT_STORE=f"valkey://127.0.0.1:{server.port}",
        )
        for node in crowd:
            node.start()
        stubs = [IdentityServiceStub(bench.stack.enter_context(channel_to(node))) for node in crowd]
        rounds: list[_Round] = []
        for _ in range(bench.rounds(ROUNDS, ROUNDS_SHORT)):
            begun = datetime.now(UTC)
            outcomes = at_once([partial(_call, stubs[n % PROCESSES]) for n in range(CALLS)])
            rounds.append(_Round(begun, datetime.now(UTC), outcomes))
            with server.client() as client:
                client.flushall()  # as a minute's waiting would
        for node in crowd:
            node.stop()
    lost = [absence for node in crowd for absence in _absences(node)]
    whole = [each for each in rounds if not any(each.meets(*absence) for absence in lost)]
    right = sum(each.outcomes.count(_ADMITTED) == LIMIT for each in whole)
    outcomes = [outcome for each in rounds for outcome in each.outcomes]
    what = f"{CALLS} calls at once on {PROCESSES} processes"
    yield at_least(f"{what}: rounds in which all had the store", len(whole), 1)
    yield exactly(f"{what}: of these, exactly {LIMIT} passed in", right, len(whole))
    yield only(f"{what}: answers", outcomes, _ADMITTED, _REFUSED)
    # On a machine too busy to answer in 40 ms: then each counts by itself, as it should.
    yield told("times that a process lost the store", len(lost))


@dataclass(frozen=True)
class _Round:
    begun: datetime
    ended: datetime
    outcomes: list[str]

    def meets(self, since: datetime, until: datetime) -> bool:
        return self.begun <= until and since <= self.ended


def _absences(node: Node) -> Iterator[tuple[datetime, datetime]]:
    """From when to when a process that has ended was without the store."""
    lost = node.events("rate_limit_store_unreachable")
    found = node.events("rate_limit_store_reachable")
    for since, until in zip_longest(lost, found):
        end = datetime.fromisoformat(until["time"]) if until else datetime.max.replace(tzinfo=UTC)
        yield datetime.fromisoformat(since["time"]), end


def _without(bench: Bench) -> Iterator[Figure]:
    """The server is killed and started again under load."""
    url = url_of(bench.stack.enter_context(postgres_server()))
    with Valkey(bench.folder) as server:
        pair = nodes(
            bench.stack,
            bench.folder / "without",
            url,
            1,
            2,
            RATE_LIMIT_STORE=f"valkey://127.0.0.1:{server.port}",
        )
        for node in pair:
            node.start()
        stubs = [IdentityServiceStub(bench.stack.enter_context(channel_to(node))) for node in pair]
        ending, rest = threading.Event(), threading.Event()
        outcomes: list[str] = []

        def load(stub: IdentityServiceStub) -> None:
            while not ending.is_set():
                outcomes.extend(at_once([partial(_call, stub)]))

        callers = [threading.Thread(target=load, args=(stubs[n % 2],)) for n in range(CALLERS)]
        for caller in callers:
            caller.start()
        kills = bench.rounds(KILLS, KILLS_SHORT)
        for _ in range(kills):
            rest.wait(bench.random.uniform(0.2, 1))
            server.kill()
            for node in pair:
                node.wait_for("rate_limit_store_unreachable")
            rest.wait(bench.random.uniform(0, 1))
            server.start()
            for node in pair:
                node.wait_for("rate_limit_store_reachable")
        ending.set()
        for caller in callers:
            caller.join()
        for node in pair:
            node.stop()
    what = "killed and restarted under load"
    yield at_least(f"{what}: calls meanwhile", len(outcomes), kills)
    yield only(f"{what}: how they ended", outcomes, _ADMITTED)
    unforeseen = [line for node in pair for line in node.events("unforeseen", "job_failed")]
    yield exactly("unforeseen errors in the log", len(unforeseen), 0)


def _call(stub: IdentityServiceStub) -> None:
    stub.VerifyEmail(verification("x"), timeout=_DEADLINE)
