"""Drawings of people, as functions of (pen in a unit box, look, act)."""

from __future__ import annotations

from math import sin

from evacap_cli.world.pen import BRIGHT, HAIR, INK, SKIN, WHITE, Appearance, Color, Motion, Pen, shade

MOUTH: Color = (130, 30, 36)


def _eyes(p: Pen, y: float, gap: float, r: float, t: float, seed: int) -> None:
    blink = (t + seed % 7) % 3.7 < 0.12
    for x in (-gap, gap):
        if blink:
            p.line([(x - r, y), (x + r, y)], INK, 0.03)
        else:
            p.circle(x, y, r, WHITE, INK, 0.02)
            p.circle(x, y, r * 0.5, INK, None)


def _mouth(p: Pen, y: float, wide: float, opened: float, lips: Color = MOUTH) -> None:
    if opened <= 0:
        p.line([(-wide * 0.8, y), (0, y + 0.03), (wide * 0.8, y)], lips, 0.045)
    else:
        p.ellipse(0, y + 0.03, wide * (0.75 + 0.2 * opened), 0.03 + 0.13 * opened, MOUTH, lips, 0.03)
        if opened > 0.45:
            p.rect(-wide * 0.4, y - 0.02 - 0.06 * opened, wide * 0.4, y + 0.01, WHITE, None)


def man_face(p: Pen, look: Appearance, act: Motion) -> None:
    """A man's head and shoulders, also used on the television."""
    skin, hair, shirt = look.color(SKIN), look.color(HAIR), look.color()
    style = look.whole(0, 2)
    opened = act.talk(look.seed % 11)
    p.poly([(-0.86, 1.0), (-0.74, 0.62), (-0.24, 0.46), (0.24, 0.46), (0.74, 0.62), (0.86, 1.0)], shirt)
    p.poly([(-0.2, 0.47), (0, 0.7), (0.2, 0.47)], WHITE)
    p.poly([(-0.06, 0.64), (0.06, 0.64), (0.09, 0.95), (0, 1.0), (-0.09, 0.95)], shade(shirt, 0.55))
    p.rect(-0.17, 0.3, 0.17, 0.52, shade(skin, 0.88), None)
    q = p.moved(0.02 * act.swing(0.7), 0.012 * act.swing(1.9), turn=0.04 * act.swing(0.45))
    for x in (-0.5, 0.5):
        q.ellipse(x, -0.12, 0.09, 0.13, skin)
    q.ellipse(0, -0.12, 0.5, 0.58, skin)
    q.poly([(-0.52, -0.22), (-0.5, -0.58), (-0.2, -0.8), (0.22, -0.8), (0.5, -0.58), (0.52, -0.22),
        (0.4, -0.44),
            (-0.36, -0.48)], hair)  # fmt: skip
    if style == 0:  # a full beard
        q.poly(
            [(-0.48, 0.0), (-0.42, 0.3), (0, 0.54), (0.42, 0.3), (0.48, 0.0), (0.3, 0.1), (-0.3, 0.1)],
            hair,
            None,
        )
        q.ellipse(0, 0.2, 0.24, 0.13, shade(skin, 0.95), None)
    elif style == 1:  # a moustache
        q.poly([(-0.26, 0.14), (0, 0.04), (0.26, 0.14), (0, 0.12)], hair, None)
    for x in (-0.2, 0.2):
        q.line([(x - 0.11, -0.28), (x + 0.11, -0.28)], hair, 0.06)
    _eyes(q, -0.16, 0.2, 0.075, act.t, look.seed)
    q.line([(0.0, -0.14), (0.06, 0.02), (-0.03, 0.03)], shade(skin, 0.65), 0.035)
    _mouth(q, 0.2, 0.2, opened)


def man(p: Pen, look: Appearance, act: Motion) -> None:
    man_face(p, look, act)
    if act.on:
        p.waves(0.46, 0.18, act, 0)


def woman(p: Pen, look: Appearance, act: Motion) -> None:
    skin, hair = look.color(SKIN), look.color(HAIR)
    dress = look.color(((214, 70, 120), (150, 80, 180), (226, 110, 90), (60, 150, 150), (230, 180, 80)))
    opened = act.talk(look.seed % 11)
    p.poly([(-0.62, -0.3), (-0.45, -0.72), (0, -0.88), (0.45, -0.72), (0.62, -0.3), (0.72, 0.62), (0.4, 0.72),
            (-0.4, 0.72), (-0.72, 0.62)], hair)  # fmt: skip
    p.poly([(-0.7, 1.0), (-0.6, 0.66), (-0.2, 0.52), (0.2, 0.52), (0.6, 0.66), (0.7, 1.0)], dress)
    p.ellipse(0, 0.56, 0.2, 0.13, skin, None)
    p.rect(-0.13, 0.26, 0.13, 0.56, shade(skin, 0.9), None)
    q = p.moved(0.02 * act.swing(0.8), 0.012 * act.swing(1.7), turn=0.05 * act.swing(0.5))
    q.ellipse(0, -0.12, 0.44, 0.53, skin)
    q.poly([(-0.46, -0.06), (-0.5, -0.42), (-0.2, -0.74), (0.24, -0.74), (0.5, -0.42), (0.46, -0.06),
        (0.34, -0.38),
            (0.02, -0.5), (-0.24, -0.34)], hair)  # fmt: skip
    for x in (-0.18, 0.18):
        q.line([(x - 0.12, -0.2), (x, -0.26), (x + 0.12, -0.2)], INK, 0.03)
        q.circle(x * 2.5, 0.16, 0.045, (240, 200, 70))
    _eyes(q, -0.14, 0.18, 0.075, act.t, look.seed)
    q.line([(0.0, -0.1), (0.03, 0.03)], shade(skin, 0.7), 0.03)
    _mouth(q, 0.19, 0.17, opened, (206, 40, 66))
    if act.on:
        p.waves(0.5, 0.18, act, 0)


def child(p: Pen, look: Appearance, act: Motion) -> None:
    skin, hair, shirt, shorts = look.color(SKIN), look.color(HAIR), look.color(), look.color(BRIGHT[1:])
    opened = act.talk(look.seed % 11)
    for x in (-0.16, 0.16):
        p.line([(x, 0.66), (x, 0.92)], skin, 0.13)
        p.ellipse(x + 0.04, 0.95, 0.13, 0.06, (70, 60, 60))
    wave = 0.25 * act.swing(1.1)
    p.line([(-0.26, 0.3), (-0.52, 0.5 - wave)], skin, 0.11)
    p.line([(0.26, 0.3), (0.54, 0.46 + wave)], skin, 0.11)
    p.rect(-0.28, 0.56, 0.28, 0.76, shorts)
    p.rect(-0.3, 0.16, 0.3, 0.6, shirt, round_=0.1)
    q = p.moved(0, 0.012 * act.swing(2.0), turn=0.06 * act.swing(0.6))
    for x in (-0.5, 0.5):
        q.ellipse(x, -0.34, 0.08, 0.1, skin)
    q.circle(0, -0.36, 0.5, skin)
    if look.seed % 2:  # a cap
        q.poly([(-0.5, -0.5), (-0.38, -0.82), (0, -0.94), (0.38, -0.82), (0.5, -0.5)], shirt)
        q.line([(-0.5, -0.5), (0.78, -0.5)], shade(shirt, 0.7), 0.09)
    else:  # pigtails
        for x in (-1, 1):
            q.ellipse(x * 0.64, -0.5, 0.15, 0.22, hair)
        q.poly(
            [
                (-0.5, -0.4),
                (-0.38, -0.76),
                (0, -0.9),
                (0.38, -0.76),
                (0.5, -0.4),
                (0.2, -0.62),
                (-0.2, -0.62),
            ],
            hair,
        )
    _eyes(q, -0.34, 0.19, 0.1, act.t, look.seed)
    for x in (-0.3, 0.3):
        q.ellipse(x, -0.16, 0.08, 0.05, (238, 150, 140), None)
    _mouth(q, -0.1, 0.15, opened)
    if act.on:
        p.waves(0.5, -0.08, act, 0)


def laughing_person(p: Pen, look: Appearance, act: Motion) -> None:
    skin, hair, shirt = look.color(SKIN), look.color(HAIR), look.color()
    bounce = 0.05 * abs(act.swing(2.4))
    q = p.moved(0, -bounce, turn=0.1 * act.swing(0.8))
    p.poly([(-0.8, 1.0), (-0.66, 0.66), (-0.2, 0.5), (0.2, 0.5), (0.66, 0.66), (0.8, 1.0)], shirt)
    q.circle(0, -0.08, 0.64, skin)
    for k in range(9):
        x = -0.56 + 0.14 * k
        q.circle(x, -0.54 - 0.16 * sin(3.14 * k / 8), 0.15, hair, None)
    if act.on:
        for x in (-0.26, 0.26):
            q.arc(x, -0.12, 0.14, 190, 350, INK, 0.06)
            q.ellipse(x * 2.15, 0.02, 0.06, 0.1, (90, 170, 230))
        q.poly([(-0.4, 0.08), (0.4, 0.08), (0.32, 0.32), (0.14, 0.46), (-0.14, 0.46), (-0.32, 0.32)], MOUTH)
        q.rect(-0.36, 0.09, 0.36, 0.19, WHITE, None)
        q.ellipse(0, 0.39, 0.16, 0.06, (226, 110, 110), None)
        for k, (x, y) in enumerate(((-0.86, -0.5), (0.84, -0.62), (0.9, 0.0))):
            if int(act.t * 4 + k) % 2:
                p.line([(x - 0.08, y - 0.1), (x - 0.08, y + 0.1)], INK, 0.05)
                p.line([(x + 0.06, y - 0.1), (x + 0.06, y + 0.1)], INK, 0.05)
                p.line([(x - 0.08, y), (x + 0.06, y)], INK, 0.05)
    else:
        _eyes(q, -0.12, 0.25, 0.09, act.t, look.seed)
        q.arc(0, 0.1, 0.24, 30, 150, MOUTH, 0.05)


def referee(p: Pen, look: Appearance, act: Motion) -> None:
    skin, hair = look.color(SKIN), look.color(HAIR)
    p.poly([(-0.6, 1.0), (-0.56, 0.5), (-0.3, 0.36), (0.3, 0.36), (0.56, 0.5), (0.6, 1.0)], WHITE)
    for k in range(5):
        x = -0.5 + 0.24 * k
        p.poly([(x, 0.42), (x + 0.11, 0.4), (x + 0.11, 1.0), (x, 1.0)], INK, None)
    up = act.on
    arm = [(0.5, 0.56), (0.8, 0.3), (0.76, -0.3)] if up else [(0.5, 0.56), (0.74, 0.8), (0.72, 1.0)]
    p.line(arm, INK, 0.22)
    p.line(arm, WHITE, 0.17)
    p.circle(*arm[-1], 0.13, skin)
    if up:
        p.rect(0.64, -0.82, 0.92, -0.4, (250, 214, 40))
    p.rect(-0.14, 0.2, 0.14, 0.42, shade(skin, 0.88), None)
    p.ellipse(0, -0.16, 0.44, 0.5, skin)
    p.poly(
        [
            (-0.46, -0.26),
            (-0.36, -0.62),
            (0, -0.74),
            (0.36, -0.62),
            (0.46, -0.26),
            (0.24, -0.46),
            (-0.24, -0.46),
        ],
        hair,
    )
    _eyes(p, -0.2, 0.18, 0.07, act.t, look.seed)
    p.line([(0, -0.14), (0.05, -0.02)], shade(skin, 0.7), 0.03)
    p.line([(0.1, 0.2), (0.02, 0.6)], (190, 40, 40), 0.03)
    if act.on:
        for x in (-0.3, 0.3):
            p.circle(x, 0.08, 0.13, shade(skin, 0.94), None)
        p.rect(-0.06, 0.08, 0.16, 0.2, (235, 190, 40), w=0.02)
        p.circle(0.14, 0.18, 0.12, (235, 190, 40), w=0.02)
        p.waves(0.3, 0.16, act, 15)
    else:
        _mouth(p, 0.14, 0.14, 0)
        p.circle(0.02, 0.66, 0.1, (235, 190, 40), w=0.02)
        p.rect(-0.16, 0.58, 0.02, 0.66, (235, 190, 40), w=0.02)


def walker(p: Pen, look: Appearance, act: Motion) -> None:
    skin, hair, shirt = look.color(SKIN), look.color(HAIR), look.color()
    trousers = look.color(((50, 60, 96), (70, 60, 50), (60, 66, 72)))
    side = 1.0 if act.stroke % 2 else -1.0
    step = side * (1 - 2 * min(1.0, act.age / 0.55)) * 0.44 if act.on else 0.08
    p.ellipse(0, 0.98, 0.6, 0.05, (80, 80, 84), None)
    q = p.moved(0, -0.03 * (1 - abs(step) / 0.44) if act.on else 0)
    q.line([(0.02, -0.2), (0.1 - step * 0.8, 0.12), (0.2 - step, 0.3)], shade(shirt, 0.75), 0.17)
    for s, tone in ((-step, 0.72), (step, 1.0)):
        foot = (s * 1.15, 0.93)
        q.line([(0.0, 0.24), (s * 0.75 + 0.09, 0.58), foot], shade(trousers, tone), 0.24)
        q.ellipse(foot[0] + 0.08, foot[1] + 0.01, 0.15, 0.07, (60, 40, 34))
    q.rect(-0.24, -0.36, 0.24, 0.3, shirt, round_=0.1)
    q.line([(0.0, -0.22), (-0.1 + step * 0.8, 0.12), (0.02 + step, 0.3)], shade(shirt, 0.85), 0.18)
    q.circle(0.03 + step, 0.32, 0.09, skin)
    q.circle(0.03, -0.62, 0.28, skin)
    q.poly(
        [
            (-0.26, -0.5),
            (-0.28, -0.74),
            (-0.08, -0.94),
            (0.18, -0.92),
            (0.28, -0.76),
            (0.02, -0.72),
            (-0.08, -0.46),
        ],
        hair,
    )
    q.circle(0.16, -0.62, 0.03, INK, None)
    q.line([(0.3, -0.62), (0.36, -0.56), (0.3, -0.54)], shade(skin, 0.7), 0.03)
    if act.on and act.age < 0.2:
        for k in (-1, 1):
            p.line([(step * 1.15 + 0.26, 0.92 + 0.05 * k), (step * 1.15 + 0.4, 0.9 + 0.08 * k)], WHITE, 0.04)


def audience(p: Pen, look: Appearance, act: Motion) -> None:
    for row, count in ((0, 3), (1, 2)):
        for k in range(count):
            skin, hair, shirt = look.color(SKIN), look.color(HAIR), look.color()
            x = (-0.68 + 0.68 * k) if count == 3 else (-0.36 + 0.72 * k)
            y = -0.48 + 0.78 * row
            beat = act.swing(2.6 + 0.3 * k, 0.3 * k + 0.2 * row)
            q = p.moved(x, y, 0.46)
            q.poly([(-0.8, 1.3), (-0.7, 0.7), (0.7, 0.7), (0.8, 1.3)], shirt)
            q.circle(0, 0, 0.62, skin)
            q.poly(
                [
                    (-0.62, -0.05),
                    (-0.5, -0.5),
                    (0, -0.74),
                    (0.5, -0.5),
                    (0.62, -0.05),
                    (0.3, -0.34),
                    (-0.3, -0.34),
                ],
                hair,
            )
            for ex in (-0.22, 0.22):
                q.circle(ex, 0.02, 0.08, INK, None)
            q.arc(0, 0.16, 0.22, 20, 160, MOUTH, 0.09)
            if act.on:  # hands together and apart
                gap = 0.12 + 0.26 * abs(beat)
                for side in (-1, 1):
                    q.line([(side * 0.7, 1.0), (side * (gap + 0.08), 0.62)], shirt, 0.24)
                    q.ellipse(side * gap, 0.5, 0.15, 0.26, skin)
                if gap < 0.24:
                    q.rays(0, 0.4, 0.4, 0.6, 7, (255, 240, 120), 0.07)


def baby(p: Pen, look: Appearance, act: Motion) -> None:
    skin, suit = (
        look.color(SKIN),
        look.color(((150, 200, 236), (244, 176, 196), (250, 226, 140), (170, 220, 170))),
    )
    kick = 0.12 * act.swing(2.2)
    p.ellipse(0, 0.56, 0.44, 0.36, suit)
    p.line([(-0.3, 0.76), (-0.56, 0.86 - kick)], suit, 0.22)
    p.line([(0.3, 0.76), (0.56, 0.86 + kick)], suit, 0.22)
    p.circle(-0.62, 0.86 - kick, 0.1, skin)
    p.circle(0.62, 0.86 + kick, 0.1, skin)
    p.line([(-0.36, 0.4), (-0.62, 0.16 - kick)], suit, 0.18)
    p.line([(0.36, 0.4), (0.62, 0.16 + kick)], suit, 0.18)
    p.circle(-0.65, 0.12 - kick, 0.1, skin)
    p.circle(0.65, 0.12 + kick, 0.1, skin)
    q = p.moved(0, 0, turn=0.07 * act.swing(1.4))
    for x in (-0.6, 0.6):
        q.circle(x, -0.26, 0.11, skin)
    q.circle(0, -0.3, 0.6, skin)
    q.arc(0.02, -0.88, 0.12, 60, 330, (110, 74, 40), 0.05)
    for x in (-0.36, 0.36):
        q.ellipse(x, -0.12, 0.11, 0.08, (240, 140, 130), None)
    if act.on:
        for x in (-1, 1):
            q.line([(x * 0.36, -0.4), (x * 0.14, -0.32), (x * 0.36, -0.26)], INK, 0.045)
            fall = (act.t * 1.3 + 0.5 * (x > 0)) % 1
            q.ellipse(x * 0.46, -0.2 + 0.42 * fall, 0.06, 0.09, (90, 170, 235))
        q.ellipse(0, 0.02, 0.2 + 0.03 * act.swing(3), 0.18 + 0.03 * act.swing(3), MOUTH)
        q.ellipse(0, 0.12, 0.1, 0.06, (230, 120, 120), None)
    else:
        _eyes(q, -0.32, 0.23, 0.1, act.t, look.seed)
        q.circle(0, 0.0, 0.13, (250, 210, 90))
        q.circle(0, 0.0, 0.06, (220, 110, 90))


def sneezing_person(p: Pen, look: Appearance, act: Motion) -> None:
    skin, hair, shirt = look.color(SKIN), look.color(HAIR), look.color()
    jerk = abs(act.swing(0.6)) if act.on else 0.0
    p.poly([(-0.8, 1.0), (-0.66, 0.62), (-0.3, 0.46), (0.1, 0.46), (0.5, 0.62), (0.62, 1.0)], shirt)
    q = p.moved(-0.14, 0.0, turn=0.28 * jerk)
    q.ellipse(0, -0.16, 0.48, 0.54, skin)
    q.poly(
        [(-0.5, 0.1), (-0.54, -0.4), (-0.2, -0.78), (0.26, -0.74), (0.5, -0.4), (0.1, -0.46), (-0.26, -0.3)],
        hair,
    )
    q.poly([(0.42, -0.18), (0.62, 0.0), (0.42, 0.06)], (232, 120, 100))
    if act.on:
        for x in (-0.06, 0.3):
            q.line([(x - 0.09, -0.26), (x + 0.07, -0.2), (x - 0.09, -0.14)], INK, 0.05)
        q.ellipse(0.3, 0.2, 0.12, 0.09, MOUTH)
        for k in range(12):  # the spray
            age = (act.t * 1.4 + k * 0.31) % 1
            up = ((k * 37) % 11) / 11 - 0.45
            p.circle(
                0.42 + 0.5 * age, 0.12 + up * (0.2 + 0.7 * age), 0.045, (190, 226, 244), (90, 150, 190), 0.02
            )
    else:
        _eyes(q, -0.2, 0.18, 0.075, act.t, look.seed)
        _mouth(q, 0.2, 0.14, 0)
    p.poly([(0.0, 0.4), (0.36, 0.3), (0.46, 0.62), (0.16, 0.72)], WHITE)
    p.circle(0.14, 0.66, 0.14, skin)


PEOPLE = {
    "man": man,
    "woman": woman,
    "child": child,
    "laughing person": laughing_person,
    "referee": referee,
    "walker": walker,
    "audience": audience,
    "baby": baby,
    "sneezing person": sneezing_person,
}
