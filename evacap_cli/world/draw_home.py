"""Drawings of household objects, as functions of (pen in a unit box, look, act)."""

from __future__ import annotations

from math import cos, pi, sin

from evacap_cli.world.draw_people import man_face
from evacap_cli.world.pen import INK, RED, SKIN, WHITE, Appearance, Motion, Pen, shade

STEEL = (190, 196, 204)
WOOD = ((150, 98, 54), (176, 124, 74), (112, 70, 42))


def television(p: Pen, look: Appearance, act: Motion) -> None:
    frame = look.color(((44, 44, 50), (96, 66, 42), (150, 150, 156)))
    p.line([(-0.02, -0.66), (-0.36, -1.0)], (120, 122, 128), 0.04)
    p.line([(0.02, -0.66), (0.36, -1.0)], (120, 122, 128), 0.04)
    for x in (-0.6, 0.6):
        p.line([(x, 0.6), (x * 1.15, 0.86)], INK, 0.08)
    p.rect(-1.0, -0.68, 1.0, 0.66, frame, round_=0.08)
    if act.on:
        p.rect(-0.86, -0.54, 0.6, 0.52, (130, 178, 214))
        p.rect(-0.86, 0.2, 0.6, 0.52, (84, 120, 160), None)
        man_face(p.moved(-0.13, 0.02, 0.5), look, act)
        p.rect(-0.86, 0.4, 0.6, 0.52, (206, 48, 44), None)
        p.waves(0.86, -0.1, act, 0)
    else:
        p.rect(-0.86, -0.54, 0.6, 0.52, (34, 40, 46))
        p.line([(-0.7, 0.1), (-0.2, -0.42)], (70, 80, 88), 0.06)
    for y in (-0.4, -0.16):
        p.circle(0.8, y, 0.09, (210, 206, 196))
    for k in range(4):
        p.line([(0.7, 0.1 + 0.1 * k), (0.9, 0.1 + 0.1 * k)], INK, 0.035)


def radio(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color()
    p.line([(0.66, -0.4), (0.96, -0.98)], (150, 152, 160), 0.05)
    p.arc(0, -0.4, 0.5, 190, 350, INK, 0.07)
    shake = 0.012 * act.swing(6.1)
    q = p.moved(0, shake)
    q.rect(-1.0, -0.42, 1.0, 0.66, paint, round_=0.12)
    r = 0.36 + (0.03 * act.swing(5.2) if act.on else 0)
    q.circle(-0.48, 0.14, 0.42, (60, 60, 66))
    q.circle(-0.48, 0.14, r * 0.8, (110, 110, 118))
    q.circle(-0.48, 0.14, 0.12, INK)
    q.rect(0.08, -0.28, 0.88, 0.06, (246, 226, 160) if act.on else (120, 116, 100))
    for k in range(6):
        q.line([(0.16 + 0.13 * k, -0.26), (0.16 + 0.13 * k, -0.12)], INK, 0.025)
    q.line([(0.52, -0.28), (0.52, 0.06)], RED, 0.04)
    for x in (0.28, 0.7):
        q.circle(x, 0.36, 0.14, STEEL)
    if act.on:
        p.waves(-0.98, 0.1, act, 180)
        p.waves(-0.48, -0.4, act, 255)


def telephone(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color(((190, 36, 36), (40, 42, 48), (46, 120, 90), (226, 206, 160)))
    ring = act.on and act.age < 1.65
    jump = 0.035 * sin(act.t * 61) if ring else 0.0
    p.poly([(-0.78, 0.8), (-0.5, -0.1), (0.5, -0.1), (0.78, 0.8)], paint)
    p.circle(0, 0.38, 0.36, (232, 228, 216))
    for k in range(9):
        a = 2 * pi * k / 10 + 0.6
        p.circle(0.25 * cos(a), 0.38 + 0.25 * sin(a), 0.055, INK, None)
    p.circle(0, 0.38, 0.11, paint)
    q = p.moved(0, jump - (0.08 if ring else 0.0), turn=0.05 * (1 if jump > 0 else -1) if ring else 0.0)
    q.poly(
        [
            (-0.7, -0.46),
            (-0.4, -0.6),
            (0.4, -0.6),
            (0.7, -0.46),
            (0.6, -0.3),
            (0.3, -0.36),
            (-0.3, -0.36),
            (-0.6, -0.3),
        ],
        paint,
    )
    for x in (-0.74, 0.74):
        q.ellipse(x, -0.26, 0.24, 0.2, paint)
    if ring:
        for s in (-1, 1):
            for k in range(2):
                p.line(
                    [(s * (0.8 + 0.1 * k), -0.62 - 0.1 * k), (s * (0.94 + 0.06 * k), -0.86 - 0.1 * k)],
                    (250, 220, 60),
                    0.06,
                )
        p.waves(0.0, -0.62, act, 270)


def alarm_clock(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color()
    ring = act.on and act.age < 0.75
    q = p.moved(0, 0, turn=0.07 * (1 if int(act.t * 19) % 2 else -1) if ring else 0.0)
    for s in (-1, 1):
        q.line([(s * 0.4, 0.6), (s * 0.6, 0.9)], INK, 0.1)
        q.line([(s * 0.3, -0.44), (s * 0.44, -0.62)], INK, 0.06)
        bell = q.moved(s * 0.5, -0.66, turn=s * 0.6)
        bell.poly([(-0.3, 0.1), (-0.24, -0.12), (0, -0.22), (0.24, -0.12), (0.3, 0.1)], (240, 200, 70))
    q.line([(0, -0.5), (0, -0.86)], INK, 0.06)
    q.circle(0, 0.1, 0.68, paint)
    q.circle(0, 0.1, 0.54, WHITE)
    for k in range(12):
        a = 2 * pi * k / 12
        q.line([(0.44 * cos(a), 0.1 + 0.44 * sin(a)), (0.51 * cos(a), 0.1 + 0.51 * sin(a))], INK, 0.03)
    q.line([(0, 0.1), (-0.22, -0.08)], INK, 0.06)
    q.line([(0, 0.1), (0.1, -0.32)], INK, 0.045)
    q.circle(0, 0.1, 0.05, RED)
    if ring:
        for s in (-1, 1):
            p.waves(s * 0.72, -0.7, act, -35 if s > 0 else 215, (250, 220, 60))


def microwave(p: Pen, look: Appearance, act: Motion) -> None:
    case = look.color(((226, 228, 230), (64, 66, 72), (190, 194, 200)))
    beep = act.on and act.age < 0.75
    p.rect(-1.0, -0.6, 1.0, 0.6, case, round_=0.06)
    p.rect(-0.9, -0.48, 0.46, 0.48, (50, 52, 58), round_=0.05)
    p.rect(-0.78, -0.36, 0.34, 0.36, (252, 220, 130) if act.on else (84, 86, 92), round_=0.05)
    p.ellipse(-0.22, 0.24, 0.4, 0.07, (200, 206, 214))
    p.poly([(-0.4, 0.18), (-0.46, -0.04), (0.02, -0.04), (-0.04, 0.18)], (90, 140, 190))
    p.line([(0.4, -0.34), (0.4, 0.34)], STEEL, 0.07)
    p.rect(0.56, -0.46, 0.9, -0.24, (20, 40, 30))
    if act.on:
        p.line([(0.62, -0.35), (0.84, -0.35)], (90, 255, 130) if beep else (40, 110, 60), 0.09)
    for r in range(3):
        for k in range(3):
            p.rect(0.56 + 0.12 * k, -0.12 + 0.15 * r, 0.65 + 0.12 * k, -0.02 + 0.15 * r, WHITE, INK, 0.02)
    p.rect(0.56, 0.36, 0.9, 0.48, (150, 190, 150))
    for x in (-0.8, 0.8):
        p.line([(x, 0.6), (x, 0.68)], INK, 0.12)
    if beep:
        p.waves(0.74, -0.6, act, 270, (250, 220, 60))


def vacuum_cleaner(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color()
    push = 0.2 * act.swing(0.45)
    p.line([(-0.62, 0.2), (-0.5, -0.5), (0.1, -0.84), (0.44 + push, -0.52)], (70, 72, 80), 0.11)
    p.line([(0.44 + push, -0.52), (0.66 + push, 0.62)], STEEL, 0.09)
    p.line([(0.36 + push, -0.64), (0.54 + push, -0.42)], INK, 0.13)
    p.poly(
        [(0.5 + push, 0.62), (0.86 + push, 0.62), (1.0 + push * 0.5, 0.86), (0.36 + push, 0.86)], (60, 62, 70)
    )
    q = p.moved(0, 0.012 * act.swing(6.7))
    q.poly([(-0.96, 0.7), (-0.92, 0.3), (-0.6, 0.1), (-0.14, 0.16), (0.1, 0.44), (0.12, 0.7)], paint)
    q.rect(-0.62, 0.24, -0.24, 0.36, shade(paint, 0.6), round_=0.05)
    q.circle(-0.66, 0.72, 0.2, (48, 48, 54))
    q.circle(-0.66, 0.72, 0.09, STEEL)
    q.circle(-0.06, 0.76, 0.13, (48, 48, 54))
    if act.on:
        for k in range(6):  # dust goes in
            age = 1 - (act.t * 1.3 + k / 6) % 1
            p.circle(
                0.68 + push + (0.12 * (k - 2.5)) * age * 1.4,
                0.9 + 0.06 * (k % 2),
                0.035,
                (130, 110, 90),
                None,
            )
        for k in range(3):
            x = -0.98 - 0.08 * ((act.t * 3 + k / 3) % 1)
            p.line([(x, 0.36 + 0.1 * k), (x - 0.1, 0.34 + 0.1 * k)], WHITE, 0.035)


def hair_dryer(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color(((226, 70, 130), (150, 80, 180), (40, 42, 50), (60, 150, 170)))
    q = p.moved(0.0, 0.0, turn=0.08 * act.swing(0.8))
    q.line([(-0.26, 0.86), (-0.1, 0.98), (0.2, 0.94)], INK, 0.05)
    q.poly([(-0.46, 0.1), (-0.12, 0.16), (-0.12, 0.86), (-0.38, 0.86)], shade(paint, 0.75))
    q.rect(-0.3, 0.34, -0.2, 0.5, WHITE, INK, 0.02)
    q.circle(-0.42, -0.2, 0.46, paint)
    q.poly([(-0.42, -0.66), (0.34, -0.5), (0.34, 0.1), (-0.42, 0.26)], paint)
    q.poly([(0.34, -0.5), (0.56, -0.44), (0.56, 0.04), (0.34, 0.1)], (60, 62, 70))
    q.circle(-0.46, -0.2, 0.24, (60, 62, 70))
    for k in range(3):
        q.line([(-0.62, -0.3 + 0.1 * k), (-0.3, -0.3 + 0.1 * k)], STEEL, 0.025)
    if act.on:
        for k in range(5):
            y = -0.44 + 0.12 * k
            shift = 0.1 * ((act.t * 4 + k * 0.37) % 1)
            points = [(0.64 + shift + 0.1 * j, y + (k - 2) * 0.03 * j + 0.03 * (-1) ** j) for j in range(4)]
            q.line(points, (255, 170, 90), 0.04)


def kettle(p: Pen, look: Appearance, act: Motion) -> None:
    paint = look.color(((190, 196, 204), (200, 50, 46), (50, 110, 170), (60, 140, 110)))
    p.rect(-0.66, 0.82, 0.66, 0.94, (60, 60, 66))
    for k in range(6):
        x = -0.5 + 0.2 * k
        h = 0.1 + 0.04 * act.swing(2.3, k * 0.21)
        p.poly(
            [(x - 0.07, 0.84), (x, 0.84 - h), (x + 0.07, 0.84)],
            (70, 140, 250) if act.on else (70, 70, 76),
            None,
        )
    q = p.moved(0, 0.012 * act.swing(7))
    q.arc(-0.05, -0.12, 0.56, 195, 345, INK, 0.09)
    q.poly([(-0.62, 0.7), (-0.6, 0.1), (-0.34, -0.24), (0.26, -0.24), (0.52, 0.1), (0.54, 0.7)], paint)
    q.poly([(0.46, 0.26), (0.82, -0.22), (0.98, -0.16), (0.54, 0.54)], paint)
    q.ellipse(-0.04, -0.26, 0.32, 0.08, shade(paint, 0.8))
    q.circle(-0.04, -0.38, 0.08, INK)
    q.line([(-0.44, 0.2), (-0.46, 0.5)], WHITE, 0.07)
    if act.on:  # steam from the spout
        for k in range(5):
            age = (act.t * 1.1 + k / 5) % 1
            p.circle(
                0.9 + 0.1 * sin(5 * age + k),
                -0.28 - 0.66 * age,
                0.06 + 0.12 * age,
                WHITE,
                (170, 176, 184),
                0.02,
            )


def faucet(p: Pen, look: Appearance, act: Motion) -> None:
    metal = look.color((STEEL, (206, 176, 110)))
    p.poly([(-0.98, 0.5), (0.98, 0.5), (0.7, 0.96), (-0.7, 0.96)], (240, 242, 244))
    p.ellipse(0, 0.5, 0.98, 0.12, (206, 212, 218))
    p.ellipse(0, 0.52, 0.8, 0.08, (120, 180, 220) if act.on else (170, 176, 182), None)
    p.line([(-0.5, 0.46), (-0.5, -0.4)], INK, 0.27)
    p.line([(-0.5, 0.46), (-0.5, -0.4)], metal, 0.22)
    p.line(
        [(-0.5, -0.42), (-0.36, -0.62), (-0.1, -0.7), (0.16, -0.62), (0.28, -0.42), (0.28, -0.24)], INK, 0.25
    )
    p.line(
        [(-0.5, -0.42), (-0.36, -0.62), (-0.1, -0.7), (0.16, -0.62), (0.28, -0.42), (0.28, -0.24)], metal, 0.2
    )
    p.rect(0.15, -0.28, 0.41, -0.16, shade(metal, 0.8))
    p.line([(-0.5, -0.1), (-0.82, -0.24)], metal, 0.12)
    p.circle(-0.86, -0.26, 0.12, (214, 60, 60))
    if act.on:
        sway = 0.02 * act.swing(3.3)
        p.poly(
            [(0.19, -0.16), (0.37, -0.16), (0.35 + sway, 0.52), (0.21 + sway, 0.52)],
            (110, 186, 240),
            (60, 130, 200),
        )
        for k in range(3):
            y = -0.1 + 0.6 * ((act.t * 2.5 + k / 3) % 1)
            p.line([(0.28, y - 0.05), (0.28, y + 0.05)], WHITE, 0.04)
        for k in range(6):
            age = (act.t * 2.2 + k * 0.29) % 1
            p.circle(
                0.28 + (k - 2.5) * 0.12 * (0.4 + age),
                0.48 - 0.3 * age * (1 - age) * 2,
                0.045,
                (150, 210, 246),
                None,
            )


def door(p: Pen, look: Appearance, act: Motion) -> None:
    paint, skin, sleeve = look.color((*WOOD, (60, 90, 130), (150, 50, 44))), look.color(SKIN), look.color()
    p.rect(-0.62, -1.0, 0.5, 0.98, (230, 224, 210))
    p.rect(-0.52, -0.92, 0.4, 0.98, paint)
    for x in (-0.42, 0.0):
        for y0, y1 in ((-0.8, -0.1), (0.1, 0.82)):
            p.rect(x, y0, x + 0.32, y1, shade(paint, 0.82), INK, 0.02)
    p.circle(0.3, 0.04, 0.08, (234, 196, 80))
    if act.on:
        hit = act.pulse(0.1)
        x = 0.34 - 0.22 * hit
        p.line([(1.0, 0.3), (x + 0.26, -0.2)], INK, 0.3)
        p.line([(1.0, 0.3), (x + 0.26, -0.2)], sleeve, 0.25)
        p.ellipse(x + 0.08, -0.36, 0.2, 0.2, skin)
        for k in range(3):
            p.line([(x - 0.08, -0.44 + 0.09 * k), (x + 0.06, -0.44 + 0.09 * k)], shade(skin, 0.65), 0.03)
        if hit > 0.2:
            p.rays(-0.1, -0.36, 0.12, 0.26, 8, (255, 236, 120), 0.05)


HOME = {
    "television": television,
    "radio": radio,
    "telephone": telephone,
    "alarm clock": alarm_clock,
    "microwave": microwave,
    "vacuum cleaner": vacuum_cleaner,
    "hair dryer": hair_dryer,
    "kettle": kettle,
    "faucet": faucet,
    "door": door,
}
