"""Charts as SVG, made on the server: curves by step, and bars by time.

Colours come from the style sheet by class, so that they follow light, dark and forced colours; what tells two series
apart without colour is an attribute. A chart is an image to a screen reader: its title and description say what it
shows, and a table beside it has the figures (`Chart.rows`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 640.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 16.0, 34.0, 44.0
TICKS = 5
# Beyond it a figure is drawn at the edge: a loss that has exploded must not flatten the rest to a line.
GREATEST = 1e12
# The second series is dashed and the third dotted, for who sees no colours.
DASHES = ("", "6 4", "2 3", "8 3 2 3")
CHARACTER = 7.0  # about as wide as one of the legend's
SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))

Figure = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A named series of (x, y), by x upwards."""

    name: str
    points: Sequence[Figure]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart; `id` is unique in its page. `x_end`: how far the x axis goes at least."""

    id: str
    title: str
    x_name: str
    series: Sequence[Series]
    x_end: float | None = None
    y_from_zero: bool = False
    x_label: Callable[[float], str] | None = None

    @property
    def description(self) -> str:
        """What the chart shows, in a sentence a series."""
        return " ".join(_sentence(one) for one in self.series)

    def rows(self) -> list[tuple[str, list[str]]]:
        """Return the figures as rows of a table: x, and each series' figure or nothing."""
        by_x = [dict(one.points) for one in self.series]
        label = self.x_label or number
        return [
            (label(x), [number(of[x]) if x in of else "" for of in by_x])
            for x in sorted(set().union(*by_x))
        ]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart with its SVG, whose texts are escaped."""

    chart: Chart
    svg: str


def lines(chart: Chart) -> Drawn:
    """Draw curves; a lone point is a dot."""
    return Drawn(chart, _drawing(chart, _curves))


def bars(chart: Chart) -> Drawn:
    """Draw bars, those of one x beside each other."""
    return Drawn(chart, _drawing(chart, _columns))


def number(value: float) -> str:
    """Return a figure in few characters: up to four digits, thousands with a letter."""
    if not math.isfinite(value):
        return str(value)
    for size, suffix in SUFFIXES:
        if abs(value) >= max(size, 10_000):
            return f"{value / size:.4g} {suffix}"
    return f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class _Axis:
    """A scale from values to one coordinate, with round values to mark."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _drawing(chart: Chart, draw: Callable[[Chart, _Axis, _Axis], Iterator[str]]) -> str:
    xs = [x for one in chart.series for x, _ in one.points]
    ys = [_bounded(y) for one in chart.series for _, y in one.points if math.isfinite(y)]
    y_ticks = _ticks(min(ys, default=0.0), max(ys, default=1.0), is_from_zero=chart.y_from_zero)
    low, high = (
        min(xs, default=0.0),
        max([*xs, *([chart.x_end] if chart.x_end else [])], default=1.0),
    )
    half = 0.0
    if draw is _columns:
        half = min((b - a for a, b in pairwise(sorted(set(xs)))), default=1.0) / 2
    x_axis = _Axis(
        low - half, high + half if high + half > low - half else low + 1, LEFT, WIDTH - RIGHT
    )
    y_axis = _Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    name, described = escape(f"{chart.id}-title"), escape(f"{chart.id}-description")
    size = f"0 0 {WIDTH:g} {HEIGHT:g}"
    return "\n".join(
        [
            f'<svg class="chart" viewBox="{size}" role="img" aria-labelledby="{name} {described}">',
            f'<title id="{name}">{escape(chart.title)}</title>',
            f'<desc id="{described}">{escape(chart.description)}</desc>',
            *_y_marks(y_axis, y_ticks),
            *_x_marks(x_axis, chart, low, high),
            *_legend(chart.series),
            *draw(chart, x_axis, y_axis),
            "</svg>",
        ]
    )


def _curves(chart: Chart, x_axis: _Axis, y_axis: _Axis) -> Iterator[str]:
    for n, one in enumerate(chart.series):
        drawn = [(x_axis.at(x), y_axis.at(_bounded(y))) for x, y in one.points if math.isfinite(y)]
        if len(drawn) == 1:
            [(x, y)] = drawn
            yield f'<circle class="dot series-{n + 1}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
        elif drawn:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
            yield f'<polyline class="line series-{n + 1}"{_dashed(n)} fill="none" points="{points}"/>'


def _columns(chart: Chart, x_axis: _Axis, y_axis: _Axis) -> Iterator[str]:
    places = len({x for one in chart.series for x, _ in one.points})
    share = 0.8 * (x_axis.end - x_axis.start) / max(1, places) / max(1, len(chart.series))
    width = min(share, 24.0)
    bottom = y_axis.at(max(0.0, y_axis.low))
    for n, one in enumerate(chart.series):
        for x, y in one.points:
            if not math.isfinite(y):
                continue
            left = x_axis.at(x) + (n - len(chart.series) / 2) * width
            top = y_axis.at(_bounded(y))
            yield (
                f'<rect class="bar series-{n + 1}" x="{max(left, 0.0):.1f}" y="{min(top, bottom):.1f}"'
                f' width="{width:.1f}" height="{abs(bottom - top):.1f}"/>'
            )


def _y_marks(axis: _Axis, ticks: Sequence[float]) -> Iterator[str]:
    for tick in ticks:
        y = axis.at(tick)
        yield f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield (
            f'<text class="mark" x="{LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(number(tick))}</text>"
        )


def _x_marks(axis: _Axis, chart: Chart, low: float, high: float) -> Iterator[str]:
    label = chart.x_label or number
    bottom = HEIGHT - BOTTOM
    yield f'<line class="axis" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{bottom:g}" y2="{bottom:g}"/>'
    if chart.x_label is None:
        ticks = [tick for tick in _ticks(low, high) if low <= tick <= high] or [low]
    else:
        ticks = sorted({x for one in chart.series for x, _ in one.points})
        ticks = ticks[:: max(1, -(-len(ticks) // TICKS))]
    for tick in ticks:
        yield (
            f'<text class="mark" x="{axis.at(tick):.1f}" y="{bottom + 16:g}" text-anchor="middle">'
            f"{escape(label(tick))}</text>"
        )
    middle = (axis.start + axis.end) / 2
    yield (
        f'<text class="mark" x="{middle:g}" y="{HEIGHT - 8:g}" text-anchor="middle">'
        f"{escape(chart.x_name)}</text>"
    )


def _legend(series: Sequence[Series]) -> Iterator[str]:
    at = LEFT
    for n, one in enumerate(series):
        yield (
            f'<line class="line series-{n + 1}"{_dashed(n)} x1="{at:g}" x2="{at + 22:g}" y1="14" y2="14"/>'
        )
        yield f'<text class="mark" x="{at + 28:g}" y="18">{escape(one.name)}</text>'
        at += 28 + CHARACTER * len(one.name) + 20


def _dashed(n: int) -> str:
    dash = DASHES[n % len(DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _ticks(low: float, high: float, *, is_from_zero: bool = False) -> list[float]:
    """Return round values from below `low` to above `high`, two at least."""
    if is_from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high == 0:
        high = 1.0
    # A span that four digits cannot divide would give the same mark twice.
    span = max(high - low, max(abs(low), abs(high)) * 1e-2, 1e-9)
    raw = span / TICKS
    size = 10.0 ** math.floor(math.log10(raw))
    step = size * next(one for one in (1, 2, 5, 10) if one * size >= raw * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [n * step for n in range(first, max(last, first + 1) + 1)]


def _bounded(value: float) -> float:
    return min(max(value, -GREATEST), GREATEST)


def _sentence(series: Series) -> str:
    values = [y for _, y in series.points if math.isfinite(y)]
    if not values:
        return f"{series.name}: no figures yet."
    first, last = number(values[0]), number(values[-1])
    return f"{series.name}: from {first} to {last}, least {number(min(values))}, greatest {number(max(values))}."
