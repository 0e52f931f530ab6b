"""`make faults`: breaks what the service stands on, and counts what is lost or doubled."""

import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from tests import suite
from tests.faults.bench import Bench, Scenario
from tests.faults.clocks import clock_on_postgres, clock_on_sqlite
from tests.faults.deliveries import deliveries_on_postgres, deliveries_on_sqlite
from tests.faults.failover import failover
from tests.faults.floods import floods
from tests.faults.interrupted import interruptions_on_postgres, interruptions_on_sqlite
from tests.faults.kills import kills_on_postgres, kills_on_sqlite
from tests.faults.limits import limits
from tests.faults.outages import outages_of_postgres, outages_of_sqlite
from tests.faults.races import races_on_postgres, races_on_sqlite
from tests.faults.table import Figure, render
from tests.faults.workers import workers

SCENARIOS: Final[dict[str, Scenario]] = {
    "kills, SQLite": kills_on_sqlite,
    "kills, PostgreSQL": kills_on_postgres,
    "workers": workers,
    "failover": failover,
    "outages of PostgreSQL": outages_of_postgres,
    "outages of SQLite, disk, mail": outages_of_sqlite,
    "deliveries, SQLite": deliveries_on_sqlite,
    "deliveries, PostgreSQL": deliveries_on_postgres,
    "races, SQLite": races_on_sqlite,
    "races, PostgreSQL": races_on_postgres,
    "clock set by 10 minutes, SQLite": clock_on_sqlite,
    "clock set by 10 minutes, PostgreSQL": clock_on_postgres,
    "interrupted Register, SQLite": interruptions_on_sqlite,
    "interrupted Register, PostgreSQL": interruptions_on_postgres,
    "limits in Valkey": limits,
    "floods": floods,
}


_BROKEN: Final = [Figure("the scenario itself", "broke off", "", is_right=False)]


def main(arguments: Sequence[str] | None = None) -> int:
    given = suite.begin(suite.parser("faults", __doc__), SCENARIOS, arguments)
    figures = _run(given.names, given.seed, is_short=given.short)
    table = render(figures)
    print(table)
    if given.markdown:
        given.markdown.write_text(table + "\n")
    wrong = [(name, figure) for name, figure in figures if not figure.is_right]
    if wrong:
        # Once more and last: of a long log the end is what everybody sees.
        print(f"\n{len(wrong)} of {len(figures)} are wrong, with seed {given.seed}:")
        print(render(wrong))
    return int(bool(wrong))


def _run(names: Sequence[str], seed: int, *, is_short: bool) -> list[tuple[str, Figure]]:
    say = suite.teller()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults")))
        conclusions = []
        for number, name in enumerate(names):
            say(name)
            folder = root / str(number)
            folder.mkdir()
            bench = Bench(folder, Random(f"{seed} {name}"), is_short, stack, say)
            begin = partial(SCENARIOS[name], bench)
            conclusions.append((name, suite.attempt(begin, otherwise=_broken)))
        say("what is left")
        return [
            (name, figure)
            for name, conclude in conclusions
            for figure in suite.attempt(lambda: list(conclude()), otherwise=_BROKEN)  # noqa: B023
        ]


def _broken() -> Iterable[Figure]:
    return _BROKEN


if __name__ == "__main__":
    sys.exit(main())
