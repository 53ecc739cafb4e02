"""The log-mel spectrogram that YAMNet expects.

The constants come from `params.py` and `features.py` of YAMNet (tensorflow/models, research/audioset/yamnet) and
TensorFlow's `tf.signal.linear_to_mel_weight_matrix`.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from evacap_cli.features.settings import HOP_SECONDS, WINDOW_SECONDS, FeatureSettings

LOW_HZ, HIGH_HZ = 125.0, 7500.0  # edges of the mel bands
OFFSET = 0.001  # added to the mel magnitudes before the logarithm


def yamnet_log_mel(samples: Tensor, settings: FeatureSettings) -> Tensor:
    """Log-mel (B, audio_frames, mel_bins) float32, not normalised, of (B, S) samples in [-1, 1], padded with zeros.

    Uses periodic Hann windows of 25 ms with a hop of 10 ms, magnitudes instead of power, and mel bands on HTK's scale
    with peaks of 1. The mean of the waveform is not removed.
    """
    size = int(settings.sample_rate * WINDOW_SECONDS)
    hop = int(settings.sample_rate * HOP_SECONDS)
    needed = size + hop * (settings.audio_frames - 1)
    samples = F.pad(samples[:, :needed], (0, max(0, needed - samples.shape[1])))
    windows = samples.unfold(1, size, hop) * _hann(size, samples.device)  # (B, T, size)
    fft_size = 1 << (size - 1).bit_length()
    magnitudes = torch.fft.rfft(windows, n=fft_size).abs()  # (B, T, fft_size / 2 + 1)
    bands = _mel_bands(settings.mel_bins, fft_size, settings.sample_rate, samples.device)
    return (magnitudes @ bands).add_(OFFSET).log_()


@lru_cache(maxsize=16)
def _hann(size: int, device: torch.device) -> Tensor:
    """(size,) periodic Hann window."""
    return torch.hann_window(size, periodic=True, device=device)


@lru_cache(maxsize=16)
def _mel_bands(bins: int, fft_size: int, sample_rate: int, device: torch.device) -> Tensor:
    """(fft_size / 2 + 1, bins) triangles on the mel scale without area normalisation; the DC bin is zero."""
    hertz = torch.linspace(0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64)
    mel = _mel(hertz).unsqueeze(1)  # (fft_size / 2 + 1, 1)
    low, high = _mel(torch.tensor([LOW_HZ, HIGH_HZ], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, bins + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    bands = torch.minimum((mel - lower) / (centre - lower), (upper - mel) / (upper - centre)).clamp(min=0)
    bands[0] = 0
    return bands.float().to(device)


def _mel(hertz: Tensor) -> Tensor:
    """HTK's mel scale."""
    return 1127.0 * torch.log1p(hertz / 700.0)
