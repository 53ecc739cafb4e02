"""EVACap's entropy-aware gated fusion (section 2.2 of the paper), and the fusions that it is compared with.

Symbols are those of the paper: A (B, T_a, d) are the audio tokens, F_v (B, T_v, d) the visual tokens, P_att the
attention weights, F (B, T_a, d) the multimodal features, E_att the entropy of P_att and g the gate. Each kind of
`fusion` is one class; `fusion_kinds` lists all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from evacap_cli.model.attention import entropy_attention
from evacap_cli.model.fused import Fused, Tags


class CrossAttention(nn.Module):
    """Cross-attention without a gate: A + F, with F of equation (1). The row "w/o G" of Table 4."""

    has_gate = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def project(self, A: Tensor, F_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The queries Q of the audio, and the keys K and values V of the picture: (B, h, T, d / h) each."""
        split = (self.heads, -1)
        Q = self.query(A).unflatten(-1, split).transpose(1, 2)
        K, V = self.key_value(F_v).unflatten(-1, (2, *split)).permute(2, 0, 3, 1, 4)
        return Q, K, V

    def merge(self, heads: Tensor) -> Tensor:
        """The outputs of the heads (B, h, T_a, d / h) to features (B, T_a, d)."""
        return self.out(heads.transpose(1, 2).flatten(2))

    def attend(self, A: Tensor, F_v: Tensor, mask: Tensor | None) -> Tensor:
        """Equation (1): P_att = softmax(Q K^T / sqrt(d / h)), F = P_att V. Returns F (B, T_a, d)."""
        Q, K, V = self.project(A, F_v)
        attn_mask = None if mask is None else mask[:, None, None]
        return self.merge(scaled_dot_product_attention(Q, K, V, attn_mask=attn_mask))

    def combine(self, A: Tensor, F_v: Tensor, mask: Tensor | None) -> Fused:
        """The fusion of clips that all have at least one visual token. The subclasses differ in this method."""
        return Fused(A + self.attend(A, F_v, mask))

    def forward(
        self, audio: Tensor, picture: Tensor | None, mask: Tensor | None, tags: Tags | None = None
    ) -> Fused:
        """Fuses a batch; the tokens of a clip without a picture are its audio tokens.

        audio: A (B, T_a, d). picture: F_v (B, T_v, d) or None. mask: bool (B, T_v), True for visual tokens that exist;
        None if all do. tags: not used.
        """
        if picture is None:
            return self._without_picture(audio)
        if mask is None:
            return self.combine(audio, picture, None)
        present = mask.any(dim=1)
        fused = self.combine(audio, picture, mask | ~present[:, None])
        fused.tokens = torch.where(present[:, None, None], fused.tokens, audio)
        if fused.gate is not None:
            fused.gate = torch.where(present[:, None], fused.gate, 0.0)
        if fused.entropy is not None:
            fused.entropy = torch.where(present[:, None], fused.entropy, torch.nan)
        return fused

    def _without_picture(self, audio: Tensor) -> Fused:
        return Fused(audio, gate=audio.new_zeros(audio.shape[:2]) if self.has_gate else None)


class EntropyGate(CrossAttention):
    """The fusion of EVACap: the more dispersed the attention to the picture, the smaller the gate."""

    has_gate = True

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.gate_weight = nn.Parameter(torch.tensor(-1.0))  # w_g
        self.gate_bias = nn.Parameter(torch.tensor(0.0))  # b_g

    def combine(self, A: Tensor, F_v: Tensor, mask: Tensor | None) -> Fused:
        """Equations (1) to (3)."""
        Q, K, V = self.project(A, F_v)
        F, E_att = entropy_attention(Q, K, V, mask)  # (1) and (2), for each head
        F, E_att = self.merge(F), E_att.mean(dim=1)  # (B, T_a, d), (B, T_a)
        g = torch.sigmoid(self.gate_weight * E_att + self.gate_bias)  # (3)
        weight = g[..., None].to(A.dtype)
        F = (1 - weight) * A + weight * F
        return Fused(F, gate=g, entropy=E_att)

    def _without_picture(self, audio: Tensor) -> Fused:
        fused = super()._without_picture(audio)
        fused.entropy = torch.full_like(audio[..., 0], torch.nan)
        return fused


class LearnedGate(CrossAttention):
    """A gate that does not use the entropy: g = sigmoid(W [A; F]) for each token. The rows "w/o E" and "w/o S&E"."""

    has_gate = True

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.gate = nn.Linear(2 * width, 1)

    def combine(self, A: Tensor, F_v: Tensor, mask: Tensor | None) -> Fused:
        F = self.attend(A, F_v, mask)
        g = torch.sigmoid(self.gate(torch.cat((A, F), dim=-1)))
        return Fused((1 - g) * A + g * F, gate=g.squeeze(-1))


class Concatenation(nn.Module):
    """AVCap: the memory is [A; F_v]. The encoder's shared block mixes both (`TwoTowerEncoder.join`)."""

    has_gate = False


class AudioOnly(nn.Module):
    """The memory is A; the model has no picture branch."""

    has_gate = False
