"""What the commands that run scenarios, `make faults` and `make bench`, have in common."""

import argparse
import logging
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

T = TypeVar("T")


def parser(command: str, about: str | None) -> argparse.ArgumentParser:
    """The arguments that every such command takes."""
    made = argparse.ArgumentParser(prog=f"make {command}", description=about)
    made.add_argument("--short", action="store_true", help="few rounds: shows that all works")
    made.add_argument(
        "--seed",
        type=int,
        default=random.SystemRandom().getrandbits(32),
        help="a number that chance follows; printed at the start, another one each time",
    )
    made.add_argument(
        "--only", metavar="PART", nargs="+", default=[""], help="scenarios with that in their name"
    )
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there too")
    return made


def begin(
    parser: argparse.ArgumentParser, scenarios: Iterable[str], arguments: Sequence[str] | None
) -> argparse.Namespace:
    """What was given, with the `names` of the scenarios that were chosen; readies the process."""
    known = list(scenarios)
    given = parser.parse_args(arguments)
    given.names = [name for name in known if any(part in name for part in given.only)]
    if not given.names:
        parser.error(f"no scenario is named so; there are: {'; '.join(known)}")
    print(f"seed {given.seed}: {'; '.join(given.names)}", file=sys.stderr)
    # Parts of the service that run in this process have nothing to tell.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what was started, as Ctrl-C does
    return given


def teller() -> Callable[[str], None]:
    """Says what goes on, and how long after the start."""
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {what}", file=sys.stderr, flush=True)

    return say


def attempt(work: Callable[[], T], *, otherwise: T) -> T:
    """A scenario that breaks loses its own figures, and not those of the others."""
    try:
        return work()
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        return otherwise
