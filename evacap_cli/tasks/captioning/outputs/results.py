"""What the model gives for one clip: its caption, the numbers beside it, and gate and entropy over time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evacap_cli.features.settings import HOP_SECONDS
from evacap_cli.tasks.captioning.outputs.tags import Tag

COLUMN_TOLERANCE = (
    1e-6  # of a column: so much longer than a whole number of them, a clip still begins no other
)


@dataclass(frozen=True, eq=False)
class CaptionResult:
    """What the model says of one clip, as `Row` has it; `mismatch` of models that compare sound and picture.

    gate_curve, entropy_curve: float32 (columns,), the means over frequency of gate and entropy, one for every column of
    the sound's tokens that is within the clip; None for models without them, or a clip without a picture. heard, seen:
    of models with tag towers.
    """

    caption: str
    score: float
    gate: float | None = None
    entropy: float | None = None
    mismatch: float | None = None
    gate_curve: np.ndarray | None = None
    entropy_curve: np.ndarray | None = None
    heard: tuple[Tag, ...] = ()
    seen: tuple[Tag, ...] = ()


def mean_over_frequency(tokens: np.ndarray, grid: tuple[int, int], frames: int, seconds: float) -> np.ndarray:
    """What a clip's audio tokens say, over time: the means over frequency of those columns that it reaches into.

    tokens: (..., T_a), frequency rows first. grid: (rows, columns) of them. frames: of the fbank, which the columns
    span. seconds: of the clip. Returns float32 (..., columns within it).
    """
    rows, columns = grid
    means = tokens.reshape(*tokens.shape[:-1], rows, columns).mean(axis=-2, dtype=np.float32)
    within = math.ceil(seconds / column_seconds(grid, frames) - COLUMN_TOLERANCE)
    return means[..., : min(columns, max(1, within))]


def column_seconds(grid: tuple[int, int], frames: int) -> float:
    """How long one column of audio tokens lasts."""
    return frames * HOP_SECONDS / grid[1]
