"""Features of clips of the procedural world, computed in worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from evacap_cli.data.store import Sample
from evacap_cli.features import FeatureSettings, crop_frame, fbank, frame_times
from evacap_cli.world import World, render_audio, render_frame

SECONDS = 10.0


@dataclass(frozen=True)
class Scene:
    """Clip `number` of a world as an item for a store. `make_sample` adds its captions."""

    number: int
    seed: int
    captions: tuple[str, ...] = ()
    error: str = ""

    @property
    def key(self) -> str:
        return f"clip-{self.number:05}"

    @property
    def source(self) -> str:
        return f"world {self.seed}, clip {self.number}"


@dataclass(frozen=True)
class Recordings:
    """The recordings that a world uses: a folder, and the selected folds and licences."""

    folder: str
    folds: tuple[int, ...]
    licenses: tuple[str, ...]


Kinds = tuple[float, float, float, float]
"""Weights of matched, off-screen, dubbed and distractor clips."""


@lru_cache(maxsize=8)
def world_of(seed: int, recordings: Recordings | None = None, kinds: Kinds | None = None) -> World:
    given: dict[str, Any] = {}
    if recordings is not None:
        given = {
            "recordings": Path(recordings.folder),
            "folds": recordings.folds,
            "licenses": recordings.licenses,
        }
    if kinds is not None:
        given |= dict(zip(("matched", "off_screen", "dubbed", "distractor"), kinds, strict=True))
    return World(seed, **given)


def make_sample(
    scene: Scene,
    settings: FeatureSettings,
    recordings: Recordings | None = None,
    kinds: Kinds | None = None,
) -> Sample:
    """The features of a scene, computed without encoding the media."""
    torch.set_num_threads(1)
    world = world_of(scene.seed, recordings, kinds)
    script = world.script(scene.number)
    wave = torch.from_numpy(render_audio(script, world.recordings))
    frames = [
        crop_frame(render_frame(script, t), settings.image_size) for t in frame_times(SECONDS, settings)
    ]
    truth = {"sounds": list(script.sound_labels), "things": list(script.object_labels), "kind": script.kind}
    return Sample(
        fbank(wave, settings)[0].half().numpy(),
        torch.stack(frames).numpy(),
        end=SECONDS,
        captions=script.captions,
        extra=truth,
    )
