"""When to look, and how a frame becomes the pixels that a model sees."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evacap_cli.features.settings import FeatureSettings

LONGEST_SIDE = 32  # times the short one


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

    Bicubic and antialiased in 8-bit arithmetic: the pixels of torchvision's `resize` and `center_crop`, without its
    import, which would cost every worker process as much time as torch's own.
    """
    if isinstance(frame, np.ndarray):
        # a turned frame has negative strides, which numpy itself passes over where a side is 1
        frame = torch.from_numpy(frame.copy() if min(frame.strides) < 0 else np.ascontiguousarray(frame))
    short = min(frame.shape[:2])
    longest = (
        LONGEST_SIDE * short
    )  # beyond it, only the middle of a strip is resized: all of it could take gigabytes
    top, left = (max(0, side - longest) // 2 for side in frame.shape[:2])
    frame = frame[top : top + longest, left : left + longest]
    height, width, _ = frame.shape
    resized_to = (size * height // short, size * width // short)
    pixels = frame.permute(2, 0, 1)[None]  # (1, 3, H, W)
    if resized_to != (height, width):
        pixels = F.interpolate(pixels, resized_to, mode="bicubic", antialias=True)
    top, left = (round((side - size) / 2) for side in resized_to)
    return pixels[0, :, top : top + size, left : left + size].contiguous()


def normalize_frames(frames: Tensor, settings: FeatureSettings) -> Tensor:
    """(..., 3, S, S) uint8 -> float32: scaled to [0, 1], less `image_mean`, over `image_std`, per channel."""
    mean = torch.tensor(settings.image_mean, device=frames.device).view(3, 1, 1)
    std = torch.tensor(settings.image_std, device=frames.device).view(3, 1, 1)
    return (frames.float() / 255 - mean) / std


def same_frames(frames: Tensor, bound: float = 0.0) -> Tensor:
    """uint8 (B, N, 3, S, S) -> int64 (B, N): for every frame the number of an earlier one that shows the same, else
    its own.

    The same is what differs, in the mean over pixels and channels, by no more than `bound` of 255 levels from the
    first frame of its run; 0 is equality.
    """
    B, N = frames.shape[:2]
    same = torch.arange(N, device=frames.device).repeat(B, 1)
    clips = torch.arange(B, device=frames.device)
    for n in range(1, N):
        first, now = same[:, n - 1], frames[:, n]
        kept = frames[clips, first]
        if bound:
            alike = (now.short() - kept).abs().flatten(1).float().mean(1) <= bound
        else:
            alike = ~(now != kept).flatten(1).any(1)
        same[:, n] = torch.where(alike, first, n)
    return same
