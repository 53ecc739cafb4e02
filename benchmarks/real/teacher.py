"""EfficientAT's mn04 tagger (527 AudioSet classes), the teacher of `distill.py`.

The weights are `mn04_as_mAP_432.pt` of https://github.com/fschmid56/EfficientAT (MIT), release v0.0.1. The network is
MobileNetV3-large with 0.4 times the channels, on log-mel spectrograms of 32 kHz audio.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks
from torchvision.models._utils import _make_divisible
from torchvision.ops.misc import Conv2dNormActivation

RATE = 32_000  # Hz
FFT, WINDOW, HOP = 1024, 800, 320  # samples
MELS, LOW_HZ, HIGH_HZ = 128, 0.0, 15_000.0
CLASSES = 527
WIDTH = 0.4
BLOCKS = (  # MobileNetV3-large: kernel, expanded and outgoing channels, squeeze-excitation, hard swish, stride
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_Conv = partial(Conv2dNormActivation, norm_layer=partial(nn.BatchNorm2d, eps=0.001, momentum=0.01))


class Teacher(nn.Module):
    """Maps waveforms (B, S) at 32 kHz in [-1, 1] to logits (B, 527)."""

    window: Tensor
    banks: Tensor

    def __init__(self) -> None:
        super().__init__()
        channels = _scaled(BLOCKS[0][2])
        layers: list[nn.Module] = [_Conv(1, channels, kernel_size=3, stride=2, activation_layer=nn.Hardswish)]
        for kernel, inside, after, squeezes, swish, stride in BLOCKS:
            inside, after = _scaled(inside), _scaled(after)
            layers.append(_Residual(channels, inside, after, kernel, stride, squeezes, swish))
            channels = after
        last = 6 * channels
        layers.append(_Conv(channels, last, kernel_size=1, activation_layer=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        hidden = _scaled(1280)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(last, hidden),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(hidden, CLASSES),
        )
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False), persistent=False)
        banks, _ = get_mel_banks(MELS, FFT, float(RATE), LOW_HZ, HIGH_HZ, 100.0, -500.0, 1.0)
        self.register_buffer("banks", nn.functional.pad(banks, (0, 1)), persistent=False)  # (128, 513)

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.classifier(self.features(self.log_mel(waveforms).unsqueeze(1)))

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Log-mel (B, 128, T), approximately unit scale, of waveforms (B, S)."""
        emphasised = waveforms[:, 1:] - 0.97 * waveforms[:, :-1]
        spectrum = torch.stft(
            emphasised, FFT, HOP, WINDOW, window=self.window, center=True, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return ((self.banks @ power + 1e-5).log() + 4.5) / 5

    @classmethod
    def load(cls, path: Path) -> Teacher:
        """Loads the weights of a file. The network is in evaluation mode."""
        teacher = cls()
        teacher.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return teacher.eval()


class _Residual(nn.Module):
    """MobileNetV3's inverted residual block."""

    def __init__(self, before: int, inside: int, after: int, kernel: int, stride: int, squeezes: bool,
                 swish: bool) -> None:  # fmt: skip
        super().__init__()
        activation = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = []
        if inside != before:
            layers.append(_Conv(before, inside, kernel_size=1, activation_layer=activation))
        layers.append(
            _Conv(
                inside, inside, kernel_size=kernel, stride=stride, groups=inside, activation_layer=activation
            )
        )
        if squeezes:
            layers.append(_Squeeze(inside))
        layers.append(_Conv(inside, after, kernel_size=1, activation_layer=None))
        self.block = nn.Sequential(*layers)
        self.adds = stride == 1 and before == after

    def forward(self, maps: Tensor) -> Tensor:
        return self.block(maps) + maps if self.adds else self.block(maps)


class _Squeeze(nn.Module):
    """Squeeze-and-excitation of the channels, with EfficientAT's parameter names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layer = nn.Module()
        layer.fc1 = nn.Linear(channels, _make_divisible(channels // 4, 8))
        layer.fc2 = nn.Linear(layer.fc1.out_features, channels)
        self.conc_se_layers = nn.ModuleList([layer])

    def forward(self, maps: Tensor) -> Tensor:
        layer = self.conc_se_layers[0]
        scale = layer.fc2(layer.fc1(maps.mean(dim=(2, 3))).relu()).sigmoid()  # (B, C)
        return maps * scale[:, :, None, None]


def _scaled(channels: int) -> int:
    return _make_divisible(channels * WIDTH, 8)


def read_sound(path: str | Path, seconds: float = 60.0) -> np.ndarray:
    """The first `seconds` of a file's audio as 32 kHz mono, (S,) float32. Raises av's errors."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    pieces: list[np.ndarray] = []
    samples = 0
    with av.open(str(path), metadata_errors="replace") as media:
        for frame in media.decode(audio=0):
            fresh = [out.to_ndarray()[0] for out in resampler.resample(frame)]
            pieces += fresh
            samples += sum(len(piece) for piece in fresh)
            if samples >= seconds * RATE:
                break
    pieces += [out.to_ndarray()[0] for out in resampler.resample(None) if out is not None]
    sound = np.concatenate(pieces) if pieces else np.zeros(0)
    return sound[: int(seconds * RATE)].astype(np.float32)


def read_classes(path: Path) -> list[tuple[str, str]]:
    """Reads (mid, display name) of every row of a class list with the columns index, mid and display_name."""
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["mid"], row["display_name"]) for row in csv.DictReader(file)]
