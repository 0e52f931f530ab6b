"""`make bench`: how fast the service is, against references measured in the same run."""

import math
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

from tests import suite
from tests.bench import machine
from tests.bench.bench import Bench, Scenario
from tests.bench.calls import verify, workers
from tests.bench.chain import interceptors
from tests.bench.concurrency import concurrency, statements
from tests.bench.drawing import draw
from tests.bench.figures import Figure
from tests.bench.generators import Generators
from tests.bench.hashing import light_calls, registers
from tests.bench.journeys import journeys
from tests.bench.mails import mails
from tests.bench.page import page
from tests.bench.parts import parts
from tests.bench.sink import Sink
from tests.bench.sizes import sizes
from tests.bench.start import memory, start
from tests.bench.targets import TARGETS
from tests.faults.postgres import postgres_server

SCENARIOS: Final[dict[str, Scenario]] = {
    "registers": registers,
    "light calls": light_calls,
    "journeys": journeys,
    "parts of a journey": parts,
    "VerifyEmail": verify,
    "interceptors": interceptors,
    "workers": workers,
    "mails": mails,
    "pgbench": statements,
    "concurrency": concurrency,
    "sizes": sizes,
    "start": start,
    "memory": memory,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = suite.parser("bench", __doc__)
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write plots there, as SVG")
    given = suite.begin(parser, SCENARIOS, arguments)
    load = machine.load()
    with ExitStack() as stack:
        bench = _bench(stack, given.seed, is_short=given.short)
        figures = [figure for name in given.names for figure in _measured(bench, name, given.seed)]
        report = page(bench, figures, load)
    print(report)
    if given.markdown:
        given.markdown.write_text(report + "\n")
    if given.plots:
        for plot in bench.plots:
            (given.plots / plot.file).write_text(draw(plot))
    absent = _absent(bench, figures, given.names)
    if absent:
        print(f"bench: not measured: {', '.join(absent)}", file=sys.stderr)
    return 2 if absent else 0


def _bench(stack: ExitStack, seed: int, *, is_short: bool) -> Bench:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
    return Bench(
        folder,
        Random(seed),
        is_short,
        stack,
        suite.teller(),
        stack.enter_context(postgres_server()),
        stack.enter_context(Sink(folder / "sink.log")),
        Generators(),
    )


def _measured(bench: Bench, name: str, seed: int) -> list[Figure]:
    bench.say(name)
    folder = bench.folder / name.replace(" ", "-")
    folder.mkdir()

    def measure() -> list[Figure]:
        with ExitStack() as stack:
            own = replace(bench, folder=folder, random=Random(f"{seed} {name}"), stack=stack)
            # Told as they come: whatever breaks later, they were not measured for nothing.
            return [_told(bench, figure) for figure in SCENARIOS[name](own)]

    return suite.attempt(measure, otherwise=[Figure("", name, (math.nan,))])


def _told(bench: Bench, figure: Figure) -> Figure:
    what, _, median, spread, verdict = figure.row(TARGETS.get(figure.target))
    bench.say(f"  {what}: {median} ({spread}) {verdict}")
    return figure


def _absent(bench: Bench, figures: Sequence[Figure], names: Sequence[str]) -> list[str]:
    """What should have been measured, and was not."""
    found = {figure.target for figure in figures}
    absent = [figure.what or figure.target for figure in figures if not figure.is_whole()]
    if names == list(SCENARIOS):
        absent += [target.what for name, target in TARGETS.items() if name not in found]
    for plot in bench.plots:
        points = [value for line in plot.lines for _, value in line.points]
        if not points or not all(math.isfinite(value) and value > 0 for value in points):
            absent.append(plot.title)
    return absent


if __name__ == "__main__":
    sys.exit(main())
