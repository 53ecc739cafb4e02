"""The training objective: smoothed cross-entropy and EVACap's two regularisers, which the paper only names."""

from __future__ import annotations

import torch
from torch import Tensor


def smoothed_cross_entropy(logits: Tensor, target: Tensor, smoothing: float = 0.1) -> Tensor:
    """Mean over rows of the divergence from the smoothed target, as AVCap's public code computes it.

    logits: (R, V), target: int64 (R,). The target word gets 1 - smoothing, the other V - 1 share the rest; the smoothed
    target's own entropy is subtracted (a Kullback-Leibler divergence), so a perfect fit gives 0.
    """
    log_p = logits.float().log_softmax(-1)
    rest = smoothing / (logits.shape[-1] - 1)
    at_target = log_p.gather(1, target[:, None])[:, 0]
    cross = -(1 - smoothing) * at_target - rest * (log_p.sum(-1) - at_target)
    weights = torch.tensor([1 - smoothing, smoothing], dtype=torch.float64)
    logs = torch.tensor([1 - smoothing, rest], dtype=torch.float64).log()
    entropy = -torch.where(weights > 0, weights * logs, 0.0).sum().item()
    return cross.mean() - entropy


def gate_stability(gate: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean squared difference of the gate between neighbouring time patches of one frequency row.

    gate: (B, T_a), with T_a = rows * columns of `grid`, frequency rows first.
    """
    return gate.unflatten(1, grid).diff(dim=2).square().mean()


def semantic_consistency(matched: Tensor, shuffled: Tensor) -> Tensor:
    """Symmetric KL between the word distributions of the same sound under its own and another's picture.

    matched and shuffled: logits (R, V). Returns the mean over rows.
    """
    p, q = matched.float().log_softmax(-1), shuffled.float().log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean() / 2
