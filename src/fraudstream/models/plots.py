"""Plots as SVG text: axes, lines, bars and points, drawn here so that a report needs no plotting library and no network.

Colours and fonts come from the page's style sheet by class name (`c1`, `c2`, `muted`), so that dark mode works.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from fraudstream.core.windows import FloatArray

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 46
# More points than this are not seen in a plot 450 units wide, but weigh in the page.
POINTS_MAX = 400

Ticks = Sequence[tuple[float, str]]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`; `scale` turns a value into a length (identity, log10, log-odds)."""

    low: float
    high: float
    ticks: Ticks
    title: str
    scale: Callable[[float], float] = float

    def at(self, value: float) -> float:
        """Where a value lies, 0 (low) to 1 (high), held inside."""
        low, high = self.scale(self.low), self.scale(self.high)
        inside = min(max(value, self.low), self.high)
        return (self.scale(inside) - low) / (high - low) if high > low else 0.0


def share_axis(title: str) -> Axis:
    """0 to 1, in fifths."""
    return Axis(0.0, 1.0, [(at / 5, f"{at / 5:g}") for at in range(6)], title)


def count_axis(high: float, title: str) -> Axis:
    """0 to a round number not below `high`."""
    step = _round_step(max(high, 1.0) / 4)
    top = step * math.ceil(max(high, 1.0) / step)
    return Axis(0.0, top, [(at, f"{at:,g}") for at in np.arange(0.0, top + step / 2, step).tolist()], title)


def log_axis(low: float, high: float, title: str) -> Axis:
    """From `low` to the power of ten at or above `high`, marked at powers of ten; both above 0."""
    last = math.ceil(math.log10(max(high, low * 10)))
    marks = [(10.0**at, f"{10.0**at:,.10g}") for at in range(math.ceil(math.log10(low)), last + 1)]
    return Axis(low, 10.0**last, marks, title, math.log10)


def odds_axis(title: str) -> Axis:
    """Probabilities from one in ten thousand to its complement, evenly in log-odds."""
    marks = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
    return Axis(0.0001, 0.9995, [(p, f"{p:g}") for p in marks], title, lambda p: math.log(p / (1 - p)))


class Plot:
    """One plot, built up and then rendered."""

    def __init__(self, x: Axis, y: Axis, label: str) -> None:
        self._x, self._y = x, y
        self._label = label
        self._parts: list[str] = []
        self._legend: list[tuple[str, str]] = []

    def line(self, points: Points, css: str, name: str = "", *, steps: bool = False) -> "Plot":
        """A line through points in order; `steps` keeps the earlier value until the next."""
        if not points:
            return self
        (x, y), rest = points[0], points[1:]
        path = [f"M{self._px(x)} {self._py(y)}"]
        for x, y in rest:
            path.append(f"H{self._px(x)}V{self._py(y)}" if steps else f"L{self._px(x)} {self._py(y)}")
        self._parts.append(f'<path class="line {css}" d="{"".join(path)}"/>')
        return self._named(css, name)

    def bars(
        self, lefts: Sequence[float], rights: Sequence[float], heights: Sequence[float], css: str, name: str
    ) -> "Plot":
        """A bar between each left and right; heights at or below the axis are left out."""
        floor = TOP + self._inner_height
        for left, right, height in zip(lefts, rights, heights, strict=True):
            if height > self._y.low:
                x, y = self._px(left), self._py(height)
                width = max(self._px(right) - x - 0.5, 0.5)
                self._parts.append(
                    f'<rect class="bar {css}" x="{x}" y="{y}" width="{width:.1f}" height="{floor - y:.1f}">'
                    f"<title>{height:,g}</title></rect>"
                )
        return self._named(css, name)

    def dots(self, points: Points, css: str, titles: Sequence[str], name: str = "") -> "Plot":
        """Points, each with a text that shows when it is pointed at."""
        for (x, y), title in zip(points, titles, strict=True):
            self._parts.append(
                f'<circle class="dot {css}" cx="{self._px(x)}" cy="{self._py(y)}" r="4"><title>{escape(title)}</title>'
                "</circle>"
            )
        return self._named(css, name)

    def spans(self, spans: Sequence[tuple[float, float, float]], css: str) -> "Plot":
        """Vertical bars of uncertainty: (x, low, high)."""
        for x, low, high in spans:
            self._parts.append(f'<path class="span {css}" d="M{self._px(x)} {self._py(low)}V{self._py(high)}"/>')
        return self

    def svg(self) -> str:
        """Render it."""
        floor, wall = TOP + self._inner_height, LEFT + self._inner_width
        parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self._label)}">']
        for value, text in self._x.ticks:
            x = self._px(value)
            parts.append(f'<path class="grid" d="M{x} {TOP}V{floor}"/>')
            parts.append(f'<text class="tick" x="{x}" y="{floor + 16}" text-anchor="middle">{escape(text)}</text>')
        for value, text in self._y.ticks:
            y = self._py(value)
            parts.append(f'<path class="grid" d="M{LEFT} {y}H{wall}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        middle = (LEFT + wall) / 2
        parts.append(
            f'<text class="axis" x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(self._x.title)}</text>'
        )
        parts.append(
            f'<text class="axis" transform="translate(14 {(TOP + floor) / 2}) rotate(-90)" text-anchor="middle">'
            f"{escape(self._y.title)}</text>"
        )
        parts += self._parts
        parts.append("</svg>")
        return "".join(parts) + self._legend_html()

    @property
    def _inner_width(self) -> int:
        return WIDTH - LEFT - RIGHT

    @property
    def _inner_height(self) -> int:
        return HEIGHT - TOP - BOTTOM

    def _px(self, value: float) -> float:
        return round(LEFT + self._x.at(value) * self._inner_width, 1)

    def _py(self, value: float) -> float:
        return round(TOP + (1.0 - self._y.at(value)) * self._inner_height, 1)

    def _named(self, css: str, name: str) -> "Plot":
        if name:
            self._legend.append((css, name))
        return self

    def _legend_html(self) -> str:
        entries = "".join(f'<span><i class="{css}"></i>{escape(name)}</span>' for css, name in self._legend)
        return f'<div class="legend">{entries}</div>' if entries else ""


def thinned(x: FloatArray, y: FloatArray) -> list[tuple[float, float]]:
    """At most some hundred points of a line, evenly along it as drawn, its ends among them."""
    if len(x) > POINTS_MAX:
        way = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(x)) / _extent(x) + np.abs(np.diff(y)) / _extent(y))))
        chosen = np.unique(np.searchsorted(way, np.linspace(0.0, way[-1], POINTS_MAX)))
        chosen = np.unique(np.concatenate(([0], chosen[chosen < len(x)], [len(x) - 1])))
        x, y = x[chosen], y[chosen]
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _extent(values: FloatArray) -> float:
    return float(values.max() - values.min()) or 1.0


def _round_step(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= value)
