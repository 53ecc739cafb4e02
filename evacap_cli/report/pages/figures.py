"""Figures as SVG: histograms, lines with intervals, stacked bars. Colours are classes, which the page's CSS paints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from evacap_cli.report.pages.model import Figure, Table

WIDE, HIGH = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 10, 36  # margins of the plot
COLOURS = 6  # that the CSS has, s0 to s5
BINS = 24
BAR, GAP = 16, 8


@dataclass(frozen=True)
class Line:
    """points: (x, y, low, high); low and high are NaN where there is no interval. dashed: for the paper's numbers."""

    name: str
    points: Sequence[tuple[float, float, float, float]]
    dashed: bool = False
    colour: int | None = None


def histogram(
    title: str, values: Sequence[float], low: float | None = None, high: float | None = None
) -> Figure | None:
    """How many values lie where, from low to high (by default, the least and the largest). None without values."""
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
    """Lines with intervals as bands. top: where the vertical axis ends at least. None where no line has a point."""
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    xs = [point[0] for line in lines for point in line.points]
    ys = [y for line in lines for point in line.points for y in point[1:] if math.isfinite(y)]
    low, high = min(ys), max(ys)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    low = 0.0 if 0 <= low < (high - low) * 2 else low - room
    plot = _Plot(min(xs), max(xs), low, max(high + room, top or -math.inf), x_label, y_label)
    parts, legend, rows = [], [], []
    for i, line in enumerate(lines):
        name = f"s{(i if line.colour is None else line.colour) % COLOURS}"
        between = [(x, a, b) for x, _, a, b in line.points if math.isfinite(a) and math.isfinite(b)]
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
        legend.append((line.name, look))
        rows += [
            [line.name, f"{x:g}", *("" if math.isnan(v) else f"{v:.6g}" for v in rest)]
            for x, *rest in line.points
        ]
    table = Table(title, ("line", x_label, y_label, "low", "high"), rows)
    return Figure(title, plot.svg(parts), legend, table)


def stacked_bars(
    title: str, unit: str, bars: Sequence[tuple[str, Sequence[tuple[str, float]]]]
) -> Figure | None:
    """One bar below the other, (name, (part, value) ...) each."""
    bars = [bar for bar in bars if bar[1]]
    if not bars:
        return None
    parts = list(dict.fromkeys(name for _, values in bars for name, _ in values))
    most = max(sum(value for _, value in values) for _, values in bars) or 1.0
    drawn, rows = [], []
    for i, (name, values) in enumerate(bars):
        top = i * (BAR * 2 + GAP)
        total = sum(value for _, value in values)
        drawn.append(f'<text x="0" y="{top + 11}">{escape(name)}: {total:.3g} {escape(unit)}</text>')
        left = 0.0
        for part, value in values:
            width = value / most * WIDE
            drawn.append(
                f'<rect class="s{parts.index(part) % COLOURS}" x="{left:.1f}" y="{top + BAR}" width="{width:.1f}" '
                f'height="{BAR}"><title>{escape(part)}: {value:.4g} {escape(unit)}</title></rect>'
            )
            left += width
            rows.append([name, part, f"{value:.6g}"])
    high = len(bars) * (BAR * 2 + GAP)
    legend = [(part, f"s{i % COLOURS}") for i, part in enumerate(parts)]
    return Figure(title, _svg(title, drawn, high), legend, Table(title, ("bar", "part", unit), rows))


class _Plot:
    """Axes with ticks, from which numbers become places."""

    def __init__(
        self,
        x_low: float,
        x_high: float,
        y_low: float,
        y_high: float,
        x_label: str,
        y_label: str,
        whole: bool = False,
    ) -> None:
        if x_high <= x_low:
            x_low, x_high = x_low - 0.5, x_high + 0.5
        if y_high <= y_low:
            y_high = y_low + 1
        self.x_low, self.x_high, self.y_low, self.y_high = x_low, x_high, y_low, y_high
        self.x_label, self.y_label, self.whole = x_label, y_label, whole

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDE - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HIGH - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HIGH - BOTTOM - TOP)

    def points(self, values: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in values)

    def svg(self, parts: Sequence[str]) -> Markup:
        axes = []
        for value in ticks(self.y_low, self.y_high, 4, self.whole):
            y = self.y(value)
            axes.append(f'<line class="grid" x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            axes.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{value:g}</text>')
        for value in ticks(self.x_low, self.x_high, 6):
            axes.append(
                f'<text class="middle" x="{self.x(value):.1f}" y="{HIGH - BOTTOM + 15}">{value:g}</text>'
            )
        axes.append(
            f'<text class="middle" x="{(LEFT + WIDE - RIGHT) / 2}" y="{HIGH - 4}">{escape(self.x_label)}</text>'
        )
        axes.append(
            f'<text class="middle" transform="translate(10 {(HIGH - BOTTOM + TOP) / 2}) rotate(-90)">'
            f"{escape(self.y_label)}</text>"
        )
        return _svg(f"{self.y_label} by {self.x_label}", [*axes, *parts], HIGH)


def ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Round numbers from low to high, at most `most` + 1 of them."""
    raw = (high - low) / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * (1 - 1e-9))
    step = max(1.0, math.ceil(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _svg(label: str, parts: Sequence[str], high: float) -> Markup:
    """The parts are markup already, made of numbers and escaped names."""
    return Markup(
        f'<svg viewBox="0 0 {WIDE} {high:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
