"""Registers at the real cost: whether anything but the hash takes time, and who waits for it."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from identity.security.passwords import hash_password
from tests.bench.bench import Bench
from tests.bench.calls import unsigned
from tests.bench.figures import Figure, interleaved, ratios, reached, told
from tests.bench.loads import Load
from tests.bench.machine import cores
from tests.bench.people import People
from tests.requests import PASSWORD

COST: Final = 12
AT_ONCE: Final = 16
# So many that the start and the end of a round, when not all cores hash, hardly count.
REGISTERS: Final = 96
REGISTERS_SHORT: Final = 4
CROWD: Final = 64  # Registers at once
LIGHT_CALLS: Final = 400
LIGHT_CALLS_SHORT: Final = 30
# A tenth of what the service could answer: whoever waits here waits for the hashes.
LIGHT_PER_SECOND: Final = 100
_LIGHT_AT_ONCE: Final = 4


def registers(bench: Bench) -> Iterable[Figure]:
    """Registers against bare hashes on all cores, in turn."""
    number = bench.size(REGISTERS, REGISTERS_SHORT)
    people = People(bench.postgres)
    service = bench.service(people.url, BCRYPT_COST=str(COST))
    endpoint = service.listening()

    def register() -> float:
        load = Load(endpoint, "Register", people.newcomers(number), number, AT_ONCE)
        return bench.run("Register, cost 12", load, service).expect("OK").per_second

    rates = interleaved(bench.rounds, register, lambda: _bare(number))
    yield reached("hashes", ratios(*rates))
    yield told("Register at cost 12", rates[0], "/s")
    yield told("bare hashes at cost 12 on all cores", rates[1], "/s")


def _bare(number: int) -> float:
    with ThreadPoolExecutor(cores()) as pool:
        begun = time.perf_counter()
        list(pool.map(lambda _: hash_password(PASSWORD, COST), range(number)))
        return number / (time.perf_counter() - begun)


def light_calls(bench: Bench) -> Iterable[Figure]:
    """Calls without SQL at a steady rate: beside nothing, and beside a crowd that hashes."""
    calls = bench.size(LIGHT_CALLS, LIGHT_CALLS_SHORT)
    crowd = bench.size(CROWD, CROWD // 8)
    people = People(bench.postgres)
    service = bench.service(people.url, BCRYPT_COST=str(COST))
    endpoint = service.listening()

    def ask(name: str) -> float:
        requests = unsigned(endpoint, calls, _LIGHT_AT_ONCE).requests
        load = Load(endpoint, "VerifyEmail", requests, calls, _LIGHT_AT_ONCE, LIGHT_PER_SECOND)
        return bench.run(name, load, service).expect("InvalidArgument").percentile(99) * 1000

    refused: list[float] = []

    def ask_beside_hashes() -> float:
        load = Load(endpoint, "Register", people.newcomers(crowd), crowd, crowd)
        with ThreadPoolExecutor(1) as pool:
            registered = pool.submit(bench.generators.run, load)
            slowest = ask("light calls beside hashes")
            codes = registered.result().codes
        # On a machine with other work the last of a crowd come too late.
        assert set(codes) <= {"OK", "ResourceExhausted", "DeadlineExceeded"}, codes
        refused.append(sum(codes.values()) - codes.get("OK", 0))
        return slowest

    ask("light calls, warm-up")
    p99 = interleaved(bench.rounds, lambda: ask("light calls, idle"), ask_beside_hashes)
    what = f"light calls' p99 while {crowd} Registers hash, over idle"
    yield reached("light", ratios(p99[1], p99[0]), what=what)
    yield told("light calls' p99, idle", p99[0], " ms")
    yield told(f"light calls' p99, {crowd} Registers hashing", p99[1], " ms")
    yield told("of these Registers refused, because they would have waited too long", refused)
