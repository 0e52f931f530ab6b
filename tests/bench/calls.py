"""VerifyEmail against the empty RPC, without SQL and with it; two workers against one."""

import itertools
from collections.abc import Iterable
from typing import Final

from identity.v1.identity_pb2 import VerifyEmailRequest
from tests.bench.bench import Bench
from tests.bench.figures import Figure, interleaved, ratios, reached, told
from tests.bench.loads import Load
from tests.bench.people import People, token_of
from tests.bench.programs import Program
from tests.valkey import Valkey

AT_ONCE: Final = 16
CALLS: Final = 4_000
FRESH: Final = 1_500  # each takes a person who is written for it
CALLS_SHORT: Final = 200
_UNSIGNED: Final = [VerifyEmailRequest(token="x" * 64)]
_addresses: Final = (f"172.16.{a}.{b}" for a, b in itertools.product(range(256), range(256)))


def unsigned(endpoint: str, calls: int, at_once: int) -> Load:
    """Calls that are refused before any SQL, all of one client: another one with each load."""
    return Load(endpoint, "VerifyEmail", _UNSIGNED, calls, at_once, client=next(_addresses))


def unknown(number: int) -> list[VerifyEmailRequest]:
    """Tokens of nobody, each another: for servers that do not look."""
    return [VerifyEmailRequest(token=token_of(-count)) for count in range(number)]


def verify(bench: Bench) -> Iterable[Figure]:
    """The service without SQL, with SQL, and nothing at all, in turn."""
    calls, fresh = bench.size(CALLS, CALLS_SHORT), bench.size(FRESH, CALLS_SHORT)
    people = People(bench.postgres)
    service, empty = bench.service(people.url), bench.start("tests.bench.empty")
    there, nowhere = service.listening(), empty.listening()

    def ask_simply(server: Program, endpoint: str, name: str) -> float:
        return bench.run(name, unsigned(endpoint, calls, AT_ONCE), server).per_second

    def ask_freshly(server: Program, endpoint: str, name: str) -> float:
        requests = people.fresh(fresh) if server is service else unknown(fresh)
        people.settle()
        load = Load(endpoint, "VerifyEmail", requests, fresh, AT_ONCE)
        return bench.run(name, load, server).expect("OK").per_second

    bench.generators.run(unsigned(there, CALLS_SHORT, AT_ONCE))
    bench.generators.run(Load(there, "VerifyEmail", people.fresh(100), 100, AT_ONCE)).expect("OK")
    rates = interleaved(
        bench.rounds,
        lambda: ask_simply(service, there, "VerifyEmail, unsigned"),
        lambda: ask_simply(empty, nowhere, "empty, one request"),
        lambda: ask_freshly(service, there, "VerifyEmail, fresh"),
        lambda: ask_freshly(empty, nowhere, "empty, every request another"),
    )
    yield reached("unsigned", ratios(rates[0], rates[1]))
    yield reached("fresh", ratios(rates[2], rates[3]))
    yield told("VerifyEmail, unsigned token", rates[0], "/s")
    yield told("empty, one request over and over", rates[1], "/s")
    yield told("VerifyEmail, fresh tokens", rates[2], "/s")
    yield told("empty, every request another", rates[3], "/s")


def workers(bench: Bench) -> Iterable[Figure]:
    """One process and two, over one Valkey server."""
    calls = bench.size(CALLS, CALLS_SHORT)
    people = People(bench.postgres)
    valkey = bench.stack.enter_context(Valkey(bench.folder))
    store = f"valkey://127.0.0.1:{valkey.port}"
    one = bench.service(people.url, RATE_LIMIT_STORE=store)
    two = bench.service(people.url, RATE_LIMIT_STORE=store, WORKERS="2")
    there, here = one.listening(), two.listening()
    for endpoint in (there, here):
        bench.generators.run(unsigned(endpoint, CALLS_SHORT, AT_ONCE))
    rates = interleaved(
        bench.rounds,
        lambda: bench.run("one worker", unsigned(there, calls, AT_ONCE), one).per_second,
        lambda: bench.run("two workers", unsigned(here, calls, AT_ONCE), two).per_second,
    )
    yield reached("workers", ratios(rates[1], rates[0]))
    yield told("VerifyEmail, unsigned, one process with Valkey", rates[0], "/s")
    yield told("the same, two workers", rates[1], "/s")
