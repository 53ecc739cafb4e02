"""Batched log-mel spectrograms: Kaldi's fbank (the values of torchaudio's `kaldi.fbank`) or YAMNet's log-mel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from evacap_cli.features.settings import HOP_SECONDS, WINDOW_SECONDS, FeatureSettings
from evacap_cli.features.yamnet import yamnet_log_mel

LOW_HZ = 20.0  # lower edge of the first mel bin (Kaldi's default)
PREEMPHASIS = 0.97  # Kaldi's default
FLOOR = torch.finfo(torch.float32).eps  # lower bound of the mel energies before the logarithm


def fbank(waveforms: Tensor | Sequence[Tensor], settings: FeatureSettings) -> Tensor:
    """Normalised log-mel energies of one or many clips.

    `waveforms`: (S,), (B, S), or a sequence of (S_i,) tensors of different lengths, sampled at `settings.sample_rate`,
    in [-1, 1]. Returns (B, audio_frames, mel_bins) float32 on their device.

    `settings.spectrogram` is `kaldi` (25 ms windows, 10 ms hop, mean of the clip removed, no dither, no energy) or
    `yamnet` (`yamnet_log_mel`). The result is truncated to `audio_frames` and normalised by `fbank_mean` and
    `fbank_std`, as in CAV-MAE.

    Clips shorter than `audio_frames` are padded according to `settings.padding`. `zero` appends frames of zeros
    (`kaldi`; a clip shorter than one window is all padding) or silence (`yamnet`). `repeat` repeats the clip until
    all frames are filled; only an empty clip is padded as with `zero`.
    """
    samples, lengths = _as_batch(waveforms)
    if settings.padding == "repeat":
        samples, lengths = _repeat(samples, lengths, settings)
    if settings.spectrogram == "yamnet":
        mel = yamnet_log_mel(samples, settings)
    else:
        mel = _kaldi_fbank(samples, lengths, settings)
    return (mel - settings.fbank_mean) / settings.fbank_std


def _kaldi_fbank(samples: Tensor, lengths: Tensor, settings: FeatureSettings) -> Tensor:
    """(B, audio_frames, mel_bins) log-mel energies of (B, S) samples; `lengths` (B,) excludes the padding."""
    size = int(settings.sample_rate * WINDOW_SECONDS)
    hop = int(settings.sample_rate * HOP_SECONDS)
    # (B, 1); the padding is zero; float64 makes the sum independent of the number of threads
    wide = torch.float32 if samples.device.type == "mps" else torch.float64
    mean = (samples.sum(dim=1, dtype=wide) / lengths.clamp(min=1)).float().unsqueeze(1)
    most = size + hop * (settings.audio_frames - 1)  # samples that the kept frames use
    samples = samples[:, :most] - mean
    samples = F.pad(samples, (0, max(0, size - samples.shape[1])))

    windows = samples.unfold(1, size, hop)  # (B, T', size)
    windows = windows - windows.mean(dim=-1, keepdim=True)
    weighted = PREEMPHASIS * windows  # Kaldi's order of operations, so that near-silent bins are also equal
    windows[..., 1:] -= weighted[..., :-1]
    windows[..., 0] -= weighted[..., 0]
    windows *= _window(settings.window, size, samples.device)
    fft_size = 1 << (size - 1).bit_length()
    spectrum = torch.fft.rfft(windows, n=fft_size)  # (B, T', fft_size / 2 + 1)
    power = spectrum.real.square() + spectrum.imag.square()
    banks = _mel_banks(settings.mel_bins, fft_size, settings.sample_rate, samples.device)
    mel = (power @ banks).clamp_(min=FLOOR).log_()  # (B, T', mel_bins)

    whole = torch.where(lengths < size, 0, (lengths - size) // hop + 1)  # (B,) windows inside each clip
    inside = torch.arange(mel.shape[1], device=mel.device) < whole.unsqueeze(1)
    return F.pad(mel * inside.unsqueeze(-1), (0, 0, 0, settings.audio_frames - mel.shape[1]))


def _repeat(samples: Tensor, lengths: Tensor, settings: FeatureSettings) -> tuple[Tensor, Tensor]:
    """Repeats each clip until it fills `audio_frames`. An empty clip stays empty.

    samples: (B, S), lengths: (B,). Returns (B, S') and (B,); S' is at least the number of samples of `audio_frames`.
    """
    size = int(settings.sample_rate * WINDOW_SECONDS)
    needed = size + int(settings.sample_rate * HOP_SECONDS) * (settings.audio_frames - 1)
    width = max(needed, samples.shape[1])
    filled = torch.where(lengths > 0, lengths.clamp(min=needed), 0).unsqueeze(1)  # (B, 1)
    index = torch.arange(width, device=samples.device).expand(len(samples), width)
    source = torch.where(index < filled, index % lengths.clamp(min=1).unsqueeze(1), 0)
    samples = F.pad(samples, (0, max(0, 1 - samples.shape[1])))  # gather needs at least one sample
    return samples.gather(1, source) * (index < filled), filled.squeeze(1)


def _as_batch(waveforms: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(B, S) float32, zero-padded at the end, and (B,) lengths in samples."""
    if isinstance(waveforms, Tensor):
        samples = torch.atleast_2d(waveforms).float()
        return samples, torch.full((len(samples),), samples.shape[1], device=samples.device)
    samples = torch.nn.utils.rnn.pad_sequence(list(waveforms), batch_first=True).float()
    return samples, torch.tensor([len(waveform) for waveform in waveforms], device=samples.device)


@lru_cache(maxsize=16)
def _window(kind: str, size: int, device: torch.device) -> Tensor:
    """(size,) symmetric window."""
    make = torch.hamming_window if kind == "hamming" else torch.hann_window
    return make(size, periodic=False, device=device)


@lru_cache(maxsize=16)
def _mel_banks(bins: int, fft_size: int, sample_rate: int, device: torch.device) -> Tensor:
    """(fft_size / 2 + 1, bins) mel weights. Kaldi omits the Nyquist bin, so its row is zero."""
    from torchaudio.compliance.kaldi import get_mel_banks  # YAMNet's log-mel does not need torchaudio

    banks, _ = get_mel_banks(bins, fft_size, float(sample_rate), LOW_HZ, 0.0, 100.0, -500.0, 1.0)
    return F.pad(banks, (0, 1)).T.contiguous().to(device)
