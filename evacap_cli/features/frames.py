"""When to look, and how a frame becomes the pixels that a model sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T

from evacap_cli.features.settings import FeatureSettings


def frame_times(seconds: float, settings: FeatureSettings, frames: int | None = None) -> list[float]:
    """Times in seconds, from the segment's start, at which a segment of `seconds` is looked at.

    Frame i is the one shown at (i + 0.5) / fps; where the segment is too short for that, the frames
    spread uniformly over what there is. Another number of `frames` than the settings' covers the same
    span, closer or farther apart.
    """
    count = settings.frames if frames is None else frames
    if count <= 0:
        return []
    span = (settings.frames or count) / settings.fps
    span = min(span, max(0.0, seconds))
    return [(i + 0.5) * span / count for i in range(count)]


def crop_frame(frame: np.ndarray | Tensor, size: int) -> Tensor:
    """(H, W, 3) uint8 -> (3, size, size) uint8: the short side to `size`, then the centre.

    Bicubic and antialiased, in torchvision's 8-bit arithmetic.
    """
    if isinstance(frame, np.ndarray):
        frame = torch.from_numpy(np.ascontiguousarray(frame))  # a turned frame has negative strides
    pixels = frame.permute(2, 0, 1)
    resized = T.resize(pixels, [size], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return T.center_crop(resized, [size, size]).contiguous()


def normalize_frames(frames: Tensor, settings: FeatureSettings) -> Tensor:
    """(..., 3, S, S) uint8 -> float32: scaled to [0, 1], less `image_mean`, over `image_std`, per channel."""
    mean = torch.tensor(settings.image_mean, device=frames.device).view(3, 1, 1)
    std = torch.tensor(settings.image_std, device=frames.device).view(3, 1, 1)
    return (frames.float() / 255 - mean) / std
