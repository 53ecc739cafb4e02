"""Simulates the networks' tags of a scene from its labels, with statistics of real recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from captions import Scene, Scenes, Vocabulary, strengths
from torch import Tensor

from evacap_cli.features import FeatureSettings
from evacap_cli.model.tag_encoder import frame_tags, heard_tags
from evacap_cli.tasks.batches import Augmentation, Batch

WINDOWS = 5
SPREAD_FACTOR = 0.75
"""Factor of the measured spread, which includes faint sounds; with it, the 12th tag is as strong as a real one."""
FALSE_CLASSES = 4.0  # false classes per clip, in addition to relatives of present classes
TAG_NOISE = 0.25  # noise added to logits of real recordings, to avoid memorisation
ATTEMPTS = 4  # to draw a clip whose tags allow all words of its caption, as beam search requires
STEADY_SHARE = 0.35  # share of clips with equal windows: repeated short sounds, steady sounds


@dataclass(frozen=True)
class Statistics:
    """The statistics of `network_statistics.py`, for C_a sound and C_v picture classes; logits are of windows.

    background, spread: (C_a,) median and deviation of the logit of an absent class. relatives: (C_a, C_a), the rise of
    class j over its background as a share of the rise of class i. levels: quantiles of the logit of a present class
    over real recordings. spurious: (C_a,) relative frequency of a class among the tags when it is absent. kin: (C_v,
    C_v), `relatives` for pictures. ties: (C_a, C_v), see `ties.py`. people: (C_v,).
    """

    background: Tensor
    spread: Tensor
    relatives: Tensor
    levels: Tensor
    spurious: Tensor
    kin: Tensor
    ties: Tensor
    people: Tensor

    @classmethod
    def load(cls, path: Path) -> Statistics:
        with np.load(path) as values:
            return cls(*(torch.from_numpy(values[f.name]).float() for f in fields(cls)))

    def save(self, path: Path) -> None:
        np.savez_compressed(path, **{f.name: getattr(self, f.name).half().numpy() for f in fields(self)})


class Simulation:
    """Draws tags of batches of scenes."""

    def __init__(
        self, statistics: Statistics, heard: int = 12, seen: int = 8,
        photographs: Mapping[int, Sequence[Tensor]] | None = None,
    ) -> None:  # fmt: skip
        """photographs: by sound class, logits (C_v,) of real photographs."""
        self.s, self.heard, self.seen, self.photographs = statistics, heard, seen, photographs or {}
        self.shown = [row.nonzero()[:, 0].numpy() for row in statistics.ties >= 1]
        self.hinted = [row.nonzero()[:, 0].numpy() for row in statistics.ties > 0]
        self.people = statistics.people.nonzero()[:, 0].numpy()
        self.spurious = (statistics.spurious / statistics.spurious.sum()).numpy()

    # -- sound ---------------------------------------------------------------------------------------------------

    def sound(self, scenes: Sequence[Scene], rng: np.random.Generator) -> Tensor:
        """The tags (B, heard, 2 + windows) of scenes. Real recordings keep their own tags with added noise."""
        tags = torch.empty(len(scenes), self.heard, 2 + WINDOWS)
        drawn = [i for i, scene in enumerate(scenes) if scene.tags is None]
        if drawn:
            logits = self.logits([scenes[i] for i in drawn], rng)
            tags[drawn] = heard_tags(logits, self.heard, WINDOWS)
        for i, scene in enumerate(scenes):
            if scene.tags is not None:
                tags[i] = scene.tags
                numbers = (self.heard, 1), (self.heard, 1 + WINDOWS)
                tags[i, :, 1:] += TAG_NOISE * (_normal(rng, numbers[0]) + 0.5 * _normal(rng, numbers[1]))
        return tags

    def logits(self, scenes: Sequence[Scene], rng: np.random.Generator) -> Tensor:
        """(B, windows, C_a)."""
        s, B = self.s, len(scenes)
        C = len(s.background)
        noise = _normal(rng, (B, 1, C)) + 0.5 * _normal(rng, (B, WINDOWS, C))
        z = s.background + SPREAD_FACTOR * s.spread * noise + 0.7 * _normal(rng, (B, 1, 1))
        rows, classes, levels = [], [], []
        for i, scene in enumerate(scenes):
            steady = rng.random() < STEADY_SHARE
            clarity = rng.normal(0, 0.7)
            spans = _spans(scene.parts, rng)
            for event in scene.events:
                level = self._level(event.named, scene.unsure, rng) + clarity
                there = np.ones(WINDOWS, bool)
                if event.part >= 0:
                    there = spans[min(event.part, len(spans) - 1)]
                elif not steady and rng.random() < 0.5:  # not all the time
                    there = rng.random(WINDOWS) < rng.uniform(0.4, 1)
                    there[rng.integers(WINDOWS)] = True
                fall = rng.uniform(2, 6)
                rows.append(i)
                classes.append(event.label)
                levels.append(level - fall * ~there + rng.normal(0, 0.1 if steady else 0.5, WINDOWS))
            for label in self._wrong(scene, rng):
                rows.append(i)
                classes.append(label)
                levels.append(rng.normal(-3.2, 1.0) + rng.normal(0, 0.7, WINDOWS))
        index, kind = torch.tensor(rows), torch.tensor(classes)
        level = torch.from_numpy(np.stack(levels)).float()  # (E, W)
        wobble = (1 + 0.3 * _normal(rng, (len(rows), 1, C))).clamp(0.2, 1.3)
        share = s.relatives[kind][:, None] * wobble  # (E, 1, C)
        share[torch.arange(len(rows)), :, kind] = 1.0
        rise = (level - s.background[kind][:, None]).clamp(min=0)[..., None] * share  # (E, W, C)
        risen = torch.where(
            share > 0.02, s.background + rise + 0.3 * s.spread * _normal(rng, (len(rows), 1, C)), -99.0
        )
        return z.scatter_reduce_(0, index[:, None, None].expand_as(risen), risen, "amax")

    def _wrong(self, scene: Scene, rng: np.random.Generator) -> list[int]:
        """Absent classes with faint tags: relatives of present ones, frequent false ones, and random ones."""
        found: list[int] = []
        for kind in rng.random(rng.poisson(FALSE_CLASSES)):
            if kind < 0.5:
                event = scene.events[rng.integers(len(scene.events))]
                chances = self.s.relatives[event.label].numpy() + 0.002
                chances[[e.label for e in scene.events]] = 0
                found.append(int(rng.choice(len(chances), p=chances / chances.sum())))
            elif kind < 0.75:
                found.append(int(rng.choice(len(self.spurious), p=self.spurious)))
            else:
                found.append(int(rng.integers(len(self.spurious))))
        return found

    def _level(self, named: bool, unsure: bool, rng: np.random.Generator) -> float:
        """The logit of a present class in its windows."""
        levels = self.s.levels
        low, high = (0.35, 1.0) if named else (0.0, 0.5)
        if unsure:
            low, high = 0.0, 0.2
        place = rng.uniform(low, high) * (len(levels) - 1)
        return float(np.interp(place, np.arange(len(levels)), levels.numpy()))

    # -- picture -------------------------------------------------------------------------------------------------

    def picture(self, scenes: Sequence[Scene], rng: np.random.Generator) -> Tensor:
        """The tags (B, seen, 3) of one frame of each scene: the sound source, or objects that usually surround it."""
        return frame_tags(self.picture_logits(scenes, rng)[:, None], self.seen)

    def picture_logits(self, scenes: Sequence[Scene], rng: np.random.Generator) -> Tensor:
        """(B, C_v)."""
        s, B = self.s, len(scenes)
        C = len(s.people)
        z = 1.1 * _normal(rng, (B, C))
        for i, scene in enumerate(scenes):
            if (photograph := self._photograph(scene, rng)) is not None:
                z[i] = photograph + 0.5 * _normal(rng, (C,))
                continue
            things = self._things(scene, rng)
            top = rng.uniform(4, 10)
            for number, thing in enumerate(things):
                level = top - number * rng.uniform(0.3, 2.5)
                kin = s.kin[thing] * torch.from_numpy(1 + 0.3 * rng.standard_normal(C)).float().clamp(
                    0.3, 1.5
                )
                z[i] = torch.maximum(z[i], level * kin + 0.7 * _normal(rng, (C,)))
                z[i, thing] = level
        return z

    def _photograph(self, scene: Scene, rng: np.random.Generator) -> Tensor | None:
        """With some probability, the logits (C_v,) of a real photograph of a sound source of the scene."""
        fitting = [logits for e in scene.events if e.named for logits in self.photographs.get(e.label, ())]
        return fitting[int(rng.integers(len(fitting)))] if fitting and rng.random() < 0.5 else None

    def _things(self, scene: Scene, rng: np.random.Generator) -> list[int]:
        """Classes of the objects in a picture of the scene, the clearest first."""
        found: list[int] = []
        events = [e for e in scene.events if e.named]
        order = list(range(len(events)))
        rng.shuffle(order)
        for event in [events[i] for i in order[:2]]:
            shown, hinted = self.shown[event.label], self.hinted[event.label]
            if len(shown) and (scene.shown or rng.random() < 0.85):
                found.append(int(rng.choice(shown)))
            elif len(hinted) and rng.random() < 0.5:
                found.append(int(rng.choice(hinted)))
        clutter = [int(x) for x in rng.integers(0, len(self.s.people), rng.poisson(1.2))]
        if rng.random() < 0.15:
            clutter.append(int(rng.choice(self.people)))
        if not scene.shown and rng.random() < 0.12:
            return clutter or found  # the sound source is not visible
        return found + clutter


def _spans(parts: int, rng: np.random.Generator) -> list[np.ndarray]:
    """For each consecutive part, the windows in which it sounds, bool (W,)."""
    if parts <= 1:
        return [np.ones(WINDOWS, bool)]
    cuts = np.sort(rng.uniform(0.5, WINDOWS - 0.5, parts - 1))
    edges = np.concatenate([[0.0], cuts, [float(WINDOWS)]])
    middle = np.arange(WINDOWS) + 0.5
    spans = []
    for start, end in pairwise(edges):
        there = (middle > start - 0.5) & (middle < end + 0.5)
        there[min(WINDOWS - 1, int((start + end) / 2))] = True
        spans.append(there)
    return spans


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


class SimulatedClips:
    """Unlimited clips for training. Clip i of an epoch is drawn from (seed, epoch, i)."""

    towers = True

    def __init__(
        self,
        scenes: Scenes,
        simulation: Simulation,
        features: FeatureSettings,
        clips: int,
        picture: bool,
    ) -> None:
        self.scenes, self.simulation, self.features = scenes, simulation, features
        self.clips, self.picture, self.vocabulary = clips, picture, Vocabulary()

    def __len__(self) -> int:
        return self.clips

    def key(self, index: int) -> str:
        return f"clip-{index:05}"

    def captions(self, index: int) -> list[str]:
        return [self.scenes.draw(_generator((0,), index)).caption]

    def batch(self, rows: Sequence[int], augmentation: Augmentation | None = None) -> Batch:
        seed = (0,) if augmentation is None else augmentation.seed
        scenes = [self.scenes.draw(_generator(seed, row), self.picture) for row in rows]
        rng = _generator((*seed, len(rows)), rows[0])
        sound = self.simulation.sound(scenes, rng)
        for attempt in range(ATTEMPTS):
            not_allowed = [
                i for i, scene in enumerate(scenes)
                if not self.vocabulary.allows(scene.caption, strengths(sound[i]), self.picture)
            ]  # fmt: skip
            if not not_allowed:
                break
            for i in not_allowed:
                scenes[i] = self.scenes.draw(_generator((*seed, attempt), rows[i]), self.picture)
            sound[not_allowed] = self.simulation.sound([scenes[i] for i in not_allowed], rng)
        picture = self.simulation.picture(scenes, rng) if self.picture else None
        return Batch(sound, picture, None, [scene.caption for scene in scenes], towers=True)


class FixedClips:
    """Given scenes with tags that are drawn once, for validation and AudioCaps' test captions."""

    towers = True

    def __init__(
        self,
        clips: Sequence[Sequence[Scene]],
        simulation: Simulation,
        features: FeatureSettings,
        picture: bool,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.features, self.clips = features, clips
        first = [clip[0] for clip in clips]
        self.sound = simulation.sound(first, rng)
        self.picture = simulation.picture(first, rng) if picture else None

    def __len__(self) -> int:
        return len(self.clips)

    def key(self, index: int) -> str:
        return f"clip-{index:05}"

    def captions(self, index: int) -> list[str]:
        return [scene.caption for scene in self.clips[index]]

    def batch(self, rows: Sequence[int], augmentation: Augmentation | None = None) -> Batch:
        picture = None if self.picture is None else self.picture[list(rows)]
        return Batch(
            self.sound[list(rows)], picture, None, [self.captions(row)[0] for row in rows], towers=True
        )


def _generator(seed: tuple[int, ...], row: int) -> np.random.Generator:
    return np.random.default_rng((*seed, row))
