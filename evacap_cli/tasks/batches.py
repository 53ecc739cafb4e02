"""Batches of features from a store, or of tokens from frozen towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from evacap_cli.features import FeatureSettings, noise_and_roll, normalize_frames, spec_augment

if TYPE_CHECKING:
    from evacap_cli.data.store import Store


@dataclass(frozen=True)
class Augmentation:
    """The random choices of a batch: one of the captions, and the augmentation of the audio.

    Each clip's random numbers depend on (seed, its number), not on its batch or process. `freq_mask` and `time_mask`
    are SpecAugment's maximum widths, `noise` is AVCap's noise and roll.
    """

    seed: tuple[int, ...]
    freq_mask: int = 0
    time_mask: int = 0
    noise: bool = False

    def generator(self, row: int) -> torch.Generator:
        state = np.random.SeedSequence((*self.seed, row)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0]) >> 1)


@dataclass
class Batch:
    """A batch of clips. audio: fbank (B, T, F), picture: uint8 (B, N, 3, S, S); or, with `towers`, the tokens (B, T, d)
    of both towers.

    picture is None for audio-only models. mask: bool (B, N), which frames exist, None if all do. captions: one per
    clip.
    """

    audio: Tensor
    picture: Tensor | None
    mask: Tensor | None
    captions: list[str]
    towers: bool = False

    def __len__(self) -> int:
        return len(self.captions)

    def pin_memory(self) -> Batch:
        """The batch in pinned memory, from which CUDA copies while Python continues. `DataLoader` calls this method."""
        picture, mask = (None if x is None else x.pin_memory() for x in (self.picture, self.mask))
        return Batch(self.audio.pin_memory(), picture, mask, self.captions, self.towers)

    def inputs(
        self, device: torch.device, features: FeatureSettings
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns audio, normalized picture and mask, the inputs of a model."""
        audio = self.audio.to(device, non_blocking=True).float()
        if self.picture is None:
            return audio, None, None
        picture = self.picture.to(device, non_blocking=True)
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        return audio, picture.float() if self.towers else normalize_frames(picture, features), mask


class Batches(Protocol):
    """Clips by number. `batch` without an `augmentation` returns them unchanged, each with its first caption."""

    features: FeatureSettings
    towers: bool

    def __len__(self) -> int: ...
    def key(self, index: int) -> str: ...
    def captions(self, index: int) -> list[str]: ...
    def batch(self, rows: Sequence[int], augmentation: Augmentation | None = None) -> Batch: ...


class FeatureBatches:
    """Batches of fbank and pixels from a store."""

    towers = False

    def __init__(self, store: Store, features: FeatureSettings, picture: bool = True) -> None:
        self.store, self.features, self.picture = store, features, picture

    def __len__(self) -> int:
        return len(self.store)

    def key(self, index: int) -> str:
        return self.store.keys[index]

    def captions(self, index: int) -> list[str]:
        return self.store.captions(index)

    def batch(self, rows: Sequence[int], augmentation: Augmentation | None = None) -> Batch:
        fbank = torch.from_numpy(self.store.fbank(rows)).float()
        generators = [] if augmentation is None else [augmentation.generator(row) for row in rows]
        chosen = self.chosen_captions(rows, generators)
        if augmentation is not None:
            fbank = torch.cat(
                [self._augment(f[None], augmentation, g) for f, g in zip(fbank, generators, strict=True)]
            )
        if not self.picture:
            return Batch(fbank, None, None, chosen)
        frames = torch.from_numpy(self.store.frames(rows))
        present = torch.from_numpy(self.store.has_picture(rows))
        mask = None if bool(present.all()) else present[:, None].expand(frames.shape[:2]).contiguous()
        return Batch(fbank, frames, mask, chosen)

    def chosen_captions(self, rows: Sequence[int], generators: Sequence[torch.Generator]) -> list[str]:
        """One caption of each clip: the first one, or one that its generator selects."""
        captions = [self.captions(row) for row in rows]
        if not generators:
            return [texts[0] for texts in captions]
        return [pick_caption(texts, g) for texts, g in zip(captions, generators, strict=True)]

    def _augment(self, fbank: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
        if augmentation.freq_mask or augmentation.time_mask:
            # AVCap masks with 0 before normalization.
            silence = -self.features.fbank_mean / self.features.fbank_std
            fbank = spec_augment(fbank, augmentation.freq_mask, augmentation.time_mask, generator, silence)
        return noise_and_roll(fbank, generator) if augmentation.noise else fbank


def pick_caption(captions: Sequence[str], generator: torch.Generator) -> str:
    return captions[int(torch.randint(len(captions), (), generator=generator))]
