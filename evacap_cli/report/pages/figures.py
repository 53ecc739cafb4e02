"""Figures as SVG: histograms, line charts, interval charts, stacked bars. Colours are CSS classes of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from evacap_cli.report.pages.model import Figure, Table

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 34, 14, 10, 36  # margins of the plot; the left one is wider for long labels
COLOURS = 6  # that the CSS has, s0 to s5
BINS = 24
BAR, GAP = 16, 8
ROW, SIDE = 40, 20  # height of a row of an interval chart, and its margin left and right
CHARACTER_WIDTH = 6.4  # average width of a character of a label
DIGIT_WIDTH = 7.6  # width of a digit of a label


@dataclass(frozen=True)
class Line:
    """points: (x, y, low, high); low and high are NaN without an interval. dashed: for numbers of the paper."""

    name: str
    points: Sequence[tuple[float, float, float, float]]
    dashed: bool = False
    colour: int | None = None


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval and the value that the paper prints. low, high, paper: NaN if unknown."""

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    paper: float = math.nan
    colour: int | None = None


def histogram(
    title: str, values: Sequence[float], low: float | None = None, high: float | None = None
) -> Figure | None:
    """The distribution of values from low to high (by default, their minimum and maximum). None without values."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return None
    low = min(values) if low is None else low
    high = max(values) if high is None else high
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, max(0, int((value - low) / (high - low) * BINS)))] += 1
    plot = _Plot(low, high, 0, max(counts), title, "clips", whole=True)
    title = f"Distribution of {title}"
    step = (high - low) / BINS
    bars = [
        f'<rect class="s0" x="{plot.x(low + i * step) + 0.5:.1f}" y="{plot.y(n):.1f}" '
        f'width="{plot.x(low + step) - plot.x(low) - 1:.1f}" height="{plot.y(0) - plot.y(n):.1f}">'
        f"<title>{low + i * step:.3g} to {low + (i + 1) * step:.3g}: {n}</title></rect>"
        for i, n in enumerate(counts)
        if n
    ]
    rows = [[f"{low + i * step:.4g}", f"{low + (i + 1) * step:.4g}", str(n)] for i, n in enumerate(counts)]
    return Figure(title, plot.svg(bars), (), Table(title, ("from", "to", "clips"), rows))


def line_chart(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], top: float | None = None
) -> Figure | None:
    """Lines with intervals as bands. top: the vertical axis includes this value. None if no line has a point."""
    lines = [
        replace(line, points=[point for point in line.points if all(map(math.isfinite, point[:2]))])
        for line in lines
    ]
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    xs = [point[0] for line in lines for point in line.points]
    low, high = _y_range(lines)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    low = 0.0 if 0 <= low < (high - low) * 2 else low - room
    whole_x = all(x == int(x) for x in xs)
    shown = "" if y_label == title else y_label  # the title says the same
    high = max(high + room, top or -math.inf)
    plot = _Plot(min(xs), max(xs), low, high, x_label, shown, whole_x=whole_x)
    parts, legend, rows = [], [], []
    for i, line in enumerate(lines):
        name = f"s{(i if line.colour is None else line.colour) % COLOURS}"
        between = [
            (x, max(a, low), min(b, high))
            for x, _, a, b in line.points
            if math.isfinite(a) and math.isfinite(b)
        ]
        if len(between) > 1:
            edge = [(x, b) for x, _, b in between] + [(x, a) for x, a, _ in reversed(between)]
            parts.append(f'<polygon class="{name} band" points="{plot.points(edge)}"/>')
        at = [(x, y) for x, y, _, _ in line.points]
        look = f"{name} line dashed" if line.dashed else f"{name} line"
        parts.append(f'<polyline class="{look}" points="{plot.points(at)}"/>')
        if len(at) <= 40:
            parts += [
                f'<circle class="{name}" cx="{plot.x(x):.1f}" cy="{plot.y(y):.1f}" r="3">'
                f"<title>{escape(line.name)}: {x:g}, {y:.4g}</title></circle>"
                for x, y in at
            ]
        if len(lines) > 1 or line.name != title:  # the title says the same
            legend.append((line.name, look))
        rows += [[line.name, f"{x:g}", *map(_cell, rest)] for x, *rest in line.points]
    table = Table(title, ("line", x_label, y_label, "low", "high"), rows)
    return Figure(title, plot.svg(parts, f"{title} by {x_label}"), legend, table)


def interval_chart(
    title: str, label: str, intervals: Sequence[Interval], mark: float | None = None
) -> Figure | None:
    """A row for each value with its 95 % interval and the paper's value. mark: a reference value, drawn as a dashed
    line. None without values."""
    intervals = [each for each in intervals if math.isfinite(each.value)]
    if not intervals:
        return None
    numbers = [n for i in intervals for n in (i.value, i.low, i.high, i.paper) if math.isfinite(n)]
    low, high = min([*numbers, *([] if mark is None else [mark])]), max(numbers)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    low, high = low - room, high + room
    bottom = len(intervals) * ROW + 4

    def x(value: float) -> float:
        return SIDE + (value - low) / (high - low) * (WIDTH - 2 * SIDE)

    drawn, rows = [], []
    for value in ticks(low, high, 6):
        drawn.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="0" y2="{bottom}"/>')
        drawn.append(f'<text class="middle" x="{x(value):.1f}" y="{bottom + 15}">{value:g}</text>')
    drawn.append(f'<text class="middle" x="{WIDTH / 2}" y="{bottom + 32}">{escape(label)}</text>')
    if mark is not None:
        drawn.append(f'<line class="s5 dashed" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="0" y2="{bottom}"/>')
    for i, each in enumerate(intervals):
        colour = f"s{(i if each.colour is None else each.colour) % COLOURS}"
        y = i * ROW + 24
        between = math.isfinite(each.low) and math.isfinite(each.high)
        drawn.append(_text(each.name, 0, y - 11, WIDTH - 60))
        drawn.append(f'<text class="end" x="{WIDTH}" y="{y - 11}">{each.value:.3f}</text>')
        if between:
            drawn.append(
                f'<line class="{colour} whisker" x1="{x(each.low):.1f}" x2="{x(each.high):.1f}" y1="{y}" y2="{y}"/>'
            )
        text = f"{each.name}: {each.value:.4g}" + (f" ({each.low:.4g} to {each.high:.4g})" if between else "")
        drawn.append(
            f'<circle class="{colour}" cx="{x(each.value):.1f}" cy="{y}" r="4.5"><title>{escape(text)}</title></circle>'
        )
        if math.isfinite(each.paper):
            at = x(each.paper)
            drawn.append(
                f'<path class="paper" d="M{at - 5:.1f} {y}l5 -5l5 5l-5 5z">'
                f"<title>{escape(each.name)}, paper: {each.paper:.4g}</title></path>"
            )
        rows.append([each.name, *(_cell(value) for value in (each.value, each.low, each.high, each.paper))])
    legend = [("paper", "paper")] if any(math.isfinite(each.paper) for each in intervals) else []
    table = Table(title, ("name", label, "low", "high", "paper"), rows)
    return Figure(title, _svg(f"{title}: {label}", drawn, bottom + 38), legend, table)


def stacked_bars(
    title: str, unit: str, bars: Sequence[tuple[str, Sequence[tuple[str, float]]]]
) -> Figure | None:
    """Horizontal bars, (name, (part, value) ...) each. None without bars."""
    bars = [bar for bar in bars if bar[1]]
    if not bars:
        return None
    parts = list(dict.fromkeys(name for _, values in bars for name, _ in values))
    longest = max(sum(value for _, value in values) for _, values in bars) or 1.0
    drawn, rows = [], []
    for i, (name, values) in enumerate(bars):
        top = i * (BAR * 2 + GAP)
        total = sum(value for _, value in values)
        drawn.append(_text(name, 0, top + 11, WIDTH - 70))
        drawn.append(f'<text class="end" x="{WIDTH}" y="{top + 11}">{total:.3g} {escape(unit)}</text>')
        left = 0.0
        for part, value in values:
            width = value / longest * WIDTH
            drawn.append(
                f'<rect class="s{parts.index(part) % COLOURS}" x="{left:.1f}" y="{top + BAR}" width="{width:.1f}" '
                f'height="{BAR}"><title>{escape(part)}: {value:.4g} {escape(unit)}</title></rect>'
            )
            left += width
            rows.append([name, part, f"{value:.6g}"])
    height = len(bars) * (BAR * 2 + GAP)
    legend = [(part, f"s{i % COLOURS}") for i, part in enumerate(parts)]
    return Figure(title, _svg(title, drawn, height), legend, Table(title, ("bar", "part", unit), rows))


class _Plot:
    """Axes with ticks, and the coordinates of values on them."""

    def __init__(
        self,
        x_low: float,
        x_high: float,
        y_low: float,
        y_high: float,
        x_label: str,
        y_label: str,
        whole: bool = False,
        whole_x: bool = False,
    ) -> None:
        if x_high <= x_low:
            x_low, x_high = x_low - 0.5, x_high + 0.5
        if y_high <= y_low:
            y_high = y_low + 1
        self.x_low, self.x_high, self.y_low, self.y_high = x_low, x_high, y_low, y_high
        self.x_label, self.y_label = x_label, y_label
        self.x_ticks = ticks(x_low, x_high, 6, whole_x)
        self.y_ticks = ticks(y_low, y_high, 4, whole)
        widest = max((len(f"{value:g}") for value in self.y_ticks), default=1)
        self.left = max(LEFT, round(widest * DIGIT_WIDTH) + 8 + (18 if y_label else 0))

    def x(self, value: float) -> float:
        return self.left + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - self.left - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - BOTTOM - TOP)

    def points(self, values: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in values)

    def svg(self, parts: Sequence[str], label: str = "") -> Markup:
        axes = []
        for value in self.y_ticks:
            y = self.y(value)
            axes.append(
                f'<line class="grid" x1="{self.left}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            axes.append(f'<text class="end" x="{self.left - 6}" y="{y + 4:.1f}">{value:g}</text>')
        for value in self.x_ticks:
            axes.append(
                f'<text class="middle" x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 15}">{value:g}</text>'
            )
        axes.append(
            f'<text class="middle" x="{(self.left + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}">{escape(self.x_label)}</text>'
        )
        if self.y_label:
            axes.append(
                f'<text class="middle" transform="translate(10 {(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)">'
                f"{escape(self.y_label)}</text>"
            )
        return _svg(label or f"{self.y_label} by {self.x_label}", [*axes, *parts], HEIGHT)


def ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Round numbers from low to high, at most `most` + 1."""
    raw = (high - low) / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * (1 - 1e-9))
    step = max(1.0, math.ceil(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _y_range(lines: Sequence[Line]) -> tuple[float, float]:
    """The range of all values and intervals. An interval is cut where it would make the differences between the values
    invisible; the table of the figure has its ends."""
    values = [y for line in lines for _, y, _, _ in line.points]
    low, high = min(values), max(values)
    most = max(high - low, abs(high), abs(low))
    ends = [y for line in lines for point in line.points for y in point[2:] if math.isfinite(y)]
    return max(min([low, *ends]), low - most), min(max([high, *ends]), high + most)


def _cell(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _text(text: str, x: float, y: float, room: float) -> str:
    """A label in `room` pixels. A longer text is shortened in the middle, and its title is the whole text."""
    fits = max(8, int(room / CHARACTER_WIDTH))
    title = ""
    if len(text) > fits:
        half = (fits - 1) // 2
        title, text = f"<title>{escape(text)}</title>", f"{text[:half]}…{text[-half:]}"
    return f'<text class="name" x="{x:g}" y="{y:g}">{escape(text)}{title}</text>'


def _svg(label: str, parts: Sequence[str], height: float) -> Markup:
    """`parts` is SVG made of numbers and escaped names."""
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
