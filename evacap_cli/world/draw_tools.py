"""Drawings of instruments, tools and signals, as functions of (pen in a unit box, look, act)."""

from __future__ import annotations

from math import cos, pi, sin

from evacap_cli.world.draw_home import STEEL, WOOD
from evacap_cli.world.pen import BRIGHT, INK, RED, SKIN, WHITE, Appearance, Motion, Pen, shade


def clock(p: Pen, look: Appearance, act: Motion) -> None:
    case = look.color(WOOD)
    p.poly([(-0.5, -0.62), (0, -1.0), (0.5, -0.62)], case)
    p.rect(-0.46, -0.66, 0.46, 0.96, case)
    p.rect(-0.3, 0.1, 0.3, 0.86, shade(case, 0.5))
    side = 1 if act.stroke % 2 else -1
    angle = side * 0.34 * cos(pi * min(1.0, act.age / 0.6)) if act.on else 0.0
    q = p.moved(0, 0.06, turn=angle)
    q.line([(0, 0.0), (0, 0.56)], (236, 200, 90), 0.05)
    q.circle(0, 0.6, 0.13, (244, 206, 80))
    p.circle(0, -0.28, 0.4, (250, 246, 230))
    for k in range(12):
        a = 2 * pi * k / 12
        p.line(
            [(0.31 * cos(a), -0.28 + 0.31 * sin(a)), (0.37 * cos(a), -0.28 + 0.31 * sin(a) * 1.15)],
            INK,
            0.035,
        )
    p.line([(0, -0.28), (0.0, -0.5)], INK, 0.06)
    p.line([(0, -0.28), (0.24, -0.2)], INK, 0.04)
    a = -pi / 2 + 2 * pi * (max(act.stroke, 0) % 60) / 30
    p.line([(0, -0.28), (0.3 * cos(a), -0.28 + 0.3 * sin(a))], RED, 0.025)


def bell(p: Pen, look: Appearance, act: Motion) -> None:
    metal = look.color(((214, 166, 60), (190, 140, 70), (150, 150, 110)))
    beam = look.color(WOOD)
    p.rect(-0.98, -0.98, 0.98, -0.8, beam)
    for x in (-0.86, 0.86):
        p.rect(x - 0.09, -0.82, x + 0.09, 0.98, beam)
    strength = act.pulse(2.2)
    angle = 0.5 * sin(2 * pi * 0.8 * act.age + 0.9) * strength if act.on else 0.0
    q = p.moved(0, -0.78, turn=angle)
    q.line([(0, 0.0), (0, 0.2)], INK, 0.12)
    clapper = q.moved(0, 0.3, turn=-0.7 * angle)
    clapper.line([(0, 0), (0, 1.0)], INK, 0.05)
    clapper.circle(0, 1.02, 0.12, (70, 64, 60))
    q.poly(
        [
            (-0.2, 0.22),
            (0.2, 0.22),
            (0.34, 0.5),
            (0.38, 0.9),
            (0.62, 1.18),
            (-0.62, 1.18),
            (-0.38, 0.9),
            (-0.34, 0.5),
        ],
        metal,
    )
    q.line([(-0.42, 0.98), (0.42, 0.98)], shade(metal, 0.65), 0.05)
    q.line([(-0.18, 0.4), (-0.24, 0.8)], shade(metal, 1.5), 0.07)
    if act.on and act.age < 1.2:
        p.waves(0.6, 0.34, act, 15, (250, 220, 60))
        p.waves(-0.6, 0.34, act, 165, (250, 220, 60))


def drum(p: Pen, look: Appearance, act: Motion) -> None:
    paint, skin = look.color(), look.color(SKIN)
    hit = act.pulse(0.09)
    p.rect(-0.7, 0.02, 0.7, 0.8, paint, None)
    p.ellipse(0, 0.8, 0.7, 0.18, paint)
    p.ellipse(0, 0.03, 0.7, 0.2, (246, 240, 226))
    for k in range(5):
        x = -0.64 + 0.32 * k
        p.line(
            [(x, 0.12 + 0.06 * (2 - abs(k - 2))), (x + 0.16, 0.86), (x + 0.3, 0.16)][: 3 if k < 4 else 2],
            (246, 226, 160),
            0.035,
        )
    p.line([(-0.7, 0.02), (-0.7, 0.8)], INK, 0.03)
    p.line([(0.7, 0.02), (0.7, 0.8)], INK, 0.03)
    for s in (-1, 1):
        mine = act.on and (act.stroke % 2 == 0) == (s > 0)
        tip = -0.02 if mine and hit > 0.25 else (-0.36 if act.on else -0.12)
        p.line([(s * 0.96, -0.62), (s * 0.2, tip)], INK, 0.1)
        p.line([(s * 0.96, -0.62), (s * 0.2, tip)], (206, 160, 96), 0.07)
        p.circle(s * 0.2, tip, 0.08, (206, 160, 96))
        p.circle(s * 0.94, -0.62, 0.14, skin)
        if mine and hit > 0.25:
            p.rays(s * 0.2, 0.0, 0.14, 0.3, 8, (255, 236, 120), 0.05)


def guitar(p: Pen, look: Appearance, act: Motion) -> None:
    body, skin, sleeve = (
        look.color(((206, 140, 64), (170, 90, 40), (120, 60, 36))),
        look.color(SKIN),
        look.color(),
    )
    q = p.moved(-0.08, 0.06, turn=-0.5)
    q.rect(0.24, -0.09, 1.0, 0.09, (96, 62, 40))
    q.rect(0.96, -0.13, 1.2, 0.13, (70, 46, 32))
    for k in range(3):
        q.circle(1.02 + 0.07 * k, -0.17, 0.035, STEEL, None)
        q.circle(1.02 + 0.07 * k, 0.17, 0.035, STEEL, None)
    q.ellipse(0.12, 0, 0.36, 0.38, body)
    q.ellipse(-0.4, 0, 0.5, 0.52, body)
    q.ellipse(0.12, 0, 0.32, 0.34, body, None)
    q.circle(-0.12, 0, 0.19, (50, 34, 26))
    q.rect(-0.62, -0.18, -0.54, 0.18, (60, 40, 30))
    for k in range(4):
        y = -0.06 + 0.04 * k
        shake = 0.014 * (1 if int(act.t * 40 + k) % 2 else -1) * act.pulse(0.5)
        q.line([(-0.58, y), (0.2, y + shake), (1.0, y)], (240, 236, 220), 0.016)
    if act.on:
        y = -0.26 + 0.5 * min(1.0, act.age / 0.2)
        q.line([(-0.5, -1.0), (-0.16, y - 0.16)], INK, 0.27)
        q.line([(-0.5, -1.0), (-0.16, y - 0.16)], sleeve, 0.22)
        q.ellipse(-0.1, y, 0.15, 0.2, skin)
        for k in range(2):  # notes rise
            age = (act.t * 0.6 + k / 2) % 1
            x, ny = 0.62 + 0.2 * k, 0.5 - 0.8 * age
            p.ellipse(x, ny, 0.08, 0.06, INK)
            p.line([(x + 0.07, ny), (x + 0.07, ny - 0.26), (x + 0.2, ny - 0.18)], INK, 0.04)


def saw(p: Pen, look: Appearance, act: Motion) -> None:
    handle, skin = look.color(((200, 60, 40), (60, 100, 160), (190, 130, 60))), look.color(SKIN)
    wood = look.color(WOOD)
    for x in (-0.56, 0.5):
        p.line([(x, 0.5), (x - 0.2, 0.96)], (96, 66, 40), 0.09)
        p.line([(x, 0.5), (x + 0.2, 0.96)], (96, 66, 40), 0.09)
    p.rect(-0.98, 0.16, 0.86, 0.5, wood)
    p.ellipse(0.86, 0.33, 0.13, 0.17, shade(wood, 1.35))
    p.circle(0.86, 0.33, 0.06, wood)
    forth = 1 if act.stroke % 2 else -1
    slide = 0.24 * forth * (1 - 2 * min(1.0, act.age / 0.45)) if act.on else 0.0
    q = p.moved(0.02 + slide, 0.0, turn=-0.24)
    q.poly([(-0.82, -0.02), (0.36, -0.3), (0.4, 0.16), (-0.82, 0.14)], (206, 212, 220))
    for k in range(13):
        x = -0.8 + 0.09 * k
        q.poly([(x, 0.14), (x + 0.045, 0.21), (x + 0.09, 0.14)], (206, 212, 220), None)
    q.poly([(0.34, -0.34), (0.72, -0.4), (0.84, -0.1), (0.66, 0.24), (0.38, 0.2)], handle)
    q.ellipse(0.57, -0.08, 0.1, 0.14, (240, 236, 226))
    if act.on:
        q.ellipse(0.66, -0.06, 0.17, 0.2, skin)
        for k in range(8):
            age = (act.t * 1.6 + k * 0.23) % 1
            p.circle(-0.2 + 0.09 * (k - 4) * (0.5 + age), 0.5 + 0.44 * age, 0.03, (236, 204, 140), None)


def chainsaw(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color(((230, 110, 30), (206, 50, 40), (60, 130, 70)))
    p.rect(0.02, 0.34, 0.98, 0.9, (120, 80, 46), round_=0.1)
    p.ellipse(0.98, 0.62, 0.12, 0.28, (206, 164, 110))
    p.ellipse(0.98, 0.62, 0.06, 0.15, (150, 106, 66))
    q = p.moved(0.02 * act.swing(7.7), 0.02 * act.swing(6.1, 0.2), turn=0.06)
    q.rect(-0.2, -0.14, 0.86, 0.14, (206, 210, 216), round_=0.12)
    off = 0.09 * ((act.t * 5) % 1) if act.on else 0.0
    for k in range(11):
        x = -0.16 + 0.09 * k + off
        q.poly([(x, -0.14), (x + 0.03, -0.22), (x + 0.06, -0.14)], INK, None)
        q.poly([(x, 0.14), (x + 0.03, 0.22), (x + 0.06, 0.14)], INK, None)
    q.rect(-0.8, -0.3, -0.12, 0.32, paint, round_=0.08)
    q.arc(-0.36, -0.24, 0.3, 185, 355, INK, 0.1)
    q.line([(-0.78, -0.1), (-1.0, -0.04), (-1.0, 0.24), (-0.78, 0.26)], INK, 0.1)
    q.circle(-0.44, 0.04, 0.16, (60, 60, 66))
    for k in range(3):
        q.line([(-0.72, -0.2 + 0.1 * k), (-0.6, -0.2 + 0.1 * k)], INK, 0.03)
    if act.on:
        for k in range(12):  # chips fly
            age = (act.t * 2.1 + k * 0.37) % 1
            p.circle(
                0.3 + (((k * 5) % 7) - 3) * 0.12 * (0.4 + age),
                0.3 - 0.75 * age * (1.2 - age),
                0.04,
                (240, 204, 130),
                (150, 110, 60),
                0.02,
            )
        for k in range(3):
            age = (act.t + k / 3) % 1
            p.circle(
                -0.8 - 0.14 * age,
                -0.36 - 0.4 * age,
                0.06 + 0.09 * age,
                (170, 170, 176),
                (120, 120, 126),
                0.02,
            )


def keyboard(p: Pen, look: Appearance, act: Motion) -> None:
    skin, case = look.color(SKIN), look.color(((60, 62, 70), (214, 216, 220), (120, 124, 132)))
    p.rect(-0.78, -0.95, 0.78, 0.06, (50, 52, 58), round_=0.06)
    p.rect(-0.68, -0.86, 0.68, -0.04, (206, 226, 240))
    lines = 6 if not act.on else 2 + int(act.t * 1.1) % 5
    for k in range(min(6, lines)):
        p.line(
            [(-0.58, -0.74 + 0.12 * k), (-0.1 + 0.28 * ((k * 7) % 3), -0.74 + 0.12 * k)], (80, 90, 110), 0.04
        )
    p.poly([(-0.9, 0.1), (0.9, 0.1), (1.0, 0.66), (-1.0, 0.66)], case)
    for r in range(4):
        for k in range(10):
            x, y = -0.84 + 0.175 * k - 0.02 * r, 0.15 + 0.12 * r
            p.rect(x, y, x + 0.12, y + 0.08, shade(case, 1.5) if case[0] < 180 else WHITE, None)
    if act.on:
        press = act.pulse(0.08)
        for s in (-1, 1):
            down = press if (act.stroke % 2 == 0) == (s > 0) else 0.0
            x = s * 0.4 + 0.06 * sin(1.9 * act.t + s)
            y = 0.5 - 0.05 + 0.09 * down
            p.line([(x + s * 0.26, 1.0), (x + s * 0.04, y + 0.2)], skin, 0.26)
            p.ellipse(x, y + 0.14, 0.2, 0.16, skin)
            for k in range(4):
                fx = x - 0.15 + 0.1 * k
                p.line([(fx, y + 0.06), (fx, y - 0.14 + 0.06 * down * (k % 2))], shade(skin, 0.8), 0.1)
                p.line([(fx, y + 0.06), (fx, y - 0.14 + 0.06 * down * (k % 2))], skin, 0.075)


def bucket(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color((STEEL, *BRIGHT[:4]))
    fallen = min(1.0, act.age / 0.001) if act.on else 0.0
    p.line([(-0.9, -0.9), (0.14, -0.9), (0.14, -0.7)], INK, 0.2)
    p.line([(-0.9, -0.9), (0.14, -0.9), (0.14, -0.7)], (150, 156, 166), 0.15)
    p.arc(0, 0.14, 0.6, 190, 350, (110, 112, 120), 0.04)
    p.poly([(-0.62, 0.12), (0.62, 0.12), (0.46, 0.94), (-0.46, 0.94)], paint)
    p.ellipse(0, 0.12, 0.62, 0.14, shade(paint, 0.6))
    p.ellipse(0, 0.16, 0.52, 0.09, (90, 160, 214), None)
    p.line([(-0.56, 0.4), (0.56, 0.4)], shade(paint, 0.75), 0.04)
    if act.on:
        age = act.age
        if age < 0.3:  # the splash of the last drop
            p.ellipse(0.14, 0.16, 0.1 + age, 0.03 + 0.1 * age, None, WHITE, 0.03)
            for s in (-1, 0, 1):
                p.circle(
                    0.14 + s * (0.1 + 0.4 * age),
                    0.02 - 0.2 * age + 0.1 * abs(s),
                    0.05,
                    (120, 190, 240),
                    (40, 110, 180),
                    0.02,
                )
        # the next drop hangs, then falls
        fall = min(1.0, (age % 0.9) / 0.8) if fallen else 0.0
        y = -0.62 + 0.62 * fall * fall
        p.poly(
            [(0.14, y - 0.16), (0.23, y + 0.04), (0.14, y + 0.12), (0.05, y + 0.04)],
            (110, 186, 240),
            (40, 110, 180),
        )


def sign(p: Pen, look: Appearance, act: Motion) -> None:
    """A loudspeaker on a coloured board, for categories without a drawing."""
    board, mark = look.color(), look.whole(3, 8)
    p.rect(-0.08, 0.5, 0.08, 1.0, (110, 84, 60))
    p.rect(-0.9, -0.8, 0.9, 0.6, board, round_=0.14)
    points = []
    for k in range(2 * mark):
        r = 0.5 if k % 2 else 0.24
        points.append((r * cos(pi * k / mark), -0.1 + r * sin(pi * k / mark)))
    q = p.moved(0, 0, turn=0.3 * act.swing(0.7))
    q.poly(points, WHITE)
    p.waves(0.9, -0.1, act, 0)


TOOLS = {
    "keyboard": keyboard,
    "bucket": bucket,
    "clock": clock,
    "bell": bell,
    "drum": drum,
    "guitar": guitar,
    "saw": saw,
    "chainsaw": chainsaw,
}
