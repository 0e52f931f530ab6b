"""The report: what was measured, against what is wanted, and on what."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from tests.bench import machine
from tests.bench.bench import Bench, Plot
from tests.bench.figures import Figure, plain, table, written
from tests.bench.targets import TARGETS

_PARTS: Final = ("server", "generator", "PostgreSQL", "mail server", "idle")
_INFORMED: Final = ("what", "median", "min .. max")


def page(bench: Bench, figures: Sequence[Figure], load_before: float) -> str:
    """Markdown."""
    wanted = [figure for figure in figures if figure.target]
    others = [figure for figure in figures if not figure.target]
    parts = [
        _machine(bench, load_before),
        table([figure.row(TARGETS[figure.target]) for figure in wanted]),
        "For information, and what the ratios are made of:",
        table([figure.row(None)[:1] + figure.row(None)[2:4] for figure in others], _INFORMED),
    ]
    if bench.shares:
        parts += ["Work of each process during the loads, in cores:", _shares(bench.shares)]
    parts += [section for plot in bench.plots for section in _points(plot)]
    return "\n\n".join(parts)


def _machine(bench: Bench, load_before: float) -> str:
    generators = bench.generators
    return "\n".join(
        f"- {line}"
        for line in (
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {'short' if bench.is_short else 'full'} form",
            f"{bench.rounds} rounds of each, interleaved with their references",
            *machine.described(),
            f"PostgreSQL {bench.postgres.execute('SHOW server_version')[0][0]}",
            f"load generator for one request over and over: {generators.constant.name}",
            f"load generator for the rest: {generators.distinct.name}; for journeys, Python",
            f"processes that wanted a core before it began: {load_before:.1f}",
        )
    )


def _shares(shares: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    rows = []
    for name, rounds in shares.items():
        cells = [
            written(statistics.median(one[part] for one in rounds)) if part in rounds[0] else ""
            for part in _PARTS
        ]
        rows.append((name, *cells))
    return table(rows, ("load", *_PARTS))


def _points(plot: Plot) -> Iterator[str]:
    yield f"{plot.title} ({plot.y}):"
    head = (plot.x, *(plain(x) for x, _ in plot.lines[0].points))
    yield table([(line.name, *(written(y) for _, y in line.points)) for line in plot.lines], head)
