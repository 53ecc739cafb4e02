"""Stochastic modality shuffling (EVACap algorithm 1): some clips of a batch get the picture of another clip."""

from __future__ import annotations

import torch
from torch import Tensor


def shuffle_partners(batch: int, probability: float, generator: torch.Generator | None = None,
                     per_batch: bool = False) -> Tensor:  # fmt: skip
    """The index of the clip whose picture each clip gets, int64 (B,); its own index if it is not shuffled.

    A uniform permutation of the batch is drawn, and applied to each clip with `probability`, or with `per_batch` to the
    whole batch. As in the paper, a permutation may map a clip to itself.
    """
    own = torch.arange(batch)
    if probability <= 0:
        return own
    permutation = torch.randperm(batch, generator=generator)
    chosen = torch.rand(1 if per_batch else batch, generator=generator) < probability
    return torch.where(chosen, permutation, own)
