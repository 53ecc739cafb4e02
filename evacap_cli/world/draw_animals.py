"""Drawings of animals, as functions of (pen in a unit box, look, act)."""

from __future__ import annotations

from evacap_cli.world.pen import INK, RED, WHITE, Appearance, Motion, Pen, shade


def _eye(p: Pen, x: float, y: float, r: float = 0.07) -> None:
    p.circle(x, y, r, WHITE, INK, 0.02)
    p.circle(x + r * 0.25, y, r * 0.5, INK, None)


def bird(p: Pen, look: Appearance, act: Motion) -> None:
    feathers = look.color(((60, 120, 200), (214, 70, 50), (240, 190, 50), (70, 150, 90), (150, 100, 60)))
    p.line([(-1.0, 0.62), (1.0, 0.5)], (104, 72, 44), 0.11)
    for x in (-0.7, 0.72):
        p.ellipse(x, 0.44, 0.18, 0.09, (72, 140, 60))
    chirp = act.on and act.age < 0.55
    q = p.moved(0, -0.04 * act.pulse(0.25))
    q.poly([(-0.44, 0.12), (-0.95, 0.34), (-0.9, 0.1), (-0.5, -0.06)], shade(feathers, 0.75))
    q.ellipse(-0.06, 0.08, 0.5, 0.4, feathers)
    q.ellipse(0.04, 0.22, 0.34, 0.24, shade(feathers, 1.55), None)
    q.circle(0.34, -0.3, 0.3, feathers)
    q.poly(
        [(-0.36, -0.02), (0.12, -0.06), (-0.1, 0.28 - 0.14 * act.swing(3)), (-0.5, 0.24)],
        shade(feathers, 0.7),
    )
    _eye(q, 0.42, -0.36, 0.08)
    beak = (244, 160, 40)
    if chirp:
        q.poly([(0.58, -0.34), (0.96, -0.46), (0.62, -0.26)], beak)
        q.poly([(0.6, -0.26), (0.88, -0.06), (0.54, -0.18)], beak)
        p.waves(0.9, -0.36, act, -25)
    else:
        q.poly([(0.6, -0.36), (0.94, -0.26), (0.58, -0.18)], beak)
    for x in (-0.1, 0.1):
        q.line([(x, 0.46), (x, 0.6)], beak, 0.05)


def bee(p: Pen, look: Appearance, act: Motion) -> None:
    q = p.moved(0.14 * act.swing(0.55), 0.12 * act.swing(0.9, 0.3), turn=0.12 * act.swing(0.7))
    flap = 0.35 * act.swing(4.3)
    for x, turn in ((-0.16, -0.5 - flap), (0.1, 0.1 + flap)):
        wing = q.moved(x, -0.3, turn=turn)
        wing.ellipse(0, -0.34, 0.2, 0.42, (214, 234, 246), (120, 150, 170), 0.03)
    q.poly([(-0.62, 0.06), (-0.88, 0.12), (-0.6, 0.2)], INK)
    q.ellipse(-0.08, 0.1, 0.6, 0.4, (246, 200, 40))
    for x, h in ((-0.42, 0.3), (-0.16, 0.385), (0.1, 0.37)):
        q.rect(x - 0.06, 0.1 - h, x + 0.06, 0.1 + h, INK, None)
    q.circle(0.52, 0.04, 0.27, (246, 200, 40))
    _eye(q, 0.6, -0.02, 0.09)
    for x in (0.44, 0.64):
        q.line([(x, -0.2), (x + 0.12, -0.46)], INK, 0.04)
        q.circle(x + 0.12, -0.48, 0.05, INK)
    if act.on:
        for k in range(4):
            p.circle(
                -0.86 + 0.13 * k - 0.04,
                0.44 + 0.1 * (k % 2) + 0.05 * act.swing(1.1, 0.2 * k),
                0.03,
                INK,
                None,
            )


def cat(p: Pen, look: Appearance, act: Motion) -> None:
    fur = look.color(((230, 150, 70), (120, 120, 126), (60, 56, 60), (222, 200, 170)))
    opened = max(0.0, 1 - abs(act.age - 0.4) / 0.45) if act.on else 0.0
    p.line([(0.5, 0.84), (0.92, 0.7), (0.86 + 0.08 * act.swing(0.8), 0.26), (0.98, 0.1)], fur, 0.16)
    p.ellipse(0.08, 0.6, 0.52, 0.42, fur)
    for x in (-0.22, 0.08):
        p.rect(x - 0.1, 0.56, x + 0.1, 0.98, fur, round_=0.09)
    q = p.moved(-0.06, -0.03 * opened, turn=-0.12 * opened)
    for s in (-1, 1):
        q.poly([(s * 0.52, -0.26), (s * 0.5, -0.92), (s * 0.12, -0.6)], fur)
        q.poly([(s * 0.43, -0.4), (s * 0.43, -0.74), (s * 0.22, -0.56)], (240, 170, 170), None)
    q.ellipse(0, -0.22, 0.58, 0.5, fur)
    for k in (-0.14, 0.0, 0.14):
        q.line([(k, -0.68), (k * 0.8, -0.5)], shade(fur, 0.6), 0.05)
    for s in (-1, 1):
        q.ellipse(s * 0.24, -0.28, 0.11, 0.12, (196, 220, 80))
        q.ellipse(s * 0.24, -0.28, 0.035, 0.1, INK, None)
        for k in (-0.06, 0.04, 0.14):
            q.line([(s * 0.2, 0.0 + k * 0.5), (s * 0.8, -0.06 + k)], WHITE, 0.02)
    q.poly([(-0.08, -0.12), (0.08, -0.12), (0, -0.03)], (230, 120, 130))
    if opened > 0.1:
        q.ellipse(0, 0.09, 0.13, 0.05 + 0.11 * opened, (150, 40, 50))
        p.waves(0.5, 0.06, act, 10)
    else:
        q.line([(-0.14, 0.05), (0, 0.0), (0.14, 0.05)], INK, 0.035)


def cow(p: Pen, look: Appearance, act: Motion) -> None:
    hide, spot = look.color(((244, 240, 234), (230, 220, 204))), look.color(((40, 36, 38), (120, 70, 40)))
    opened = max(0.0, 1 - abs(act.age - 0.8) / 0.9) if act.on else 0.0
    for x in (-0.66, -0.42, 0.12, 0.34):
        p.rect(x - 0.08, 0.3, x + 0.08, 0.86, hide)
        p.rect(x - 0.09, 0.8, x + 0.09, 0.9, INK)
    p.line([(-0.86, -0.18), (-0.98, 0.3 + 0.05 * act.swing(1))], hide, 0.06)
    p.circle(-0.98, 0.36, 0.07, spot)
    p.rect(-0.88, -0.32, 0.46, 0.42, hide, round_=0.2)
    p.ellipse(-0.52, -0.1, 0.2, 0.17, spot, None)
    p.ellipse(-0.02, 0.12, 0.24, 0.16, spot, None)
    p.ellipse(0.02, -0.24, 0.14, 0.07, spot, None)
    p.ellipse(-0.28, 0.44, 0.16, 0.1, (240, 170, 170))
    q = p.moved(0.6, -0.32 - 0.05 * opened, turn=-0.16 * opened)
    for s in (-1, 1):
        q.poly([(s * 0.16, -0.26), (s * 0.32, -0.52), (s * 0.26, -0.2)], (226, 210, 170))
        q.ellipse(s * 0.4, -0.12, 0.17, 0.09, hide)
    q.poly([(-0.3, -0.26), (0.3, -0.26), (0.24, 0.3), (-0.24, 0.3)], hide)
    q.poly([(0.0, -0.26), (0.3, -0.26), (0.26, 0.08), (0.06, 0.04)], spot, None)
    q.ellipse(0, 0.34 + 0.1 * opened, 0.27, 0.2, (240, 180, 180))
    if opened > 0.1:
        q.ellipse(0, 0.44 + 0.06 * opened, 0.17, 0.03 + 0.13 * opened, (130, 40, 50))
        p.waves(0.9, 0.0, act, 20)
    for s in (-1, 1):
        q.circle(s * 0.11, 0.28, 0.04, INK, None)
        _eye(q, s * 0.15, -0.04, 0.07)


def frog(p: Pen, look: Appearance, act: Motion) -> None:
    skin = look.color(((84, 170, 70), (110, 150, 60), (60, 150, 100)))
    croak = act.on and act.age < 0.42
    p.ellipse(0, 0.78, 0.98, 0.2, (40, 120, 80))
    for s in (-1, 1):
        p.ellipse(s * 0.62, 0.46, 0.3, 0.32, shade(skin, 0.85))
        p.ellipse(s * 0.66, 0.76, 0.3, 0.08, skin)
    p.ellipse(0, 0.3, 0.6, 0.48, skin)
    for s in (-1, 1):
        p.circle(s * 0.36, -0.42, 0.24, skin)
        p.circle(s * 0.36, -0.44, 0.16, WHITE)
        p.ellipse(s * 0.36, -0.44, 0.1, 0.06, INK, None)
    p.ellipse(0, -0.14, 0.64, 0.36, skin)
    p.arc(0, -0.34, 0.52, 30, 150, (40, 80, 30), 0.05)
    swell = 0.34 if croak else 0.12
    p.ellipse(0, 0.3, swell * 1.35, swell, (226, 234, 160))
    for s in (-1, 1):
        p.line([(s * 0.26, 0.5), (s * 0.3, 0.8)], skin, 0.14)
        p.ellipse(s * 0.34, 0.82, 0.16, 0.06, skin)
    if croak:
        p.waves(0.66, -0.1, act, -10)
        p.moved(0, 0, 1).waves(-0.66, -0.1, act, 190)


def owl(p: Pen, look: Appearance, act: Motion) -> None:
    feathers = look.color(((140, 100, 60), (170, 150, 130), (110, 84, 70)))
    p.line([(-1.0, 0.82), (1.0, 0.76)], (90, 62, 40), 0.13)
    hoot = act.on and act.age < 1.0
    q = p.moved(0, 0, turn=0.1 * act.swing(0.5) if act.on else 0)
    p.ellipse(0, 0.26, 0.5, 0.58, feathers)
    p.ellipse(0, 0.34, 0.32, 0.44, shade(feathers, 1.5), None)
    for r in range(3):
        for k in range(3 - r % 2):
            p.arc(
                -0.18 + 0.18 * k + 0.09 * (r % 2), 0.14 + 0.2 * r, 0.08, 20, 160, shade(feathers, 0.7), 0.03
            )
    for s in (-1, 1):
        p.ellipse(s * 0.44, 0.3, 0.14, 0.42, shade(feathers, 0.7))
        p.line([(s * 0.14, 0.78), (s * 0.14, 0.88)], (240, 180, 60), 0.1)
    q.ellipse(0, -0.4, 0.54, 0.42, feathers)
    for s in (-1, 1):
        q.poly([(s * 0.5, -0.5), (s * 0.46, -0.94), (s * 0.16, -0.74)], feathers)
        q.circle(s * 0.24, -0.42, 0.23, (250, 240, 200))
        q.circle(s * 0.24, -0.42, 0.15, (248, 180, 40))
        q.circle(s * 0.24, -0.42, 0.09, INK, None)
    if hoot:
        q.poly([(-0.07, -0.28), (0.07, -0.28), (0, -0.18)], (70, 60, 50))
        q.ellipse(0, -0.08, 0.06, 0.08, (130, 40, 40))
        p.waves(0.6, -0.3, act, -10)
        p.waves(-0.6, -0.3, act, 190)
    else:
        q.poly([(-0.08, -0.3), (0.08, -0.3), (0, -0.1)], (70, 60, 50))


def duck(p: Pen, look: Appearance, act: Motion) -> None:
    feathers = look.color(((246, 214, 60), (246, 244, 236), (150, 110, 70)))
    green = look.whole(0, 1)
    head = (40, 120, 80) if green else feathers
    quack = act.on and act.age < 0.22
    p.ellipse(0, 0.72, 1.0, 0.2, (70, 140, 196), None)
    for x in (-0.72, 0.3):
        p.line([(x, 0.82), (x + 0.4, 0.82)], (190, 222, 240), 0.035)
    q = p.moved(0, 0.03 * act.swing(0.8))
    q.poly(
        [
            (-0.9, -0.06),
            (-0.5, 0.2),
            (0.0, 0.1),
            (0.3, 0.2),
            (0.52, 0.5),
            (0.3, 0.76),
            (-0.5, 0.76),
            (-0.8, 0.5),
        ],
        feathers,
    )
    q.poly([(-0.5, 0.3), (0.14, 0.24), (0.1, 0.52), (-0.3, 0.6)], shade(feathers, 0.78))
    q.line([(0.34, 0.34), (0.38, -0.2)], head, 0.3)
    if green:
        q.line([(0.22, 0.2), (0.5, 0.18)], WHITE, 0.07)
    q.circle(0.42, -0.34, 0.3, head)
    _eye(q, 0.5, -0.42, 0.075)
    bill = (244, 150, 40)
    if quack:
        q.poly([(0.66, -0.36), (1.04, -0.48), (1.02, -0.36), (0.7, -0.26)], bill)
        q.poly([(0.66, -0.24), (1.0, -0.08), (0.94, 0.0), (0.62, -0.16)], bill)
        p.waves(0.96, -0.24, act, 0)
    else:
        q.poly([(0.66, -0.38), (1.04, -0.3), (1.02, -0.2), (0.66, -0.2)], bill)


def dog(p: Pen, look: Appearance, act: Motion) -> None:
    fur = look.color(((170, 112, 60), (226, 190, 130), (90, 70, 56), (240, 236, 228), (60, 56, 58)))
    ear = shade(fur, 0.6)
    bark = act.on and (abs(act.swing(1.3)) > 0.35 if act.age > 50 else act.age < 0.35)
    q = p.moved(0, -0.03 if bark else 0.0)
    p.ellipse(-0.02, 0.94, 0.8, 0.06, (80, 80, 80), None)
    tail = 0.12 * act.swing(2.1)
    p.line([(-0.66, 0.2), (-0.84, -0.06), (-0.86 + tail, -0.36)], fur, 0.14)
    for x in (-0.56, -0.36, 0.1, 0.3):
        p.rect(x - 0.09, 0.3, x + 0.09, 0.94, fur, round_=0.06)
    p.rect(-0.72, 0.02, 0.4, 0.52, fur, round_=0.2)
    p.line([(0.22, 0.1), (0.34, -0.2)], fur, 0.34)
    q.circle(0.36, -0.4, 0.36, fur)
    if bark:
        q.poly([(0.56, -0.56), (1.02, -0.6), (1.02, -0.42), (0.6, -0.34)], fur)
        q.poly([(0.56, -0.22), (0.9, -0.02), (0.82, 0.08), (0.46, -0.06)], fur)
        q.poly([(0.6, -0.36), (0.9, -0.38), (0.84, -0.1), (0.58, -0.22)], (170, 50, 60), None)
        q.circle(1.0, -0.58, 0.08, INK, None)
        p.waves(1.0, -0.3, act, 0)
    else:
        q.rect(0.5, -0.5, 1.0, -0.14, fur, round_=0.14)
        q.circle(0.98, -0.46, 0.08, INK, None)
        q.line([(0.62, -0.22), (0.96, -0.22)], INK, 0.03)
    q.ellipse(0.1, -0.3, 0.14, 0.34, ear)
    _eye(q, 0.48, -0.52, 0.08)
    p.line([(0.14, -0.04), (0.44, 0.04)], RED, 0.08)


def rooster(p: Pen, look: Appearance, act: Motion) -> None:
    body = look.color(((180, 80, 30), (150, 50, 30), (240, 236, 226), (60, 50, 46)))
    crow = act.on and act.swing(0.45) > -0.5
    for k, tone in enumerate(((30, 90, 70), (40, 60, 110), (120, 40, 40), (30, 90, 70))):
        p.poly(
            [(-0.3, 0.3), (-0.62 - 0.1 * k, -0.5 + 0.2 * k), (-0.94, -0.34 + 0.26 * k), (-0.4, 0.46)], tone
        )
    for x in (-0.08, 0.16):
        p.line([(x, 0.6), (x, 0.92)], (240, 170, 50), 0.06)
        p.line([(x - 0.12, 0.94), (x + 0.16, 0.94)], (240, 170, 50), 0.06)
    p.ellipse(0.0, 0.32, 0.5, 0.4, body)
    p.ellipse(-0.08, 0.34, 0.3, 0.2, shade(body, 0.7))
    q = p.moved(0.28, 0.0, turn=-0.35 if crow else 0.0)
    q.poly([(-0.26, 0.3), (-0.14, -0.36), (0.24, -0.36), (0.24, 0.36)], (226, 150, 50))
    for k in range(3):
        q.circle(-0.08 + 0.14 * k, -0.72 + 0.03 * abs(k - 1), 0.12, RED)
    q.circle(0.06, -0.46, 0.26, (226, 150, 50))
    _eye(q, 0.14, -0.5, 0.07)
    q.ellipse(0.2, -0.16, 0.09, 0.15, RED)
    if crow:
        q.poly([(0.28, -0.52), (0.62, -0.6), (0.3, -0.4)], (244, 190, 60))
        q.poly([(0.28, -0.4), (0.54, -0.24), (0.26, -0.32)], (244, 190, 60))
        p.waves(0.66, -0.7, act, -40)
    else:
        q.poly([(0.28, -0.52), (0.58, -0.4), (0.28, -0.34)], (244, 190, 60))


ANIMALS = {
    "bird": bird,
    "bee": bee,
    "cat": cat,
    "cow": cow,
    "frog": frog,
    "owl": owl,
    "duck": duck,
    "dog": dog,
    "rooster": rooster,
}
