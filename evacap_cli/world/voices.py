"""The registry of synthetic voices: acoustic class -> function from a `VoiceInput` to a wave."""

from __future__ import annotations

from collections.abc import Callable

from evacap_cli.world import voices_living as living
from evacap_cli.world import voices_machines as machines
from evacap_cli.world import voices_nature as nature
from evacap_cli.world.dsp import VoiceInput, Wave

VOICES: dict[str, Callable[[VoiceInput], Wave]] = {
    "engine idling": machines.engine_idle,
    "engine revving": machines.engine_rev,
    "siren": machines.siren,
    "telephone": machines.telephone,
    "beeping": machines.beeping,
    "whistling": machines.whistling,
    "helicopter": machines.helicopter,
    "truck horn": machines.truck_horn,
    "train horn": machines.train_horn,
    "motor": machines.motor,
    "sawing": machines.sawing,
    "ticking": machines.ticking,
    "typing": machines.typing,
    "bell": machines.bell,
    "drum": machines.drum,
    "guitar": machines.guitar,
    "male speech": living.man,
    "female speech": living.woman,
    "child speech": living.child,
    "laughter": living.laughter,
    "applause": living.applause,
    "bird song": living.bird,
    "insect": living.insect,
    "meow": living.cat,
    "moo": living.cow,
    "croak": living.frog,
    "hoot": living.owl,
    "quack": living.duck,
    "footsteps": living.footsteps,
    "knocking": living.knocking,
    "running water": nature.running_water,
    "dripping": nature.dripping,
    "wind": nature.wind,
    "thunder": nature.thunder,
    "rain": nature.rain,
}
