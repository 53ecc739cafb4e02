"""The result of a fusion: the decoder's memory and the numbers that the fusion computes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

Tags = tuple[Tensor, Tensor | None]
"""What the towers recognise in audio and picture (None without one). CAV-MAE towers: tag logits of the tokens,
(B, T_a, C) and (B, T_v, C). Tag towers: the tags, (B, T_a, 2 + windows) and (B, T_v, 3), see `tag_encoder`."""


@dataclass
class Fused:
    """The decoder's memory of B clips.

    A field is None for kinds of fusion that do not compute it. For clips without a picture, `gate` is 0 and `entropy`,
    `evidence` and `cues` are NaN.

    tokens: the memory, (B, P, d). mask: bool (B, P), True for tokens that exist; None if all do.
    gate, entropy: g and E_att of every audio token, (B, T_a) in [0, 1].
    evidence: the probability that audio and picture match, (B, W), one for each window of the clip.
    cues: the numbers from which the evidence of the clip is computed, (B, K). With `optimal-transport`: the value of
    the plan, (B, 1).
    uses_picture: bool (B,), whether the switch lets the picture in.
    heard, seen: tags of the audio (B, T_a, 2 + windows) and the picture (B, T_v, 3), of models with tag towers.
    confirmed: `heard`, with higher logits for the classes that the picture confirms; None without a picture.
    """

    tokens: Tensor
    mask: Tensor | None = None
    gate: Tensor | None = None
    entropy: Tensor | None = None
    evidence: Tensor | None = None
    cues: Tensor | None = None
    uses_picture: Tensor | None = None
    heard: Tensor | None = None
    seen: Tensor | None = None
    confirmed: Tensor | None = None

    def select(self, rows: Tensor) -> Fused:
        """The memory of some clips, bool (B,), without the other fields."""
        return Fused(self.tokens[rows], None if self.mask is None else self.mask[rows])
