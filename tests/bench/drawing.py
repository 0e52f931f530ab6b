"""Plots as SVG, in plain text."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from tests.bench.bench import Line, Plot
from tests.bench.figures import plain

_WIDTH: Final = 720  # pixels, as all that follow
_HEIGHT: Final = 400
_LEFT: Final = 70
_RIGHT: Final = 20
_TOP: Final = 40
_BOTTOM: Final = 90
_COLOURS: Final = ("#4269d0", "#e15759", "#3ca951", "#9c6b4e")  # told apart by the colour-blind
_TICKS: Final = 5
_INK: Final = "#57606a"  # readable on light and on dark pages


def draw(plot: Plot) -> str:
    """The whole file. Raises ValueError for values that have no place on a logarithmic axis."""
    xs = sorted({x for line in plot.lines for x, _ in line.points})
    ys = [y for line in plot.lines for _, y in line.points]
    axis = _Axis(ys, is_logarithmic=plot.is_logarithmic)
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(xs) - 1)  # each x is a multiple of the last
    places = {x: _LEFT + step * number for number, x in enumerate(xs)}
    body = [
        *_frame(plot),
        *_horizontal(axis),
        *(_text(place, _HEIGHT - _BOTTOM + 20, plain(x)) for x, place in places.items()),
    ]
    for number, line in enumerate(plot.lines):
        body += _line(number, line, places, axis)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
            f"<style>text {{ font: 12px sans-serif; fill: {_INK}; }}</style>",
            *body,
            "</svg>\n",
        ]
    )


class _Axis:
    """Where a value lies, from the bottom up."""

    def __init__(self, values: Sequence[float], *, is_logarithmic: bool) -> None:
        self._is_logarithmic = is_logarithmic
        if is_logarithmic:
            low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
            self.ticks = [10.0**power for power in range(low, max(high, low + 1) + 1)]
        else:
            step = _round_up(max(values) / _TICKS)
            self.ticks = [step * number for number in range(_TICKS + 1)]

    def place(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self._scaled(self.ticks[0]), self._scaled(self.ticks[-1])
        part = (self._scaled(value) - low) / (high - low)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self._is_logarithmic else value


def _round_up(step: float) -> float:
    """1, 2, 2.5 or 5 with some noughts."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next(power * digit for digit in (1, 2, 2.5, 5, 10) if power * digit >= step)


def _frame(plot: Plot) -> Iterator[str]:
    yield f"<title>{escape(plot.title)}</title>"
    yield _text(_WIDTH / 2, 20, plot.title, 'font-weight="bold"')
    yield _text(_LEFT, _TOP - 8, plot.y)
    yield _text(_WIDTH / 2, _HEIGHT - _BOTTOM + 40, plot.x)


def _horizontal(axis: _Axis) -> Iterator[str]:
    for tick in axis.ticks:
        y = axis.place(tick)
        yield (
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{_INK}" stroke-opacity="0.25"/>'
        )
        yield _text(_LEFT - 8, y + 4, plain(tick), 'text-anchor="end"')


def _line(number: int, line: Line, places: dict[float, float], axis: _Axis) -> Iterator[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    points = [(places[x], axis.place(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    x = _LEFT + number * (_WIDTH - _LEFT - _RIGHT) / len(_COLOURS)
    yield f'<rect x="{x:.1f}" y="{_HEIGHT - 28}" width="12" height="12" fill="{colour}"/>'
    yield _text(x + 18, _HEIGHT - 18, line.name, 'text-anchor="start"')


def _text(x: float, y: float, text: str, more: str = "") -> str:
    anchor = "" if "text-anchor" in more else 'text-anchor="middle" '
    return f'<text x="{x:.1f}" y="{y:.1f}" {anchor}{more}>{escape(text)}</text>'
