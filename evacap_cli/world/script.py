"""The script of a clip: pure data that describes its sounds, objects and captions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SECONDS = 10.0
KINDS = ("matched", "off-screen", "dubbed", "distractor")


@dataclass(frozen=True)
class Sound:
    """One sounding event. Times are in seconds of the clip; `level` is the RMS of its active parts in dBFS."""

    event: str
    sound: str  # acoustic class: shared by the members of a family
    start: float
    end: float
    hits: tuple[float, ...]  # times of strokes; empty for a sustained sound
    count: int  # number of strokes for captions; 0 if they are not countable
    loudness: str  # normal | loud | faint | distant
    level: float
    pitch: float
    seed: int
    visible: bool
    recording: str = ""  # file of the recordings folder, or empty for a synthetic voice
    speed: float = 1.0
    offset: float = 0.0  # start position in a long recording, 0..1


@dataclass(frozen=True)
class VisibleObject:
    """One drawn object, centred at (x, y) with half size `size`, in pixels of a 320 x 240 frame."""

    object: str
    role: str  # sounding | silent | dubbed (moves as if it sounded)
    event: str  # name of its event, empty if silent
    x: float
    y: float
    size: float
    flip: bool
    seed: int
    start: float = 0.0
    end: float = 0.0
    hits: tuple[float, ...] = ()


@dataclass(frozen=True)
class ClipScript:
    """The complete description of a clip. `to_dict` converts it for JSON."""

    key: str
    world: int  # seed of the world
    index: int
    kind: str
    sounds: tuple[Sound, ...]
    seen: tuple[VisibleObject, ...]
    background: str
    background_seed: int
    room: float  # reverberation time in seconds
    wet: float  # reverberation level, 0..1
    floor: float  # level of the recorder's noise floor in dBFS
    captions: tuple[str, ...] = field(default=())

    @property
    def sound_labels(self) -> list[str]:
        """Acoustic classes of the sounds."""
        return list(dict.fromkeys(s.sound for s in self.sounds))

    @property
    def object_labels(self) -> list[str]:
        """All visible objects, sounding or not."""
        return list(dict.fromkeys(s.object for s in self.seen))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ClipScript:
        """The inverse of `to_dict`, also after conversion to JSON and back."""
        fields = dict(data)
        fields["sounds"] = tuple(Sound(**{**s, "hits": tuple(s["hits"])}) for s in data["sounds"])
        fields["seen"] = tuple(VisibleObject(**{**s, "hits": tuple(s["hits"])}) for s in data["seen"])
        fields["captions"] = tuple(data["captions"])
        return cls(**fields)
