"""What a training loop reads: batches of model inputs, from features or from frozen towers' tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from evacap_cli.data.arrays import ClipArrays
from evacap_cli.features import FeatureSettings, noise_and_roll, normalize_frames, spec_augment
from evacap_cli.model import CaptionModel


@dataclass(frozen=True)
class Augmentation:
    """SpecAugment's widest bands, and AVCap's noise and roll."""

    freq_mask: int = 0
    time_mask: int = 0
    noise: bool = False


class Batches(Protocol):
    """`batch` gives sound, picture (None for none) and which frames exist: bool (B, N), None for all."""

    towers: bool
    """True when sound and picture are tower tokens (B, T, d) instead of fbank (B, T, F) and pixels (B, N, 3, S, S)."""

    def __len__(self) -> int: ...
    def captions(self, index: int) -> list[str]: ...
    def batch(
        self, rows: Sequence[int], device: torch.device, augment: Augmentation | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]: ...


class FeatureBatches:
    """Batches of fbank and pixels from `ClipArrays`."""

    towers = False

    def __init__(self, arrays: ClipArrays, features: FeatureSettings, picture: bool = True) -> None:
        self.arrays, self.features, self.picture = arrays, features, picture

    def __len__(self) -> int:
        return len(self.arrays)

    def captions(self, index: int) -> list[str]:
        return self.arrays.captions(index)

    def batch(
        self, rows: Sequence[int], device: torch.device, augment: Augmentation | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        fbank = torch.from_numpy(self.arrays.fbank(rows)).to(device).float()
        if augment is not None:
            fbank = self._augmented(fbank, augment)
        if not self.picture:
            return fbank, None, None
        frames = torch.from_numpy(self.arrays.frames(rows)).to(device)
        present = torch.from_numpy(self.arrays.has_picture(rows)).to(device)
        mask = None if bool(present.all()) else present[:, None].expand(frames.shape[:2])
        return fbank, normalize_frames(frames, self.features), mask

    def _augmented(self, fbank: Tensor, augment: Augmentation) -> Tensor:
        if augment.freq_mask or augment.time_mask:
            # AVCap masks with 0 before it normalises.
            silence = -self.features.fbank_mean / self.features.fbank_std
            fbank = spec_augment(fbank, augment.freq_mask, augment.time_mask, value=silence)
        return noise_and_roll(fbank) if augment.noise else fbank


class TowerBatches:
    """The frozen towers' tokens of every clip, computed once: float16 arrays on disk."""

    towers = True

    def __init__(self, folder: Path, captions: Callable[[int], list[str]], picture: bool = True) -> None:
        self.audio = np.load(folder / "audio.npy", mmap_mode="r")
        self.pixels = np.load(folder / "picture.npy", mmap_mode="r") if picture else None
        self.captions = captions

    def __len__(self) -> int:
        return len(self.audio)

    def batch(
        self, rows: Sequence[int], device: torch.device, augment: Augmentation | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        order = list(rows)
        audio = torch.from_numpy(self.audio[order]).to(device).float()
        picture = None if self.pixels is None else torch.from_numpy(self.pixels[order]).to(device).float()
        return audio, picture, None


@torch.inference_mode()
def cache_towers(
    model: CaptionModel,
    data: FeatureBatches,
    folder: Path,
    batch_size: int = 64,
    autocast: torch.dtype | None = None,
) -> TowerBatches:
    """Runs both towers once over `data` and keeps their tokens in `folder`; done before, they are read."""
    folder.mkdir(parents=True, exist_ok=True)
    size, config = len(data), model.config.encoder
    shapes = {
        "audio": (size, config.audio_tokens, config.width),
        "picture": (size, config.tokens_for(config.frames), config.width),
    }
    if not all((folder / f"{name}.npy").exists() for name in shapes):
        out = {
            name: np.lib.format.open_memmap(folder / f"{name}.part", "w+", np.float16, shape)
            for name, shape in shapes.items()
        }
        model.eval()
        device = model.device
        for start in range(0, size, batch_size):
            rows = range(start, min(start + batch_size, size))
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                fbank, pixels, _ = data.batch(rows, device)
                out["audio"][rows.start : rows.stop] = model.encoder.audio_tower(fbank).float().cpu().numpy()
                if pixels is not None:
                    out["picture"][rows.start : rows.stop] = (
                        model.encoder.picture_tower(pixels).float().cpu().numpy()
                    )
        for name in shapes:
            out[name].flush()
            (folder / f"{name}.part").rename(folder / f"{name}.npy")
    return TowerBatches(folder, data.captions)
