"""Frame sampling times, and the conversion of frames to model input."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evacap_cli.features.settings import FeatureSettings

LONGEST_SIDE = 32  # maximum aspect ratio; longer frames are cropped


def frame_times(seconds: float, settings: FeatureSettings, frames: int | None = None) -> list[float]:
    """Times in seconds, relative to the start of a segment of length `seconds`, at which frames are sampled.

    Frame i is sampled at (i + 0.5) / fps. In shorter segments, the frames are spread uniformly over the segment.
    A different number of `frames` covers the same span with a different spacing.
    """
    count = settings.frames if frames is None else frames
    if count <= 0:
        return []
    span = (settings.frames or count) / settings.fps
    span = min(span, max(0.0, seconds))
    return [(i + 0.5) * span / count for i in range(count)]


def crop_frame(frame: np.ndarray | Tensor, size: int) -> Tensor:
    """Resizes the short side of (H, W, 3) uint8 to `size` and crops the centre: (3, size, size) uint8.

    Bicubic and antialiased in 8-bit arithmetic. The pixels equal those of torchvision's `resize` and `center_crop`.
    torchvision is not used because importing it takes every worker process as long as importing torch.
    """
    if isinstance(frame, np.ndarray):
        # a rotated frame has negative strides; ascontiguousarray() ignores them if a side is 1
        frame = torch.from_numpy(frame.copy() if min(frame.strides) < 0 else np.ascontiguousarray(frame))
    short = min(frame.shape[:2])
    longest = LONGEST_SIDE * short  # resizing a longer strip could take gigabytes, so only its middle is used
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
    """Scales (..., 3, S, S) uint8 to [0, 1] and normalises by `image_mean` and `image_std` per channel; float32."""
    mean = torch.tensor(settings.image_mean, device=frames.device).view(3, 1, 1)
    std = torch.tensor(settings.image_std, device=frames.device).view(3, 1, 1)
    return (frames.float() / 255 - mean) / std


def same_frames(frames: Tensor, bound: float = 0.0) -> Tensor:
    """Finds runs of equal frames. uint8 (B, N, 3, S, S) -> int64 (B, N): the index of the first frame of each run.

    A frame belongs to a run if its mean absolute difference to the first frame of the run is at most `bound` (of 255
    levels); 0 means equality.
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
