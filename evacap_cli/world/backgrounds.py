"""Static backgrounds with silent clutter."""

from __future__ import annotations

from math import sin

from PIL import Image, ImageDraw

from evacap_cli.world.pen import BRIGHT, Appearance, Color, Pen, shade

WALLS: tuple[Color, ...] = (
    (214, 198, 170),
    (178, 196, 206),
    (196, 208, 180),
    (222, 190, 180),
    (200, 190, 214),
    (236, 228, 210),
)
SKIES: tuple[Color, ...] = (
    (150, 200, 236),
    (186, 212, 230),
    (236, 200, 170),
    (170, 186, 204),
    (120, 180, 230),
)
GRASS: tuple[Color, ...] = ((118, 168, 84), (146, 172, 92), (96, 150, 90), (170, 176, 100))
# the unit is half the frame height: x in [-1.34, 1.34], y in [-1, 1]


def _sky(p: Pen, look: Appearance, horizon: float, palette: tuple[Color, ...] = SKIES) -> None:
    top = look.color(palette)
    bands = 10
    for k in range(bands):
        y0 = -1 + (horizon + 1) * k / bands
        p.rect(-1.4, y0, 1.4, y0 + (horizon + 1) / bands + 0.02, shade(top, 1 + 0.35 * k / bands), None)


def _hills(p: Pen, look: Appearance, y: float, tone: Color) -> None:
    a, b = look.between(0, 6), look.between(1.5, 3.0)
    points = [(-1.4 + 0.14 * k, y - 0.1 - 0.1 * sin(a + b * 0.14 * k * 1.3)) for k in range(21)]
    p.poly([*points, (1.4, y + 0.1), (-1.4, y + 0.1)], tone, None)


def _house(p: Pen, look: Appearance, x: float, y: float, w: float, h: float) -> None:
    wall = look.color(WALLS)
    p.rect(x, y - h, x + w, y, shade(wall, 0.88), (90, 84, 84), 0.012)
    columns = max(2, int(w / 0.16))
    rows = max(2, int(h / 0.2))
    for i in range(columns):
        for j in range(rows):
            gx, gy = x + w * (i + 0.25) / columns, y - h + h * (j + 0.25) / rows
            p.rect(gx, gy, gx + 0.5 * w / columns, gy + 0.5 * h / rows, (120, 140, 160), None)


def street(p: Pen, look: Appearance) -> None:
    _sky(p, look, 0.3)
    x = -1.4
    while x < 1.4:
        w = look.between(0.34, 0.62)
        _house(p, look, x, 0.3, w, look.between(0.5, 1.0))
        x += w + look.between(0.0, 0.08)
    p.rect(-1.4, 0.3, 1.4, 0.44, (176, 172, 168), None)
    p.rect(-1.4, 0.44, 1.4, 1.0, (104, 104, 110), None)
    for k in range(6):
        p.rect(-1.3 + 0.5 * k, 0.76, -1.05 + 0.5 * k, 0.8, (236, 230, 200), None)


def city(p: Pen, look: Appearance) -> None:
    _sky(p, look, 0.3)
    x = -1.4
    while x < 1.4:
        w = look.between(0.24, 0.44)
        tone = shade(look.color(((120, 130, 146), (150, 150, 158), (110, 116, 124))), 1.15)
        h = look.between(0.5, 1.25)
        p.rect(x, 0.4 - h, x + w, 0.4, tone, (90, 96, 106), 0.012)
        for j in range(int(h / 0.14)):
            for i in range(int(w / 0.1)):
                p.rect(
                    x + 0.04 + 0.1 * i,
                    0.44 - h + 0.14 * j,
                    x + 0.09 + 0.1 * i,
                    0.5 - h + 0.14 * j,
                    (200, 210, 200),
                    None,
                )
        x += w + 0.02
    p.rect(-1.4, 0.4, 1.4, 1.0, (128, 126, 128), None)
    p.rect(-1.4, 0.4, 1.4, 0.46, (170, 168, 166), None)


def meadow(p: Pen, look: Appearance) -> None:
    _sky(p, look, 0.2)
    green = look.color(GRASS)
    _hills(p, look, 0.16, shade(green, 1.25))
    p.rect(-1.4, 0.18, 1.4, 1.0, green, None)
    for _ in range(26):
        x, y = look.between(-1.35, 1.35), look.between(0.26, 0.98)
        p.line([(x, y), (x + 0.02, y - 0.06)], shade(green, 0.8), 0.014)
    for k in range(9):
        p.rect(-1.36 + 0.34 * k, 0.04, -1.32 + 0.34 * k, 0.24, (196, 180, 150), None)
    p.rect(-1.4, 0.09, 1.4, 0.12, (196, 180, 150), None)


def park(p: Pen, look: Appearance) -> None:
    _sky(p, look, 0.2)
    green = look.color(GRASS)
    for _ in range(7):
        x = look.between(-1.4, 1.4)
        p.circle(x, 0.16, look.between(0.12, 0.24), shade(green, look.between(0.7, 0.9)), None)
    p.rect(-1.4, 0.18, 1.4, 1.0, green, None)
    p.poly([(-0.5, 1.0), (-0.06, 0.18), (0.1, 0.18), (0.7, 1.0)], (214, 196, 160), None)
    for _ in range(14):
        x, y = look.between(-1.35, 1.35), look.between(0.3, 0.96)
        p.circle(x, y, 0.022, look.color(), None)


def forest(p: Pen, look: Appearance) -> None:
    p.rect(-1.4, -1.0, 1.4, 1.0, look.color(((150, 184, 150), (170, 190, 160), (130, 160, 146))), None)
    for _ in range(13):
        x, w = look.between(-1.4, 1.4), look.between(0.05, 0.12)
        tone = look.between(0.7, 1.2)
        p.rect(x, -1.0, x + w, 0.4, shade((112, 92, 72), tone), None)
    p.rect(-1.4, -1.0, 1.4, -0.72, (84, 128, 80), None)
    for k in range(16):
        p.circle(-1.36 + 0.18 * k, -0.72, look.between(0.08, 0.18), (84, 128, 80), None)
    p.rect(-1.4, 0.36, 1.4, 1.0, look.color(((112, 104, 66), (96, 122, 70))), None)


def night(p: Pen, look: Appearance) -> None:
    _sky(p, look, 0.3, ((24, 30, 66), (34, 34, 60), (20, 40, 70)))
    for _ in range(24):
        p.circle(look.between(-1.35, 1.35), look.between(-0.98, 0.1), 0.011, (240, 240, 220), None)
    p.circle(look.between(-1.1, 1.1), -0.74, 0.15, (246, 240, 206), None)
    _hills(p, look, 0.3, (40, 52, 66))
    p.rect(-1.4, 0.3, 1.4, 1.0, (58, 72, 70), None)


def beach(p: Pen, look: Appearance) -> None:
    _sky(p, look, 0.0)
    p.rect(-1.4, 0.0, 1.4, 0.36, look.color(((70, 150, 200), (60, 130, 180))), None)
    p.rect(-1.4, 0.34, 1.4, 1.0, look.color(((236, 214, 160), (228, 204, 150))), None)
    for _ in range(16):
        p.ellipse(look.between(-1.3, 1.3), look.between(0.44, 0.96), 0.03, 0.014, (206, 180, 130), None)


def lake(p: Pen, look: Appearance) -> None:
    _sky(p, look, 0.0)
    _hills(p, look, 0.02, look.color(((96, 136, 110), (120, 140, 150))))
    water = look.color(((84, 146, 186), (96, 156, 176)))
    p.rect(-1.4, 0.04, 1.4, 1.0, water, None)
    for _ in range(16):
        x, y = look.between(-1.3, 1.2), look.between(0.12, 0.96)
        p.line([(x, y), (x + 0.16, y)], shade(water, 1.25), 0.014)


def _window(p: Pen, look: Appearance, x: float, y: float) -> None:
    p.rect(x, y, x + 0.44, y + 0.56, look.color(SKIES), (244, 240, 232), 0.05)
    p.line([(x + 0.22, y), (x + 0.22, y + 0.56)], (244, 240, 232), 0.03)
    p.line([(x, y + 0.28), (x + 0.44, y + 0.28)], (244, 240, 232), 0.03)


def room(p: Pen, look: Appearance) -> None:
    wall = look.color(WALLS)
    p.rect(-1.4, -1.0, 1.4, 0.5, wall, None)
    if look.whole(0, 1):
        for k in range(14):
            p.rect(-1.36 + 0.2 * k, -1.0, -1.3 + 0.2 * k, 0.5, shade(wall, 0.94), None)
    _window(p, look, look.dice.pick((-1.26, 0.84)), -0.74)
    p.rect(-1.4, 0.46, 1.4, 0.52, (236, 232, 224), None)
    floor = look.color(((166, 118, 76), (140, 110, 90), (180, 150, 120)))
    p.rect(-1.4, 0.52, 1.4, 1.0, floor, None)
    for k in range(4):
        p.line([(-1.4, 0.6 + 0.11 * k), (1.4, 0.6 + 0.11 * k)], shade(floor, 0.86), 0.012)


def kitchen(p: Pen, look: Appearance) -> None:
    tile = look.color(((224, 230, 232), (214, 226, 214), (236, 226, 206)))
    p.rect(-1.4, -1.0, 1.4, 0.5, tile, None)
    for k in range(15):
        p.line([(-1.4 + 0.2 * k, -1.0), (-1.4 + 0.2 * k, 0.5)], shade(tile, 0.9), 0.012)
    for k in range(8):
        p.line([(-1.4, -0.9 + 0.2 * k), (1.4, -0.9 + 0.2 * k)], shade(tile, 0.9), 0.012)
    board = look.color(BRIGHT)
    board = shade(board, 1.3)
    for k in range(4):
        p.rect(-1.34 + 0.68 * k, -1.0, -0.74 + 0.68 * k, -0.68, board, shade(board, 0.6), 0.014)
    p.rect(-1.4, 0.5, 1.4, 0.6, (120, 108, 100), None)
    p.rect(-1.4, 0.6, 1.4, 1.0, board, None)


def office(p: Pen, look: Appearance) -> None:
    wall = look.color(WALLS)
    p.rect(-1.4, -1.0, 1.4, 0.56, wall, None)
    x = look.dice.pick((-1.3, 0.7))
    for j in range(3):
        p.rect(x, -0.62 + 0.36 * j, x + 0.6, -0.58 + 0.36 * j, (130, 96, 66), None)
        for k in range(6):
            h = look.between(0.14, 0.26)
            p.rect(
                x + 0.03 + 0.09 * k,
                -0.62 + 0.36 * j - h,
                x + 0.1 + 0.09 * k,
                -0.62 + 0.36 * j,
                look.color(),
                None,
            )
    p.rect(-1.4, 0.56, 1.4, 1.0, look.color(((170, 130, 90), (196, 176, 150), (120, 120, 128))), None)


def plain(p: Pen, look: Appearance) -> None:
    tone = look.color((*WALLS, *SKIES, (120, 124, 132)))
    for k in range(10):
        p.rect(-1.4, -1.0 + 0.2 * k, 1.4, -0.79 + 0.2 * k, shade(tone, 1.1 - 0.02 * k), None)


PLACES = {
    "street": street,
    "city": city,
    "meadow": meadow,
    "park": park,
    "forest": forest,
    "night": night,
    "beach": beach,
    "lake": lake,
    "room": room,
    "kitchen": kitchen,
    "office": office,
    "plain": plain,
}


def draw_background(name: str, seed: int, width: int, height: int) -> Image.Image:
    """Draws a background as an RGB image."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    scale = max(width / 2.68, height / 2)
    look = Appearance(seed)
    PLACES[name](Pen(draw, width / 2, height / 2, scale, flip=seed % 2 == 1), look)
    return image
