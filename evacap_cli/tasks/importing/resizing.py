"""Resizes weights to other audio and picture sizes."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from evacap_cli.model import EncoderConfig


def resized(ours: str, value: Tensor, wanted: Tensor, config: EncoderConfig) -> Tensor | None:
    """Returns `value` resized to the model's audio or picture size, None if it cannot be resized."""
    if ours == "encoder.patch_embed_v.weight":
        if value.dim() == 4 and wanted.dim() == 5 and value.shape == wanted[:, :, 0].shape:
            frames = wanted.shape[2]
            return value[:, :, None].expand(wanted.shape) / frames
        if value.dim() == 5 and wanted.dim() == 4 and value[:, :, 0].shape == wanted.shape:
            return value.sum(2)
    if ours not in ("encoder.pos_embed_a", "encoder.pos_embed_v") or value.dim() != 3:
        return None
    if value.shape[-1] != wanted.shape[-1]:
        return None
    if ours.endswith("_a"):
        rows, columns = config.audio_grid
        old = _grid(value.shape[1], rows, None)
        new: tuple[int, int, int] = (1, rows, columns)
    else:
        side = config.image_size // config.image_patch
        old = _grid(value.shape[1], side, side)
        new = (wanted.shape[1] // side**2, side, side)
    if old is None:
        return None
    grid = value.float().reshape(1, *old, -1).permute(0, 4, 1, 2, 3)  # (1, d, tubelets, rows, columns)
    grid = F.interpolate(grid, new, mode="trilinear", align_corners=False)
    return grid.permute(0, 2, 3, 4, 1).reshape(1, math.prod(new), -1).to(value.dtype)


def _grid(count: int, rows: int, columns: int | None) -> tuple[int, int, int] | None:
    """Returns (tubelets, rows, columns) of `count` positions: audio (no `columns`) has any length; pictures have our
    grid with any number of tubelets, or a single square grid of another size."""
    if columns is None:
        return (1, rows, count // rows) if count % rows == 0 else None
    if count % (rows * columns) == 0:
        return count // (rows * columns), rows, columns
    side = math.isqrt(count)
    return (1, side, side) if side * side == count else None
