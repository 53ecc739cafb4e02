"""Training scenes from real recordings: clips, their tags, and captions composed of the sounds with confident tags.

The audio classifier was trained on these recordings. Therefore each clip is tagged by a classifier that was not trained
on it (`distill.load_folds`), so that the errors of the tags are as on unseen recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from captions import CONFIDENCE, CONFIRMED, JOINED, Composer, Event, Scene, strengths
from distill import GROUPS, Examples, load_clips, load_folds, load_recordings
from listen import hear
from soundscapes import AUDIBLE, Sound, read_recordings
from torch import Tensor

from evacap_cli.model.lexicon import audioset_classes
from evacap_cli.model.tag_encoder import heard_tags

WINDOWS, HEARD = 5, 12
MIN_LEVEL = AUDIBLE / 2
"""Level from which one of several sounds is audible."""
BACKGROUND_LEVEL = 0.35
"""Level below which one of several sounds is in the background."""
GENERAL = 0.25

"""Share of captions that name only the kind of sound that is kept. They have few wordings, so beam search would
otherwise prefer them to the many wordings that name the sound."""


@dataclass(frozen=True)
class Clip:
    """The tags (HEARD, 2 + WINDOWS) of a clip, and the sounds in it."""

    tags: Tensor
    sounds: tuple[Sound, ...]


def clips_of(W: Path) -> list[Clip]:
    """All soundscapes and recordings of role `train` with labels."""
    folds = load_folds(W)
    scapes, sounds = load_clips(W)
    known = load_recordings(W, "train")
    labels = {r.path: r.labels for r in read_recordings(W / "recordings.csv", "train")}
    single = [[Sound(labels[path])] for path in known[1]]
    clips, classes = [], set(audioset_classes())
    for examples, what in ((scapes, sounds), (known[0], single)):
        for tags, found in zip(_tags(examples, folds), what, strict=True):
            audible = tuple(
                replace(sound, labels=tuple(name for name in sound.labels if name in classes))
                for sound in found
                if sound.level >= MIN_LEVEL
            )
            if all(sound.labels for sound in audible):  # otherwise the content of the clip is not fully known
                clips.append(Clip(tags, audible))
    return clips


def _tags(examples: Examples, folds: Sequence[torch.nn.Linear]) -> Tensor:
    tags = torch.zeros(len(examples.group), HEARD, 2 + WINDOWS)
    for g in range(GROUPS):
        for rows in (examples.group == g).nonzero()[:, 0].split(64):
            logits = torch.from_numpy(hear(examples.embeddings[rows].numpy(), folds[g]))
            tags[rows] = heard_tags(logits, HEARD, WINDOWS)
    return tags


@dataclass
class Recorded:
    """Draws a clip and composes its caption."""

    clips: Sequence[Clip]
    composer: Composer
    chances: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Clips whose first label is rare are drawn more often."""
        kinds = [clip.sounds[0].labels[:1] for clip in self.clips]
        counts = Counter(kinds)
        weight = np.array([self.composer.interest(kind[0]) / counts[kind] ** 0.5 for kind in kinds])
        self.chances = np.cumsum(weight) / weight.sum()

    def draw(self, rng: np.random.Generator, picture: bool = False) -> Scene:
        """Draws a scene. picture: whether it will have one, which may confirm sounds that are otherwise too faint."""
        while True:
            place = int(np.searchsorted(self.chances, rng.random()))
            scene = self.describe(
                self.clips[min(place, len(self.clips) - 1)], rng, picture and rng.random() < 0.5
            )
            if scene is None or not self.composer.fits(scene):
                continue
            if not scene.unsure or rng.random() < GENERAL:
                return scene

    def describe(self, clip: Clip, rng: np.random.Generator, shown: bool = False) -> Scene | None:
        """Composes a caption of the sounds in the clip that have confident tags. None if there are none."""
        heard = strengths(clip.tags)
        named: list[tuple[Sound, Event, dict[str, list[str]]]] = []
        general: dict[str, list[str]] | None = None
        for sound in sorted(clip.sounds, key=lambda s: (s.part, -s.level)):
            part = len(named) if sound.part >= 0 else -1
            label = self._label(sound, heard, CONFIRMED if shown else CONFIDENCE, rng)
            if label is not None:
                named.append((sound, Event(label, True, part), self._phrases(label, heard, shown)))
            elif not named and (family := self._family(sound, heard)) is not None:
                label = self.composer.vocabulary.place[sound.labels[0]]
                general = family
                named.append((sound, Event(label, True, part), family))
        named = [x for x in named if all(x[2].values())]
        if not named:
            return None
        sound, event, phrases = named[0]
        text, events = str(rng.choice(phrases["alone"])), [event]
        for sound, event, phrases in named[1:]:
            if event.part >= 0:
                joined = f"{text} followed by {rng.choice(phrases['noun'])}"
            elif sound.level < BACKGROUND_LEVEL and rng.random() < 0.6:
                joined = f"{text} with {rng.choice(phrases['noun'])} in the background"
            else:
                joined = f"{text} {rng.choice(JOINED)} {rng.choice(phrases['alone'])}"
            if not self.composer.vocabulary.repeats_a_sound(joined):
                text = joined
                events.append(event)
        parts = 1 + max(0, *(event.part for event in events))
        broad = all(self.composer.vocabulary.classes[e.label] in self.composer.general for e in events)
        return Scene(text, tuple(events), parts, broad or named[0][2] is general, clip.tags, shown)

    def _label(
        self, sound: Sound, heard: dict[int, float], threshold: float, rng: np.random.Generator
    ) -> int | None:
        """The first label of the sound with a confident tag. Labels are ordered from specific to general."""
        place, broad = self.composer.vocabulary.place, self.composer.general
        known = [name for name in sound.labels if heard.get(place.get(name, -1), 0.0) >= threshold]
        known = [name for name in known if place.get(name) in self.composer.phrases]
        special = [name for name in known if name not in broad]
        if len(special) > 1 and rng.random() < 0.2:
            return place[str(rng.choice(special[1:]))]
        return place[known[0]] if known else None

    def _phrases(self, label: int, heard: dict[int, float], shown: bool) -> dict[str, list[str]]:
        return self._allowed(self.composer.phrases[label], heard, shown)

    def _family(self, sound: Sound, heard: dict[int, float]) -> dict[str, list[str]] | None:
        """Phrases for a sound without a confident label: its kind, if that has a confident tag."""
        for name in sound.labels:
            if (family := self.composer.family(name)) is not None:
                return self._allowed(self.composer.general[family], heard, False)
        return None

    def _allowed(
        self, phrases: dict[str, list[str]], heard: dict[int, float], shown: bool
    ) -> dict[str, list[str]]:
        allows = self.composer.vocabulary.allows
        return {
            kind: [text for text in texts if allows(text, heard, shown)] for kind, texts in phrases.items()
        }
