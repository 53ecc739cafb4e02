"""Drawings of vehicles, as functions of (pen in a unit box, look, act)."""

from __future__ import annotations

from math import cos, pi, sin

from evacap_cli.world.pen import INK, RED, WHITE, Appearance, Motion, Pen, puffs, shade, wheel

GLASS = (176, 214, 232)
LAMP = (250, 232, 140)


def _shaken(p: Pen, act: Motion, amount: float = 0.014) -> Pen:
    return p.moved(0, amount * act.swing(7.3))


def car(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color()
    p.ellipse(0, 0.5, 0.98, 0.07, (70, 70, 74), None)
    puffs(p, -0.97, 0.36, act)
    q = _shaken(p, act)
    q.poly([(-0.62, 0.0), (-0.4, -0.42), (0.28, -0.42), (0.58, 0.0)], paint)
    q.poly([(-0.5, -0.02), (-0.34, -0.34), (-0.08, -0.34), (-0.08, -0.02)], GLASS)
    q.poly([(0.0, -0.02), (0.0, -0.34), (0.23, -0.34), (0.45, -0.02)], GLASS)
    q.rect(-0.98, -0.02, 0.98, 0.38, paint, round_=0.14)
    q.rect(0.84, 0.06, 0.98, 0.18, LAMP, round_=0.04)
    q.rect(-0.98, 0.06, -0.88, 0.18, RED)
    q.line([(-0.04, 0.02), (-0.04, 0.34)], INK, 0.02)
    q.line([(0.06, 0.1), (0.18, 0.1)], INK, 0.04)
    for x in (-0.56, 0.56):
        wheel(p, x, 0.36, 0.2)


def boat(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color()
    q = p.moved(0, 0.03 * act.swing(0.7), turn=0.03 * act.swing(0.9, 0.2))
    q.line([(0.1, -0.2), (0.1, -0.85)], (120, 90, 60), 0.05)
    q.poly([(0.1, -0.85), (0.1, -0.6), (0.45, -0.72)], paint)
    q.poly([(-0.4, 0.1), (-0.4, -0.3), (0.3, -0.3), (0.5, 0.1)], WHITE)
    q.poly([(0.02, -0.2), (0.26, -0.2), (0.38, 0.0), (0.02, 0.0)], GLASS)
    q.rect(-0.3, -0.2, -0.08, 0.0, GLASS)
    q.poly([(-0.85, 0.08), (1.0, 0.02), (0.66, 0.55), (-0.72, 0.55)], paint)
    q.line([(-0.8, 0.22), (0.88, 0.18)], WHITE, 0.06)
    q.rect(-1.0, 0.0, -0.82, 0.4, (60, 62, 70), round_=0.04)
    p.poly([(-1.05, 0.5), (1.1, 0.5), (1.1, 0.85), (-1.05, 0.85)], (52, 118, 178), None)
    for k in range(3):
        shift = 0.06 * cos(2 * pi * (0.5 * act.t + k / 3)) if act.on else 0.0
        y = 0.53 + 0.1 * k
        points = [(-1.05 + 0.18 * j + shift, y + (0.035 if j % 2 else -0.02)) for j in range(13)]
        p.line([(x, v) for x, v in points if -1.06 < x < 1.1], (190, 222, 240), 0.035)
    puffs(p, -0.98, 0.0, act)
    if act.on:  # the propeller churns
        for k in range(4):
            age = (act.t * 1.7 + k / 4) % 1
            p.circle(-0.92 - 0.1 * age, 0.52 - 0.12 * age, 0.05 + 0.03 * age, WHITE, None)


def motorcycle(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color()
    p.ellipse(0, 0.66, 0.95, 0.06, (70, 70, 74), None)
    puffs(p, -0.85, 0.38, act)
    q = _shaken(p, act, 0.018)
    for x in (-0.6, 0.62):
        q.circle(x, 0.32, 0.34, (34, 34, 38))
        q.circle(x, 0.32, 0.22, (205, 208, 214))
        q.circle(x, 0.32, 0.06, INK)
        q.line([(x - 0.2, 0.32), (x + 0.2, 0.32)], (90, 90, 96), 0.025)
        q.line([(x, 0.12), (x, 0.52)], (90, 90, 96), 0.025)
    q.line([(-0.6, 0.32), (-0.05, 0.36), (0.2, -0.1)], (120, 124, 132), 0.08)
    q.rect(-0.25, 0.02, 0.22, 0.4, (96, 100, 108), round_=0.06)
    for k in range(3):
        q.line([(-0.2, 0.1 + 0.1 * k), (0.17, 0.1 + 0.1 * k)], INK, 0.025)
    q.line([(0.62, 0.32), (0.36, -0.42)], (150, 154, 162), 0.08)
    q.line([(0.36, -0.42), (0.12, -0.52)], INK, 0.07)
    q.poly([(-0.1, -0.04), (0.02, -0.3), (0.34, -0.28), (0.4, -0.06)], paint)
    q.poly([(-0.82, -0.16), (-0.62, -0.26), (-0.06, -0.14), (-0.1, 0.02), (-0.6, -0.02)], (48, 40, 40))
    q.poly([(-0.9, 0.0), (-0.6, -0.1), (-0.34, 0.06), (-0.6, 0.04)], paint)
    q.circle(0.46, -0.26, 0.11, LAMP)
    q.line([(-0.1, 0.42), (-0.88, 0.44)], (190, 192, 198), 0.09)


def _beacon(p: Pen, x: float, y: float, act: Motion, colors: tuple[tuple[int, int, int], ...]) -> None:
    lit = int(act.t * 3.01) % 2
    for k, color in enumerate(colors):
        cx = x + 0.14 * k
        on = act.on and k == lit % len(colors)
        if on or (act.on and len(colors) == 1):
            p.rays(cx, y, 0.13, 0.3, 8, (255, 240, 120), 0.05)
        p.rect(
            cx - 0.07,
            y - 0.07,
            cx + 0.07,
            y + 0.07,
            color if act.on else shade(color, 0.5),
            round_=0.05,
        )


def ambulance(p: Pen, look: Appearance, act: Motion) -> None:
    stripe = look.color(((220, 60, 50), (230, 100, 40)))
    p.ellipse(0, 0.6, 1.0, 0.07, (70, 70, 74), None)
    q = _shaken(p, act)
    q.rect(-1.0, -0.55, 0.42, 0.45, WHITE, round_=0.05)
    q.poly([(0.42, -0.38), (0.68, -0.38), (0.9, 0.0), (1.0, 0.06), (1.0, 0.45), (0.42, 0.45)], WHITE)
    q.poly([(0.5, -0.28), (0.64, -0.28), (0.82, 0.02), (0.5, 0.02)], GLASS)
    q.rect(-1.0, 0.2, 1.0, 0.31, stripe, None)
    q.rect(-0.42, -0.44, -0.2, 0.14, RED, None)
    q.rect(-0.6, -0.26, -0.02, -0.04, RED, None)
    q.rect(0.9, 0.1, 1.0, 0.2, LAMP)
    _beacon(q, 0.0, -0.63, act, ((90, 140, 255), (255, 70, 60)))
    for x in (-0.58, 0.58):
        wheel(p, x, 0.45, 0.19)


def police_car(p: Pen, look: Appearance, act: Motion) -> None:
    dark = look.color(((30, 44, 96), (24, 26, 34)))
    p.ellipse(0, 0.52, 1.0, 0.07, (70, 70, 74), None)
    q = _shaken(p, act)
    q.poly([(-0.6, 0.0), (-0.4, -0.4), (0.28, -0.4), (0.56, 0.0)], WHITE)
    q.poly([(-0.48, -0.02), (-0.34, -0.32), (-0.08, -0.32), (-0.08, -0.02)], GLASS)
    q.poly([(0.0, -0.02), (0.0, -0.32), (0.23, -0.32), (0.43, -0.02)], GLASS)
    q.rect(-0.98, -0.02, 0.98, 0.4, dark, round_=0.12)
    q.rect(-0.42, 0.0, 0.42, 0.39, WHITE, None)
    spikes = [(pi * k / 5 - pi / 2, 0.17 if k % 2 else 0.08) for k in range(10)]
    star = [(r * cos(a), 0.2 + r * sin(a)) for a, r in spikes]
    q.poly(star, (222, 178, 60))
    q.rect(0.86, 0.06, 0.98, 0.18, LAMP)
    _beacon(q, -0.1, -0.48, act, ((255, 60, 50), (70, 110, 255)))
    for x in (-0.58, 0.58):
        wheel(p, x, 0.38, 0.2)


def fire_truck(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color(((208, 36, 32), (188, 28, 30)))
    p.ellipse(0, 0.58, 1.02, 0.07, (70, 70, 74), None)
    q = _shaken(p, act)
    q.rect(-1.0, -0.22, 0.42, 0.42, paint, round_=0.03)
    q.poly([(0.46, -0.4), (0.94, -0.4), (1.0, 0.0), (1.0, 0.42), (0.46, 0.42)], paint)
    q.poly([(0.6, -0.28), (0.88, -0.28), (0.92, 0.0), (0.6, 0.0)], GLASS)
    q.rect(-1.0, 0.2, 1.0, 0.28, (250, 220, 90), None)
    for k in range(3):
        q.rect(-0.92 + 0.44 * k, -0.12, -0.58 + 0.44 * k, 0.14, (214, 216, 222))
    ladder = q.moved(-0.25, -0.42, turn=-0.12)
    for y in (-0.08, 0.08):
        ladder.line([(-0.8, y), (0.75, y)], (236, 236, 236), 0.05)
    for k in range(8):
        ladder.line([(-0.7 + 0.2 * k, -0.08), (-0.7 + 0.2 * k, 0.08)], (236, 236, 236), 0.04)
    q.line([(-0.6, -0.22), (-0.6, -0.36)], INK, 0.06)
    _beacon(q, 0.72, -0.48, act, ((70, 120, 255),))
    for x in (-0.68, -0.3, 0.66):
        wheel(p, x, 0.42, 0.18)


def truck(p: Pen, look: Appearance, act: Motion) -> None:
    paint, box = look.color(), look.color(((226, 222, 210), (196, 206, 216), (206, 190, 160)))
    p.ellipse(0, 0.62, 1.02, 0.07, (70, 70, 74), None)
    q = p.moved(0, 0.03 * act.swing(6) * act.pulse(0.5))
    q.rect(-1.0, -0.7, 0.34, 0.36, box)
    for k in range(5):
        q.line([(-0.84 + 0.24 * k, -0.66), (-0.84 + 0.24 * k, 0.32)], shade(box, 0.85), 0.03)
    q.poly([(0.4, -0.36), (0.74, -0.36), (0.8, 0.0), (1.0, 0.06), (1.0, 0.42), (0.4, 0.42)], paint)
    q.poly([(0.48, -0.26), (0.68, -0.26), (0.72, 0.0), (0.48, 0.0)], GLASS)
    q.rect(-1.0, 0.36, 1.0, 0.44, (60, 60, 66), None)
    q.rect(0.9, 0.14, 1.0, 0.26, LAMP)
    q.line([(0.36, 0.36), (0.36, -0.6)], (140, 142, 150), 0.06)
    if act.age < 0.7 and act.on:
        p.waves(0.86, -0.12, act, -20)
    for x in (-0.74, -0.36, 0.68):
        wheel(p, x, 0.46, 0.19)


def train(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color(((40, 44, 52), (30, 70, 52), (96, 34, 30)))
    trim = look.color(((208, 56, 44), (222, 176, 60)))
    p.line([(-1.05, 0.72), (1.05, 0.72)], (110, 100, 96), 0.05)
    for k in range(9):
        p.line([(-1.0 + 0.25 * k, 0.72), (-1.0 + 0.25 * k, 0.8)], (96, 70, 50), 0.08)
    p.rect(-0.98, -0.5, -0.3, 0.4, paint)
    p.rect(-1.04, -0.6, -0.24, -0.48, trim)
    p.rect(-0.86, -0.36, -0.46, -0.02, GLASS)
    p.rect(-0.3, -0.22, 0.72, 0.34, paint, round_=0.1)
    for x in (-0.08, 0.2, 0.48):
        p.line([(x, -0.2), (x, 0.32)], trim, 0.05)
    p.circle(0.74, 0.06, 0.24, (70, 72, 80))
    p.poly([(0.36, -0.22), (0.42, -0.54), (0.34, -0.66), (0.64, -0.66), (0.56, -0.54), (0.6, -0.22)], paint)
    p.ellipse(0.08, -0.24, 0.13, 0.12, (220, 180, 70))
    p.poly([(0.7, 0.34), (1.04, 0.64), (0.6, 0.64)], trim)
    p.rect(-0.98, 0.32, 0.76, 0.44, trim)
    for x, r in ((-0.72, 0.24), (-0.18, 0.2), (0.2, 0.2), (0.56, 0.16)):
        p.circle(x, 0.7 - r, r, (52, 52, 58))
        p.circle(x, 0.7 - r, r * 0.4, trim)
    for k in range(4):  # steam rises while the horn blows, a wisp otherwise
        if not act.on or act.age > 2.2:
            break
        age = (act.t * 0.8 + k / 4) % 1
        p.circle(0.49 - 0.5 * age, -0.72 - 0.28 * age, 0.08 + 0.13 * age, WHITE, (180, 180, 186), 0.02)
    if act.on and act.age < 2.2:
        p.waves(0.86, -0.3, act, -30)


def helicopter(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color()
    q = p.moved(0, 0.05 * act.swing(0.5), turn=0.03 * act.swing(0.37))
    q.poly([(-0.2, -0.1), (-0.95, -0.22), (-0.95, -0.12), (-0.2, 0.16)], paint)
    q.poly([(-0.95, -0.18), (-1.02, -0.48), (-0.84, -0.48), (-0.8, -0.16)], paint)
    q.ellipse(0.22, 0.06, 0.54, 0.36, paint)
    q.poly([(0.3, -0.2), (0.56, -0.12), (0.72, 0.1), (0.3, 0.1)], GLASS)
    q.rect(-0.08, -0.14, 0.2, 0.1, GLASS, round_=0.04)
    q.rect(0.1, -0.44, 0.2, -0.28, (80, 80, 88))
    for x in (0.02, 0.44):
        q.line([(x, 0.38), (x, 0.56)], (70, 70, 76), 0.05)
    q.line([(-0.3, 0.57), (0.72, 0.57), (0.82, 0.48)], (70, 70, 76), 0.06)
    if act.on:
        span = 0.35 + 0.6 * abs(cos(2 * pi * 1.37 * act.t))
        q.ellipse(0.15, -0.46, 0.98, 0.09, (190, 198, 206), (130, 136, 144), 0.02)
        q.line([(0.15 - span, -0.5), (0.15 + span, -0.42)], INK, 0.045)
        a = 9.0 * act.t
        q.circle(-0.94, -0.32, 0.2, (196, 202, 210), (130, 136, 144), 0.02)
        q.line([(-0.94 - 0.2 * cos(a), -0.32 - 0.2 * cos(a + 1.6)), (-0.94 + 0.2 * cos(a), -0.32 + 0.2 * cos(
            a + 1.6))], INK, 0.04)  # fmt: skip
    else:
        q.line([(-0.8, -0.46), (1.05, -0.46)], INK, 0.05)
        q.line([(-0.94, -0.5), (-0.94, -0.14)], INK, 0.04)


VEHICLES = {
    "car": car,
    "boat": boat,
    "motorcycle": motorcycle,
    "ambulance": ambulance,
    "police car": police_car,
    "fire truck": fire_truck,
    "truck": truck,
    "train": train,
    "helicopter": helicopter,
}
