"""Drawing in object coordinates: a unit box with x to the right and y down, under an affine transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, exp, pi, sin

from PIL import ImageDraw

from evacap_cli.world.rng import RandomSource

Color = tuple[int, int, int]
Point = tuple[float, float]
INK: Color = (38, 34, 40)
WHITE: Color = (246, 246, 242)
RED: Color = (206, 48, 44)
SKIN: tuple[Color, ...] = ((244, 206, 172), (226, 178, 138), (188, 132, 92), (134, 88, 58), (250, 220, 196))
HAIR: tuple[Color, ...] = ((44, 32, 26), (92, 58, 32), (150, 100, 46), (208, 168, 90), (120, 50, 30))
BRIGHT: tuple[Color, ...] = (
    (206, 54, 50), (40, 98, 178), (46, 140, 84), (232, 178, 44), (128, 74, 156), (228, 122, 44),
    (40, 150, 160),
)  # fmt: skip
_RING = [(cos(2 * pi * k / 28), sin(2 * pi * k / 28)) for k in range(28)]


def shade(color: Color, factor: float) -> Color:
    """Darker (< 1) or lighter (> 1)."""
    if factor <= 1:
        return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))
    keep = 2 - factor
    return tuple(int(255 - (255 - c) * keep) for c in color)  # type: ignore[return-value]


@dataclass(frozen=True)
class Motion:
    """The state of an object at one time: `on` while it sounds, `age` seconds since stroke number `stroke`."""

    t: float
    on: bool
    age: float = 99.0
    stroke: int = -1

    def pulse(self, seconds: float) -> float:
        """1 at a stroke, decaying to 0 over `seconds`."""
        return exp(-self.age / seconds) if self.on else 0.0

    def swing(self, hz: float, offset: float = 0.0) -> float:
        """A sine in [-1, 1], 0 while off."""
        return sin(2 * pi * (hz * self.t + offset)) if self.on else 0.0

    def talk(self, seed: int) -> float:
        """Opening of a speaking mouth in [0, 1]; 0 while off."""
        if not self.on:
            return 0.0
        syllable = abs(sin(pi * 4.3 * self.t + seed)) * (0.65 + 0.35 * sin(2.1 * self.t + seed))
        return max(0.12, syllable)


class Pen:
    """Draws shapes of one object. Widths and radii are in units of the object's half size."""

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        x: float,
        y: float,
        size: float,
        flip: bool = False,
        turn: float = 0.0,
    ) -> None:
        self.draw, self.size = draw, size
        c, s = cos(turn), sin(turn)
        m = -1.0 if flip else 1.0
        self._m = (m * size * c, -m * size * s, x, size * s, size * c, y)
        self._straight = abs(turn) < 1e-3

    def moved(self, dx: float, dy: float, scale: float = 1.0, turn: float = 0.0, stretch: float = 1.0) -> Pen:
        """A pen with its origin at (dx, dy), scaled and rotated (radians, clockwise on screen)."""
        other = object.__new__(Pen)
        a, b, x, c, d, y = self._m
        co, si = cos(turn) * scale, sin(turn) * scale
        other.draw, other.size = self.draw, self.size * scale
        other._m = (
            a * co + b * si, (-a * si + b * co) * stretch, a * dx + b * dy + x,
            c * co + d * si, (-c * si + d * co) * stretch, c * dx + d * dy + y,
        )  # fmt: skip
        other._straight = self._straight and abs(turn) < 1e-3 and stretch == 1.0
        return other

    def px(self, p: Point) -> Point:
        a, b, x, c, d, y = self._m
        return a * p[0] + b * p[1] + x, c * p[0] + d * p[1] + y

    def _width(self, w: float) -> int:
        return max(1, round(w * self.size))

    def poly(
        self, points: Sequence[Point], fill: Color, outline: Color | None = INK, w: float = 0.03
    ) -> None:
        pts = [self.px(p) for p in points]
        self.draw.polygon(pts, fill=fill)
        if outline:
            self.draw.line([*pts, pts[0], pts[1]], fill=outline, width=self._width(w), joint="curve")

    def line(self, points: Sequence[Point], fill: Color = INK, w: float = 0.04) -> None:
        self.draw.line([self.px(p) for p in points], fill=fill, width=self._width(w), joint="curve")

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        fill: Color | None,
        outline: Color | None = INK,
        w: float = 0.03,
    ) -> None:
        if self._straight:
            cx, cy = self.px((x, y))
            ax, ay = rx * self.size, ry * self.size
            box = (cx - ax, cy - ay, cx + ax, cy + ay)
            self.draw.ellipse(box, fill=fill, outline=outline, width=self._width(w) if outline else 0)
            return
        points = [(x + rx * c, y + ry * s) for c, s in _RING]
        if fill is not None:
            self.poly(points, fill, outline, w)
        elif outline:
            self.line([*points, points[0]], outline, w)

    def circle(
        self, x: float, y: float, r: float, fill: Color | None, outline: Color | None = INK, w: float = 0.03
    ) -> None:
        self.ellipse(x, y, r, r, fill, outline, w)

    def rect(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        fill: Color,
        outline: Color | None = INK,
        w: float = 0.03,
        round_: float = 0.0,
    ) -> None:
        if round_ and self._straight:
            (ax, ay), (bx, by) = self.px((x0, y0)), self.px((x1, y1))
            box = (min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
            self.draw.rounded_rectangle(
                box, round_ * self.size, fill=fill, outline=outline, width=self._width(w) if outline else 0
            )
            return
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, outline, w)

    def arc(
        self, x: float, y: float, r: float, start: float, stop: float, fill: Color = INK, w: float = 0.04
    ) -> None:
        """Part of a circle from angle `start` to `stop`, in degrees clockwise from the right."""
        n = 12
        a, b = start * pi / 180, stop * pi / 180
        angles = [a + (b - a) * k / n for k in range(n + 1)]
        self.line([(x + r * cos(v), y + r * sin(v)) for v in angles], fill, w)

    def rays(
        self, x: float, y: float, near: float, far: float, count: int, fill: Color, w: float = 0.04
    ) -> None:
        """Short lines around a point that flashes or rings."""
        for k in range(count):
            v = 2 * pi * k / count
            self.line([(x + near * cos(v), y + near * sin(v)), (x + far * cos(v), y + far * sin(v))], fill, w)

    def waves(
        self, x: float, y: float, act: Motion, direction: float = 0.0, fill: Color = (250, 250, 250)
    ) -> None:
        """Arcs that move away from a sounding part; `direction` in degrees."""
        if not act.on:
            return
        for k in range(3):
            r = 0.12 + 0.1 * k + 0.1 * ((act.t * 3) % 1.0)
            self.arc(x, y, r, direction - 38, direction + 38, INK, 0.055)
            self.arc(x, y, r, direction - 38, direction + 38, fill, 0.03)


class Appearance:
    """The random appearance of one object, constant within a clip."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = RandomSource("look", seed)

    def color(self, palette: Sequence[Color] = BRIGHT) -> Color:
        base = self.dice.pick(palette)
        factor = self.dice.between(0.85, 1.12)
        return shade(base, factor)

    def whole(self, low: int, high: int) -> int:
        return self.dice.whole(low, high)

    def between(self, low: float, high: float) -> float:
        return self.dice.between(low, high)


def puffs(p: Pen, x: float, y: float, act: Motion, way: float = -1.0) -> None:
    """Exhaust smoke drifting from (x, y)."""
    if not act.on:
        return
    for k in range(3):
        age = (act.t * 0.9 + k / 3) % 1.0
        p.circle(
            x + way * (0.05 + 0.4 * age),
            y - 0.14 * age,
            0.05 + 0.1 * age,
            (176, 176, 180),
            (120, 120, 126),
            0.02,
        )


def wheel(p: Pen, x: float, y: float, r: float, angle: float = 0.0) -> None:
    p.circle(x, y, r, (36, 36, 40))
    p.circle(x, y, r * 0.55, (188, 190, 196))
    c, v = r * 0.5 * cos(angle), r * 0.5 * sin(angle)
    p.line([(x - c, y - v), (x + c, y + v)], (90, 92, 98), 0.03)
