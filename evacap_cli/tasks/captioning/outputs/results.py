"""What the model gives for one clip: its caption, the numbers beside it, and gate and entropy over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    of models with tag towers. confidences: of `adaptive`, the caption's words with how much of each comes from the
    picture, 0 to 1.
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
    confidences: tuple[tuple[str, float], ...] = ()


def word_means(pieces: Sequence[str], values: Sequence[float]) -> tuple[tuple[str, float], ...]:
    """Words with the means of the values of their pieces; a piece that continues a word begins with `##`. Values
    beyond the pieces are of no word."""
    words: list[tuple[str, list[float]]] = []
    for piece, value in zip(pieces, values, strict=False):
        if piece.startswith("##") and words:
            word, of_pieces = words[-1]
            words[-1] = word + piece.removeprefix("##"), [*of_pieces, value]
        else:
            words.append((piece, [value]))
    return tuple((word, sum(of_pieces) / len(of_pieces)) for word, of_pieces in words)


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
