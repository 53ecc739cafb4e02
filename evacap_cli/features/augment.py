"""Augmentations of fbank batches, sampled independently for each clip."""

from __future__ import annotations

import torch
from torch import Tensor


def spec_augment(
    fbank: Tensor,
    freq: int = 48,
    time: int = 192,
    generator: torch.Generator | None = None,
    value: float = 0.0,
) -> Tensor:
    """SpecAugment: sets one band of up to `freq` bins and one span of up to `time` frames to `value`, per clip.

    `fbank`: (B, T, F); returns the same shape. Widths and positions follow torchaudio's `FrequencyMasking` and
    `TimeMasking` (width U(0, limit), then start U(0, size - width), both rounded down). AVCap masks with 0 before
    normalisation, which on a normalised fbank is `value = -mean / std`.
    """
    B, T, F = fbank.shape
    masked = _stretch(B, T, time, fbank.device, generator).unsqueeze(2)  # (B, T, 1)
    masked = masked | _stretch(B, F, freq, fbank.device, generator).unsqueeze(1)  # (B, T, F)
    return fbank.masked_fill(masked, value)


def noise_and_roll(
    fbank: Tensor, generator: torch.Generator | None = None, roll: int | None = None
) -> Tensor:
    """AVCap's noise augmentation: x + U(0, 1)^(T x F) * U(0, 1) / 10, then a roll in time, per clip.

    `fbank`: (B, T, F) normalised; returns the same shape. The roll is uniform in [-roll, roll); None means T.
    """
    B, T, F = fbank.shape
    noise = _uniform((B, T, F), fbank.device, generator) * _uniform((B, 1, 1), fbank.device, generator) / 10
    roll = T if roll is None else roll
    shift = (_uniform((B, 1), fbank.device, generator) * 2 * roll).floor().long() - roll
    source = (torch.arange(T, device=fbank.device) - shift) % T  # (B, T)
    return (fbank + noise.to(fbank.dtype)).gather(1, source.unsqueeze(2).expand(B, T, F))


def _stretch(
    batch: int, size: int, limit: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """(batch, size) bool: one random span of at most `limit` elements per row."""
    width, position = _uniform((2, batch, 1), device, generator)
    width = width * min(limit, size)
    start = (position * (size - width)).long()
    index = torch.arange(size, device=device)
    return (index >= start) & (index < start + width.long())


def _uniform(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """U(0, 1) on `device`. A CPU generator gives the same numbers on every device."""
    home = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=home).to(device)
