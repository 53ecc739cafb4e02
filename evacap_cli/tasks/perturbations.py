"""Perturbations of the sound or picture of test clips, deterministic for each clip and seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evacap_cli.features import FeatureSettings
from evacap_cli.features.settings import HOP_SECONDS

AudioPerturbation = Callable[[Tensor, FeatureSettings, np.ndarray], Tensor]
PicturePerturbation = Callable[[Tensor, Tensor | None, np.ndarray], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Perturbation:
    """A perturbation. sound: (normalized fbank (B, T, F), settings, clip numbers) -> fbank. picture: (frames uint8
    (B, N, 3, S, S), mask bool (B, N) or None, clip numbers) -> (frames, mask). None leaves a modality unchanged."""

    name: str
    sound: AudioPerturbation | None = None
    picture: PicturePerturbation | None = None


def black() -> Perturbation:
    return Perturbation("black", picture=lambda frames, mask, rows: (torch.zeros_like(frames), mask))


def freeze() -> Perturbation:
    """Replaces every frame by the first one."""
    return Perturbation("freeze", picture=lambda frames, mask, rows: (frames[:, :1].expand_as(frames), mask))


def drop_video() -> Perturbation:
    """Removes all frames, like a clip without a picture."""
    return Perturbation("drop-video", picture=lambda frames, mask, rows: (
        frames, torch.zeros(frames.shape[:2], dtype=torch.bool)))  # fmt: skip


def noise(seed: int) -> Perturbation:
    """Replaces every pixel by random noise."""

    def picture(frames: Tensor, mask: Tensor | None, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        drawn = [
            torch.randint(256, frames.shape[1:], generator=_generator(seed, row), dtype=torch.uint8)
            for row in rows
        ]
        return torch.stack(drawn), mask

    return Perturbation("noise", picture=picture)


def noise_audio(decibels: float, seed: int) -> Perturbation:
    """Adds white noise `decibels` below the sound's mean power to the energy of each mel band.

    A store has no waveforms, so the powers are added, which equals the expected power of the mixture.
    """

    def sound(fbank: Tensor, features: FeatureSettings, rows: np.ndarray) -> Tensor:
        energy = (fbank * features.fbank_std + features.fbank_mean).exp()  # (B, T, F)
        draws = [torch.randn(fbank.shape[1:], generator=_generator(seed, row)) for row in rows]
        white = torch.stack(draws).square() * _band_widths(features)
        ratio = energy.sum((1, 2)) / white.sum((1, 2)) * 10 ** (-decibels / 10)
        mixed = energy + white * ratio[:, None, None]
        return (mixed.log() - features.fbank_mean) / features.fbank_std

    return Perturbation(f"noise-audio {decibels:g} dB", sound=sound)


def shift(seconds: float) -> Perturbation:
    """Delays the sound by `seconds`, cyclically."""

    def sound(fbank: Tensor, features: FeatureSettings, rows: np.ndarray) -> Tensor:
        return fbank.roll(round(seconds / HOP_SECONDS), dims=1)

    return Perturbation(f"shift {seconds:g} s", sound=sound)


def _band_widths(features: FeatureSettings) -> Tensor:
    """Returns (F,), the width of each mel band in hertz, to which its share of white noise is proportional."""

    def hertz(mel: Tensor) -> Tensor:
        return 700 * ((mel / 1127).exp() - 1)

    top = 1127 * math.log(1 + features.sample_rate / 2 / 700)
    low = 1127 * math.log(1 + 20 / 700)
    edges = hertz(torch.linspace(low, top, features.mel_bins + 1))
    return edges.diff()


def _generator(seed: int, row: int) -> torch.Generator:
    state = np.random.SeedSequence((seed, int(row))).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)
