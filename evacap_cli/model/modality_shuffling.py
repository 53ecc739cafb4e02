"""Stochastic modality shuffling (EVACap algorithm 1): some sounds of a batch get another clip's picture."""

from __future__ import annotations

import torch
from torch import Tensor


def shuffle_partners(batch: int, probability: float, generator: torch.Generator | None = None,
                     per_batch: bool = False) -> Tensor:  # fmt: skip
    """Whose picture each clip gets: int64 (B,), its own index where nothing is shuffled.

    A uniform permutation of the batch is drawn; each sample takes its place in it with `probability` (or, `per_batch`,
    the whole batch does). A permutation may leave a clip where it is, as in the paper.
    """
    own = torch.arange(batch)
    if probability <= 0:
        return own
    permutation = torch.randperm(batch, generator=generator)
    chosen = torch.rand(1 if per_batch else batch, generator=generator) < probability
    return torch.where(chosen, permutation, own)
