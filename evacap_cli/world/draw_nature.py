"""Drawings of weather, water, fire and trees, as functions of (pen in a unit box, look, act)."""

from __future__ import annotations

from math import pi, sin

from evacap_cli.world.pen import INK, WHITE, Appearance, Color, Motion, Pen, shade

WATER: Color = (86, 160, 222)
FOAM: Color = (226, 242, 252)
STONE: tuple[Color, ...] = ((128, 124, 120), (150, 138, 122), (104, 104, 112))


def _cloud(p: Pen, y: float, tone: Color) -> None:
    for x, dy, r in (
        (-0.6, 0.08, 0.28),
        (-0.28, -0.12, 0.36),
        (0.12, -0.16, 0.4),
        (0.52, 0.0, 0.32),
        (0.76, 0.12, 0.2),
    ):
        p.circle(x, y + dy, r, tone)
    p.rect(-0.76, y + 0.02, 0.84, y + 0.32, tone, None, round_=0.14)
    for x, dy, r in ((-0.58, 0.08, 0.24), (-0.28, -0.1, 0.32), (0.12, -0.13, 0.36), (0.5, 0.02, 0.28)):
        p.circle(x, y + dy, r, shade(tone, 1.08), None)


def rain(p: Pen, look: Appearance, act: Motion) -> None:
    tone = look.color(((150, 158, 172), (126, 134, 150)))
    slant = look.between(-0.12, 0.04)
    if act.on:
        for k in range(26):
            x = -0.84 + 0.068 * k
            f = (act.t * 1.9 + (k * 0.381) % 1) % 1
            y = -0.34 + 1.3 * f
            p.line([(x + slant * f, y), (x + slant * (f + 0.18), y + 0.2)], (60, 120, 206), 0.045)
            if y > 0.76:
                p.ellipse(x + slant * f, 0.95, 0.07, 0.025, None, (150, 196, 236), 0.02)
    _cloud(p, -0.58, tone)


def storm_cloud(p: Pen, look: Appearance, act: Motion) -> None:
    tone = look.color(((72, 74, 90), (60, 62, 74), (84, 80, 96)))
    flash = act.pulse(0.7)
    if flash > 0.1:
        p.poly([(-0.06, -0.3), (0.3, -0.3), (0.12, 0.14), (0.34, 0.14), (-0.26, 0.96), (-0.06, 0.32),
            (-0.28, 0.32)],
               (255, 236, 70), (200, 150, 20), 0.035)  # fmt: skip
        p.line([(0.52, -0.3), (0.66, 0.06), (0.56, 0.1), (0.74, 0.5)], (255, 246, 170), 0.06)
        p.line([(-0.5, -0.3), (-0.6, 0.0), (-0.5, 0.04), (-0.66, 0.36)], (255, 246, 170), 0.06)
        tone = shade(tone, 1 + 0.4 * flash)
    _cloud(p, -0.52, tone)


def tree(p: Pen, look: Appearance, act: Motion) -> None:
    green = look.color(((70, 140, 60), (96, 150, 50), (180, 120, 40), (60, 120, 80)))
    gust = (0.6 + 0.4 * sin(1.7 * act.t)) if act.on else 0.0
    lean = 0.55 * gust
    p.ellipse(0, 0.95, 0.4, 0.06, (70, 90, 50), None)
    trunk = [(-0.1, 0.96), (0.1, 0.96), (0.08 + 0.35 * lean, 0.2), (-0.04 + 0.35 * lean, 0.2)]
    p.poly(trunk, (110, 74, 46))
    for k, (x, y, r) in enumerate(
        (
            (-0.3, 0.06, 0.32),
            (0.3, 0.06, 0.32),
            (0.0, -0.22, 0.44),
            (-0.26, -0.44, 0.3),
            (0.26, -0.44, 0.3),
            (0, -0.64, 0.3),
        )
    ):
        bend = lean * (0.45 - y) * 0.9 + 0.04 * act.swing(2.1, 0.17 * k)
        p.ellipse(
            x + bend,
            y + 0.25 * lean * max(0, -y) * 0.6,
            r * (1 + 0.25 * gust),
            r * (1 - 0.1 * gust),
            shade(green, 0.86 + 0.06 * (k % 3)),
            None,
        )
    if act.on:
        for k in range(3):  # gusts
            x = -1.0 + 0.5 * ((act.t * 0.9 + 0.33 * k) % 1)
            y = -0.7 + 0.42 * k
            p.line(
                [(x, y), (x + 0.34, y - 0.03), (x + 0.5, y), (x + 0.48, y + 0.1), (x + 0.4, y + 0.07)],
                INK,
                0.055,
            )
            p.line(
                [(x, y), (x + 0.34, y - 0.03), (x + 0.5, y), (x + 0.48, y + 0.1), (x + 0.4, y + 0.07)],
                FOAM,
                0.035,
            )
        for k in range(6):  # leaves fly
            age = (act.t * 0.8 + k / 6) % 1
            p.ellipse(0.2 + 0.85 * age, -0.4 + 0.24 * k * 0.9 + 0.14 * sin(9 * age + k), 0.06, 0.035, green)


def waterfall(p: Pen, look: Appearance, act: Motion) -> None:
    rock, grass = look.color(STONE), look.color(((84, 140, 70), (100, 150, 60)))
    p.poly([(-1.0, -0.8), (-0.3, -0.92), (0.34, -0.9), (1.0, -0.76), (1.0, 0.7), (-1.0, 0.7)], rock)
    for x, y, r in ((-0.74, -0.3, 0.16), (0.72, -0.2, 0.18), (-0.7, 0.3, 0.2), (0.76, 0.34, 0.16)):
        p.ellipse(x, y, r, r * 0.7, shade(rock, 0.8))
    for x in (-0.7, 0.7):
        p.ellipse(x, -0.86, 0.34, 0.14, grass)
    p.poly([(-0.36, -0.9), (0.38, -0.9), (0.46, 0.66), (-0.44, 0.66)], WATER, (50, 110, 170))
    if act.on:
        for k in range(9):
            x = -0.3 + 0.08 * k
            for j in range(3):
                y = -0.88 + 1.5 * ((act.t * 1.2 + (k * 0.41) % 1 + j / 3) % 1)
                p.line([(x, max(-0.88, y - 0.1)), (x * 1.04, min(0.66, y + 0.12))], FOAM, 0.05)
    p.ellipse(0, 0.74, 0.98, 0.22, (60, 130, 196))
    for k in range(9):
        r = 0.12 + 0.05 * sin(act.t * 7 + k * 2) if act.on else 0.1
        p.circle(-0.5 + 0.125 * k, 0.64 + 0.05 * (k % 2), r, FOAM, None)


def fountain(p: Pen, look: Appearance, act: Motion) -> None:
    stone = look.color(((206, 200, 190), (170, 168, 172), (196, 176, 150)))
    if act.on:
        for s in (-1, 1):
            for k, (reach, top) in enumerate(((0.3, -0.98), (0.52, -0.8), (0.74, -0.56))):
                base = -0.24
                points = []
                for j in range(9):
                    u = j / 8
                    points.append((s * reach * u, base + (top - base) * 4 * u * (1 - u) * 0.9 + 0.85 * u * u))
                p.line(points, WATER, 0.07)
                p.line(points, FOAM, 0.03)
                f = (act.t * 1.4 + 0.31 * k) % 1
                x, y = s * reach * f, base + (top - base) * 4 * f * (1 - f) * 0.9 + 0.85 * f * f
                p.circle(x, y, 0.06, FOAM, (90, 150, 200), 0.02)
    p.rect(-0.09, -0.24, 0.09, 0.5, stone)
    p.poly([(-0.4, -0.06), (0.4, -0.06), (0.2, 0.14), (-0.2, 0.14)], stone)
    p.ellipse(0, -0.07, 0.4, 0.06, WATER)
    p.ellipse(0, 0.56, 0.96, 0.16, WATER)
    p.poly([(-0.98, 0.56), (0.98, 0.56), (0.84, 0.92), (-0.84, 0.92)], stone)
    for k in range(6):
        r = (act.t * 0.9 + k * 0.27) % 1 if act.on else 0.5
        p.ellipse(-0.7 + 0.28 * k, 0.56, 0.04 + 0.08 * r, 0.02 + 0.02 * r, None, FOAM, 0.025)
    p.line([(-0.98, 0.57), (0.98, 0.57)], shade(stone, 0.7), 0.05)


def campfire(p: Pen, look: Appearance, act: Motion) -> None:
    wood = look.color(((110, 70, 40), (90, 58, 36)))
    for x in (-0.72, -0.4, 0.0, 0.4, 0.72):
        p.ellipse(x, 0.86, 0.2, 0.13, (130, 126, 124))
    for s in (-1, 1):
        p.line([(s * 0.72, 0.8), (s * -0.4, 0.5)], INK, 0.2)
        p.line([(s * 0.72, 0.8), (s * -0.4, 0.5)], wood, 0.15)
    if act.on:
        for k, (w, h, tone) in enumerate(
            ((0.6, 1.4, (230, 80, 30)), (0.42, 1.02, (246, 150, 40)), (0.22, 0.62, (255, 230, 110)))
        ):
            lean = 0.13 * act.swing(1.9 + 0.4 * k, 0.3 * k)
            grow = 1 + 0.12 * act.swing(2.7, 0.2 * k)
            p.poly([(-w, 0.62), (-w * 0.95, 0.2), (-w * 0.5 + lean * 0.5, 0.62 - 0.6 * h * grow),
                (-w * 0.3, 0.62 - 0.42 * h),
                    (lean, 0.62 - h * grow), (w * 0.35, 0.62 - 0.45 * h),
                        (w * 0.6 + lean * 0.5, 0.62 - 0.66 * h * grow),
                    (w * 0.95, 0.16), (w, 0.62)], tone, None)  # fmt: skip
        for k in range(8):
            age = (act.t * 0.9 + k * 0.29) % 1
            p.circle(-0.4 + 0.12 * k + 0.1 * sin(6 * age + k), -0.3 - 0.66 * age, 0.035, (255, 190, 70), None)


def sea(p: Pen, look: Appearance, act: Motion) -> None:
    sand = look.color(((236, 210, 150), (226, 196, 140)))
    p.rect(-1.0, -0.7, 1.0, 0.96, (60, 130, 190))
    p.rect(-1.0, 0.62, 1.0, 0.96, sand, None)
    flow = act.t if act.on else 0.0
    for k in range(3):  # breakers roll to the shore
        f = (flow * 0.28 + k / 3) % 1
        y = -0.5 + 1.15 * f
        h = 0.06 + 0.2 * f
        points = [
            (-1.0 + 0.1 * j, y - h * (0.55 + 0.45 * sin(j * 1.1 + k * 2 + flow * 0.6))) for j in range(21)
        ]
        p.poly([*points, (1.0, y + 0.1), (-1.0, y + 0.1)], (42, 104, 168), None)
        p.line(points, FOAM, 0.06 + 0.08 * f)
        for j in range(0, 21, 2):
            x, v = points[j]
            if abs(x) < 0.96:
                p.circle(x, v, 0.03 + 0.05 * f, WHITE, None)
    wash = 0.62 + 0.05 * sin(2 * pi * 0.28 * act.t) if act.on else 0.62
    p.line([(-1.0 + 0.1 * j, wash + 0.03 * sin(j * 0.9)) for j in range(21)], WHITE, 0.08)


NATURE = {
    "rain": rain,
    "storm cloud": storm_cloud,
    "tree": tree,
    "waterfall": waterfall,
    "fountain": fountain,
    "campfire": campfire,
    "sea": sea,
}
