"""What was measured, and how it stands to what is wanted."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_HEAD: Final = ("what", "target", "median", "min .. max", "")


@dataclass(frozen=True)
class Target:
    """What a figure should be. `unit` follows the number."""

    what: str
    number: float
    is_ceiling: bool = False
    unit: str = ""

    def __str__(self) -> str:
        return f"{'<=' if self.is_ceiling else '>='} {plain(self.number)}{self.unit}"

    def verdict(self, figure: float) -> str:
        lack = figure / self.number - 1 if self.is_ceiling else 1 - figure / self.number
        return "met" if lack <= 0 else f"missed by {lack:.0%}"


@dataclass(frozen=True)
class Figure:
    """One number out of several rounds. `target` is its name in TARGETS; empty: for information."""

    target: str
    what: str
    rounds: tuple[float, ...]
    unit: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def is_whole(self) -> bool:
        """Whether every round has given a number."""
        return bool(self.rounds) and all(math.isfinite(one) and one >= 0 for one in self.rounds)

    def row(self, target: Target | None) -> tuple[str, ...]:
        """Cells for `table`; of a figure that is not whole, that it is not."""
        if not self.is_whole():
            return (self.what or self.target, str(target or ""), "not measured", "", "")
        spread = f"{written(min(self.rounds))} .. {written(max(self.rounds))}"
        return (
            self.what or (target.what if target else ""),
            str(target) if target else "",
            f"{written(self.median)}{self.unit}",
            spread if len(self.rounds) > 1 else "",
            target.verdict(self.median) if target else "",
        )


def told(what: str, rounds: Iterable[float], unit: str = "") -> Figure:
    """A figure for information."""
    return Figure("", what, tuple(rounds), unit)


def reached(target: str, rounds: Iterable[float], unit: str = "", what: str = "") -> Figure:
    """A figure that has a target; `what` instead of the target's own words."""
    return Figure(target, what, tuple(rounds), unit)


def ratios(figures: Iterable[float], references: Iterable[float]) -> tuple[float, ...]:
    """Round by round: what a round shares with its reference is not the machine's mood."""
    return tuple(one / other for one, other in zip(figures, references, strict=True))


def interleaved(rounds: int, *measures: Callable[[], float]) -> list[tuple[float, ...]]:
    """A B A B ...: for each of the measures what it gave in each round."""
    found = [[measure() for measure in measures] for _ in range(rounds)]
    return [tuple(row[column] for row in found) for column in range(len(measures))]


def written(number: float) -> str:
    """Three digits are all that such figures are worth."""
    if number == 0 or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.{max(0, 2 - math.floor(math.log10(abs(number))))}f}"


def plain(number: float) -> str:
    """One that somebody chose, such as a place on an axis."""
    return f"{number:,.10g}"


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = _HEAD) -> str:
    """In Markdown."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(_line(row, widths) for row in (head, rule, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"
