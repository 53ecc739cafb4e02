"""A procedural world of sounds and sights with captions: the same clips from the same seed, on any machine.

>>> world = World(seed=1)
>>> script = world.script(0)           # pure data: what sounds, what is seen, five captions
>>> wave = render_audio(script)        # (160000,) float32, 16 kHz
>>> frame = render_frame(script, 2.5)  # (240, 320, 3) uint8
"""

from __future__ import annotations

from .audio import render_audio
from .events import RECORDED, SYNTHETIC, Event
from .objects import BACKGROUNDS, OBJECTS
from .picture import render_frame
from .recordings import OPEN_LICENSES, RecordingBank
from .script import SECONDS, ClipScript, Seen, Sound
from .world import World

__all__ = [
    "BACKGROUNDS",
    "OBJECTS",
    "OPEN_LICENSES",
    "RECORDED",
    "SECONDS",
    "SYNTHETIC",
    "ClipScript",
    "Event",
    "RecordingBank",
    "Seen",
    "Sound",
    "World",
    "render_audio",
    "render_frame",
]
