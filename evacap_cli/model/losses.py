"""The training objective: cross-entropy with label smoothing, and the two regularisers of section 2.3.

The paper names the regularisers, gate stability and semantic consistency, but gives no formulas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """The label smoothing and the weights of the regularisers. A term with weight 0 is not computed."""

    smoothing: float = 0.1
    gate_stability: float = 0.01
    consistency: float = 0.1
    match: float = 1.0

    def total(self, parts: dict[str, Tensor], words: float = 1.0, clips: float = 1.0) -> Tensor:
        """The weighted sum () of the terms that `CaptionModel.forward` returns.

        words, clips: if the batch is a part of a larger one, its shares of the larger batch's words and clips. The
        losses of all parts then add up to the loss of the larger batch.
        """
        loss = parts["caption"] * words
        if "gate_stability" in parts:
            loss = loss + self.gate_stability * clips * parts["gate_stability"]
        if "consistency" in parts:
            loss = loss + self.consistency * clips * parts["consistency"]
        if "match" in parts:
            loss = loss + self.match * clips * parts["match"]
        return loss


def smoothed_cross_entropy(logits: Tensor, target: Tensor, smoothing: float = 0.1) -> Tensor:
    """Kullback-Leibler divergence from the smoothed target, mean over rows, as in AVCap's published code.

    logits: (R, V), target: int64 (R,). The target word has probability 1 - smoothing, and the other V - 1 words share
    the rest equally. Returns (), 0 for a perfect fit: the entropy of the smoothed target is subtracted.
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
    """Mean squared difference of the gate between neighbouring time patches of one frequency row, ().

    gate: (B, T_a). grid: the rows (frequency) and columns (time) of the audio tokens, which are ordered by row.
    """
    return gate.unflatten(1, grid).diff(dim=2).square().mean()


def semantic_consistency(matched: Tensor, shuffled: Tensor) -> Tensor:
    """Symmetric Kullback-Leibler divergence of the word distributions with a clip's own and with another picture.

    matched, shuffled: logits (R, V). Returns the mean over rows, ().
    """
    p, q = matched.float().log_softmax(-1), shuffled.float().log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean() / 2
