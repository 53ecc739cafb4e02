"""Caches the frozen towers' tokens of every clip, on which the arms are trained and measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from evacap_cli.features import FeatureSettings
from evacap_cli.model import CaptionModel
from evacap_cli.tasks.batches import Augmentation, Batch, FeatureBatches, pick_caption


class TowerBatches:
    """The cached tokens of every clip as float16 arrays on disk, without augmentation."""

    towers = True

    def __init__(self, folder: Path, features: FeatureSettings, captions: Callable[[int], list[str]],
                 picture: bool = True) -> None:  # fmt: skip
        self.features, self.captions = features, captions
        self.audio = np.load(folder / "audio.npy", mmap_mode="r")
        self.tokens = np.load(folder / "picture.npy", mmap_mode="r") if picture else None

    def __len__(self) -> int:
        return len(self.audio)

    def key(self, index: int) -> str:
        return str(index)

    def batch(self, rows: Sequence[int], augmentation: Augmentation | None = None) -> Batch:
        order, captions = list(rows), [self.captions(row) for row in rows]
        chosen = [texts[0] if augmentation is None else pick_caption(texts, augmentation.generator(row))
                  for row, texts in zip(order, captions, strict=True)]  # fmt: skip
        picture = None if self.tokens is None else torch.from_numpy(self.tokens[order])
        return Batch(torch.from_numpy(self.audio[order]), picture, None, chosen, towers=True)


@torch.inference_mode()
def cache_towers(
    model: CaptionModel,
    data: FeatureBatches,
    folder: Path,
    batch_size: int = 64,
    autocast: torch.dtype | None = None,
) -> TowerBatches:
    """Runs both towers over `data` and saves their tokens in `folder`, or reads them if they exist."""
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
                fbank, pixels, _ = data.batch(rows).inputs(device, data.features)
                out["audio"][rows.start : rows.stop] = model.encoder.audio_tower(fbank).float().cpu().numpy()
                if pixels is not None:
                    out["picture"][rows.start : rows.stop] = (
                        model.encoder.picture_tower(pixels).float().cpu().numpy()
                    )
        for name in shapes:
            out[name].flush()
            (folder / f"{name}.part").rename(folder / f"{name}.npy")
    return TowerBatches(folder, data.features, data.captions)
