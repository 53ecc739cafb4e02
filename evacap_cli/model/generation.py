"""The result of captioning a batch, and how it is computed from the decoder's memory and the best hypotheses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evacap_cli.model.beam import Hypotheses
from evacap_cli.model.fused import Fused


@dataclass
class Generation:
    """Captions of B clips and the numbers of the model.

    A field is None for models that do not compute it. For clips without a picture, `gate` is 0 and `entropy`,
    `evidence` and `cues` are NaN.

    tokens: int64 (B, L), bos to eos, then pad. score: (B,) mean log-probability per word, eos included.
    beam_score: (B,) the length-penalised score of beam search.
    gate, entropy: (B,) means over the audio tokens. gates, entropies: the values over time that `curve_grid` of the
    encoder's configuration arranges, (B, rows * columns).
    evidence: (B,) the probability that audio and picture match, mean over the windows with a picture. cues: (B, K) the
    numbers from which it is computed.
    heard, seen: the tags of the clip, see `Fused`.
    confidences: (B, L - 1) with `adaptive`: the weight of the picture for each token after the first; NaN after the
    last word. `gate` is their mean.
    """

    tokens: Tensor
    score: Tensor
    beam_score: Tensor
    gate: Tensor | None = None
    entropy: Tensor | None = None
    gates: Tensor | None = None
    entropies: Tensor | None = None
    evidence: Tensor | None = None
    cues: Tensor | None = None
    heard: Tensor | None = None
    seen: Tensor | None = None
    confidences: Tensor | None = None

    @classmethod
    def from_hypotheses(cls, found: Hypotheses, memory: Fused, confidences: Tensor | None) -> Generation:
        """confidences: (B, L - 1), the values of all positions; None for decoders without them."""
        gate, entropy = (None if x is None else x.float().mean(dim=1) for x in (memory.gate, memory.entropy))
        if confidences is not None:
            position = torch.arange(confidences.shape[1], device=confidences.device)
            words = (found.length - 2).clamp(min=1)  # without bos and eos; an empty caption keeps that of eos
            confidences = confidences.masked_fill(position >= words[:, None], torch.nan)
            gate = confidences.nanmean(dim=1)
        return cls(
            found.tokens,
            score=found.logprob / (found.length - 1).clamp(min=1),
            beam_score=found.score,
            gate=gate,
            entropy=entropy,
            gates=_over_time(memory.gate, memory.heard),
            entropies=_over_time(memory.entropy, memory.heard),
            evidence=None if memory.evidence is None else memory.evidence.nanmean(dim=1),
            cues=memory.cues,
            heard=memory.heard,
            seen=memory.seen,
            confidences=confidences,
        )


def _over_time(values: Tensor | None, heard: Tensor | None) -> Tensor | None:
    """The values of audio tokens (B, T_a) over time, (B, rows * columns of `curve_grid`).

    The token of a tag belongs to the whole clip. The value of a window is the mean over the tags, weighted with the
    probability of each tag in the window.
    """
    if values is None or heard is None:
        return None if values is None else values.float()
    probability = heard[..., 2:].sigmoid()  # (B, T_a, W)
    return (values.float()[..., None] * probability).sum(dim=1) / probability.sum(dim=1)
