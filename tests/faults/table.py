"""What the suite found, as one table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_HEAD: Final = ("scenario", "what", "figure", "wanted", "")


@dataclass(frozen=True)
class Figure:
    """One thing that was counted or timed."""

    what: str
    value: str
    wanted: str  # empty where the figure is for information
    is_right: bool


def exactly(what: str, value: int, wanted: int) -> Figure:
    return Figure(what, f"{value:,}", f"{wanted:,}", value == wanted)


def at_least(what: str, value: int, wanted: int) -> Figure:
    """For what makes the other figures mean something: a load, a number of repeats."""
    return Figure(what, f"{value:,}", f"{wanted:,} or more", value >= wanted)


def below(what: str, seconds: float, limit: float) -> Figure:
    return Figure(what, f"{seconds:.1f} s", f"< {limit:g} s", seconds < limit)


def told(what: str, value: int | str) -> Figure:
    """A figure for information."""
    return Figure(what, f"{value:,}" if isinstance(value, int) else value, "", True)


def only(what: str, found: Sequence[str], *wanted: str) -> Figure:
    """Outcomes, of which there may be no others than those wanted."""
    kinds = sorted(set(found))
    return Figure(
        what, ", ".join(kinds) or "none", ", ".join(wanted) or "none", set(kinds) <= set(wanted)
    )


def render(figures: Sequence[tuple[str, Figure]]) -> str:
    """A Markdown table; each row with the name of its scenario."""
    rows = [
        _HEAD,
        *(
            (scenario, figure.what, figure.value, figure.wanted, "" if figure.is_right else "WRONG")
            for scenario, figure in figures
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    head, *others = (_line(row, widths) for row in rows)
    rule = _line(["-" * width for width in widths], widths)
    return "\n".join([head, rule, *others])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"
