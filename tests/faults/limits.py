"""Several processes count calls in one Valkey server, which dies in the middle."""

import threading
from collections.abc import Iterator
from functools import partial
from typing import Final

from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.crowd import at_once
from tests.faults.bench import Bench, Conclude
from tests.faults.nodes import channel_to, nodes
from tests.faults.postgres import postgres_server, url_of
from tests.faults.table import Figure, at_least, exactly, only
from tests.requests import verification
from tests.valkey import Valkey

PROCESSES: Final = 4
LIMIT: Final = 100
CALLS: Final = 200
ROUNDS: Final = 20
ROUNDS_SHORT: Final = 3
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
        rounds = bench.rounds(ROUNDS, ROUNDS_SHORT)
        right, outcomes = 0, []
        for _ in range(rounds):
            found = at_once([partial(_call, stubs[n % PROCESSES]) for n in range(CALLS)])
            right += found.count(_ADMITTED) == LIMIT
            outcomes += found
            with server.client() as client:
                client.flushall()  # as a minute's waiting would
        for node in crowd:
            node.stop()
        said = sum(len(node.events("rate_limit_store_unreachable")) for node in crowd)
    what = f"{CALLS} calls at once on {PROCESSES} processes"
    yield exactly(f"{what}: rounds in which exactly {LIMIT} passed", right, rounds)
    yield only(f"{what}: answers", outcomes, _ADMITTED, _REFUSED)
    yield exactly("times that a process lost the store", said, 0)


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
