"""`make faults`: breaks what the service stands on, and counts what is lost or doubled."""

import argparse
import logging
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, TypeVar

import structlog

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

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    # Parts of the service that run in this process have nothing to tell.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    names = [name for name in SCENARIOS if any(part in name for part in given.only)]
    if not names:
        return _complain(f"no scenario is named so; there are: {'; '.join(SCENARIOS)}")
    print(f"seed {given.seed}: {'; '.join(names)}", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what was started, as Ctrl-C does
    figures = _run(names, given.seed, is_short=given.short)
    table = render(figures)
    print(table)
    if given.markdown:
        given.markdown.write_text(table + "\n")
    return int(not all(figure.is_right for _, figure in figures))


def _run(names: Sequence[str], seed: int, *, is_short: bool) -> list[tuple[str, Figure]]:
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {what}", file=sys.stderr, flush=True)

    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults")))
        conclusions = []
        for number, name in enumerate(names):
            say(name)
            folder = root / str(number)
            folder.mkdir()
            bench = Bench(folder, Random(f"{seed} {name}"), is_short, stack, say)
            begin = partial(SCENARIOS[name], bench)
            conclusions.append((name, _attempt(begin, otherwise=_broken)))
        say("what is left")
        return [
            (name, figure)
            for name, conclude in conclusions
            for figure in _attempt(lambda: list(conclude()), otherwise=_BROKEN)  # noqa: B023
        ]


def _broken() -> Iterable[Figure]:
    return _BROKEN


def _attempt(work: Callable[[], T], *, otherwise: T) -> T:
    """A scenario that breaks loses its own figures, and not those of the others."""
    try:
        return work()
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        return otherwise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few rounds, under five minutes")
    parser.add_argument(
        "--seed",
        type=int,
        default=random.SystemRandom().getrandbits(32),
        help="a number that chooses the moments; printed at the start, another one each time",
    )
    parser.add_argument(
        "--only", metavar="PART", nargs="+", default=[""], help="scenarios with that in their name"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    return parser


def _complain(why: str) -> int:
    print(f"faults: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
