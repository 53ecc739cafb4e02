"""Renders the frames of a script."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from evacap_cli.world.backgrounds import draw_background
from evacap_cli.world.draw_animals import ANIMALS
from evacap_cli.world.draw_home import HOME
from evacap_cli.world.draw_nature import NATURE
from evacap_cli.world.draw_people import PEOPLE
from evacap_cli.world.draw_tools import TOOLS, sign
from evacap_cli.world.draw_vehicles import VEHICLES
from evacap_cli.world.pen import Appearance, Motion, Pen
from evacap_cli.world.script import ClipScript, VisibleObject

DRAWINGS = {**VEHICLES, **PEOPLE, **ANIMALS, **HOME, **TOOLS, **NATURE}
OVERSAMPLE = 2  # anti-aliasing: frames are drawn at this factor and averaged


@lru_cache(maxsize=16)
def _background(name: str, seed: int, width: int, height: int) -> Image.Image:
    return draw_background(name, seed, width, height)


def act_at(seen: VisibleObject, t: float) -> Motion:
    """The state of an object at `t` seconds."""
    if seen.role == "silent" or not seen.start <= t <= seen.end:
        return Motion(t, False)
    k = bisect_right(seen.hits, t) - 1
    return Motion(t, True, t - seen.hits[k] if k >= 0 else 99.0, k)


def draw_object(draw: ImageDraw.ImageDraw, seen: VisibleObject, act: Motion, scale: float = 1.0) -> None:
    """Draws one object. `scale`: canvas pixels per pixel of a 320 x 240 frame."""
    pen = Pen(draw, seen.x * scale, seen.y * scale, seen.size * scale, seen.flip)
    DRAWINGS.get(seen.object, sign)(pen, Appearance(seen.seed), act)


def render_frame(script: ClipScript, t: float, width: int = 320, height: int = 240) -> np.ndarray:
    """(height, width, 3) uint8 at `t` seconds. Sizes other than 320 x 240 scale with the height."""
    w, h = width * OVERSAMPLE, height * OVERSAMPLE
    image = _background(script.background, script.background_seed, w, h).copy()
    scale = h / 240
    margin = (width * 240 / height - 320) / 2  # centre the picture in wider frames
    draw = ImageDraw.Draw(image)
    for seen in script.seen:
        draw_object(draw, replace(seen, x=seen.x + margin), act_at(seen, t), scale)
    return np.array(image.reduce(OVERSAMPLE))  # a copy, because Pillow's buffer is read-only
