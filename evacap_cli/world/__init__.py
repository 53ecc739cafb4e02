"""Procedurally generated audio-visual clips with captions. A seed gives the same clips on every machine.

>>> world = World(seed=1)
>>> script = world.script(0)           # pure data: sounds, objects, five captions
>>> wave = render_audio(script)        # (160000,) float32, 16 kHz
>>> frame = render_frame(script, 2.5)  # (240, 320, 3) uint8
"""

from __future__ import annotations

from evacap_cli.world.audio import render_audio
from evacap_cli.world.events import RECORDED, SYNTHETIC, Event
from evacap_cli.world.objects import BACKGROUNDS, OBJECTS
from evacap_cli.world.picture import render_frame
from evacap_cli.world.recordings import OPEN_LICENSES, RecordingBank
from evacap_cli.world.script import SECONDS, ClipScript, Sound, VisibleObject
from evacap_cli.world.world import World

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
    "Sound",
    "VisibleObject",
    "World",
    "render_audio",
    "render_frame",
]
