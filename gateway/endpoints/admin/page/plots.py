"""
The geometry of plots; the templates draw it as SVG.

A plot is ``WIDTH`` by ``HEIGHT`` and is stretched to its place. Its labels are text
beside it, so they keep their size in a narrow window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH = 1000.0
HEIGHT = 100.0
GAP = 0.18  # of the width of a bar, between two
MAX_SERIES = 6
OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Series:
    """
    One name's values, one for each label; None where there is none.

    Attributes:
        style: its class in the style sheet.
    """

    name: str
    values: Sequence[float | None]
    style: str = ""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a bar; *title* says what it stands for."""

    x: float
    y: float
    width: float
    height: float
    style: str
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """*points* as SVG writes them, one text for each unbroken part."""

    points: Sequence[str]
    dots: Sequence[tuple[float, float]]
    style: str


@dataclass(frozen=True, slots=True)
class Plot:
    """
    Attributes:
        top: the value at the upper edge.
        labels: of the x axis, all of them.
        legend: (style, name).
    """

    top: float
    labels: Sequence[str]
    legend: Sequence[tuple[str, str]]
    rectangles: Sequence[Rectangle] = field(default_factory=list)
    lines: Sequence[Line] = field(default_factory=list)

    @property
    def shown_labels(self) -> Sequence[str]:
        """The first, the middle and the last."""
        if len(self.labels) < 3:
            return self.labels
        return self.labels[0], self.labels[len(self.labels) // 2], self.labels[-1]


def stacked_bars(labels: Sequence[str], series: Sequence[Series]) -> Plot:
    """A bar for each label; a series beyond ``MAX_SERIES`` joins the others."""
    series = styled(merged(series), "s")
    sums = [math.fsum(s.values[at] or 0 for s in series) for at in range(len(labels))]
    top = nice_top(max(sums, default=0))
    step = WIDTH / max(1, len(labels))
    rectangles = []
    for at, label in enumerate(labels):
        y = HEIGHT
        for one in series:
            if value := one.values[at]:
                height = value / top * HEIGHT
                y -= height
                title = f"{label}: {one.name} {value:,.6g}".replace(",", "\u202f")
                x, width = step * (at + GAP / 2), step * (1 - GAP)
                rectangles.append(Rectangle(x, y, width, height, one.style, title))
    legend = [(one.style, one.name) for one in series]
    return Plot(top, labels, legend, rectangles)


def lines(labels: Sequence[str], series: Sequence[Series]) -> Plot:
    """A line for each series, broken where there is no value."""
    series = styled(series[:4], "l")
    values = [value for one in series for value in one.values if value is not None]
    top = nice_top(max(values, default=0))
    step = WIDTH / max(1, len(labels))
    drawn = []
    for one in series:
        parts: list[list[tuple[float, float]]] = [[]]
        for at, value in enumerate(one.values):
            if value is None:
                parts.append([])
            else:
                parts[-1].append((step * (at + 0.5), HEIGHT * (1 - value / top)))
        points = [_points(part) for part in parts if len(part) > 1]
        dots = [part[0] for part in parts if len(part) == 1]
        drawn.append(Line(points, dots, one.style))
    return Plot(top, labels, [(one.style, one.name) for one in series], lines=drawn)


def merged(series: Sequence[Series]) -> Sequence[Series]:
    """The largest of *series*, and the sum of the others."""
    if len(series) <= MAX_SERIES:
        return series
    ordered = sorted(
        series, key=lambda one: -math.fsum(value or 0 for value in one.values)
    )
    kept, rest = ordered[: MAX_SERIES - 1], ordered[MAX_SERIES - 1 :]
    sums = [math.fsum(v or 0 for v in at) for at in zip(*(one.values for one in rest))]
    return [*kept, Series(OTHERS, sums)]


def styled(series: Sequence[Series], prefix: str) -> Sequence[Series]:
    """*series*, each with a style of its own."""
    return [
        one if one.style else Series(one.name, one.values, f"{prefix}{at}")
        for at, one in enumerate(series)
    ]


def nice_top(value: float) -> float:
    """The least of 1, 2, 5, 10, 20, … (or 0.5, 0.2, …) that is not below *value*."""
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    for factor in (1, 2, 5, 10):
        if value <= factor * power * (1 + 1e-9):
            return factor * power
    return 10 * power


def _points(part: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.2f}" for x, y in part)
