"""What every kind of fusion returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Fused:
    """What fusion hands to the decoder.

    tokens: (B, P, d). mask: bool (B, P), None when every token exists. gate and entropy: (B, T_a) in [0, 1] per audio
    token, None for kinds without them; clips without a picture have gate 0 and entropy NaN. evidence: (B, W), how
    likely sound and picture belong together in every window, and cues: (B, K), what the clip's is made of; both NaN for
    clips without a picture, None for kinds that do not compare. Of `optimal-transport`, cues are (B, 1), the plan's
    value. open: bool (B,), clips whose picture is in, None for kinds without a switch. heard and seen: of tag towers,
    the clip's tags of sound (B, T_a, 2 + windows) and picture (B, T_v, 3, None without one); see `tag_encoder`.
    confirmed: the tags of sound with the classes raised that the picture confirms; None without a picture.
    """

    tokens: Tensor
    mask: Tensor | None = None
    gate: Tensor | None = None
    entropy: Tensor | None = None
    evidence: Tensor | None = None
    cues: Tensor | None = None
    open: Tensor | None = None
    heard: Tensor | None = None
    seen: Tensor | None = None
    confirmed: Tensor | None = None

    def some(self, rows: Tensor) -> Fused:
        """What the decoder needs of some clips, bool (B,)."""
        return Fused(self.tokens[rows], None if self.mask is None else self.mask[rows])
