"""The model's result for one clip: its caption, its scores, and gate and entropy over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evacap_cli.features.settings import HOP_SECONDS
from evacap_cli.tasks.captioning.outputs.tags import Tag

COLUMN_TOLERANCE = 1e-6  # of a column: a clip that is longer by less does not start another column


@dataclass(frozen=True, eq=False)
class CaptionResult:
    """The caption of one clip and its scores, see `Row`. mismatch: of models with evidence.

    gate_curve, entropy_curve: float32 (columns,), gate and entropy averaged over frequency, for each column of audio
    tokens within the clip; None if the model has none or the clip has no picture. heard, seen: of models with tag
    towers. confidences: of `adaptive`, the caption's words with how much of each comes from the picture, 0 to 1.
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
    """Averages audio tokens over frequency, for the columns within a clip.

    tokens: (..., T_a), frequency rows first. grid: their (rows, columns). frames: the fbank frames that the columns
    span. seconds: length of the clip. Returns float32 (..., columns within the clip).
    """
    rows, columns = grid
    means = tokens.reshape(*tokens.shape[:-1], rows, columns).mean(axis=-2, dtype=np.float32)
    within = math.ceil(seconds / column_seconds(grid, frames) - COLUMN_TOLERANCE)
    return means[..., : min(columns, max(1, within))]


def column_seconds(grid: tuple[int, int], frames: int) -> float:
    """Returns the duration of one column of audio tokens in seconds."""
    return frames * HOP_SECONDS / grid[1]
