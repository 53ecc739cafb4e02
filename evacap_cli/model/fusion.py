"""How the picture is let into the sound: one class for each `fusion` kind (EVACap section 2.2 and its baselines)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from evacap_cli.model.attention import entropy_attention
from evacap_cli.model.config import EncoderConfig


@dataclass
class Fused:
    """What fusion hands to the decoder.

    tokens: (B, P, d). mask: bool (B, P), None when every token exists. gate and entropy: (B, T_a) in [0, 1] per audio
    token, None for kinds without them; clips without a picture have gate 0 and entropy NaN.
    """

    tokens: Tensor
    mask: Tensor | None = None
    gate: Tensor | None = None
    entropy: Tensor | None = None


class CrossAttention(nn.Module):
    """Sound asks, picture answers: F = W_o softmax(Q K^T / sqrt(d_head)) V, and A + F (the paper's row "w/o G")."""

    has_gate = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def project(self, audio: Tensor, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, d) tokens to per-head q, k, v (B, h, T, d_head)."""
        split = (self.heads, -1)
        q = self.query(audio).unflatten(-1, split).transpose(1, 2)
        k, v = self.key_value(picture).unflatten(-1, (2, *split)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def merge(self, heads: Tensor) -> Tensor:
        return self.out(heads.transpose(1, 2).flatten(2))

    def attend(self, audio: Tensor, picture: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.project(audio, picture)
        return self.merge(
            scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
        )

    def combine(self, audio: Tensor, picture: Tensor, mask: Tensor | None) -> Fused:
        return Fused(audio + self.attend(audio, picture, mask))

    def forward(self, audio: Tensor, picture: Tensor | None, mask: Tensor | None) -> Fused:
        """audio: (B, T_a, d), picture: (B, T_v, d) or None, mask: bool (B, T_v), True for tokens that exist."""
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


class LearnedGate(CrossAttention):
    """g = sigmoid(W [A; F]) per token: an ordinary gate (rows "w/o E" and "w/o S&E")."""

    has_gate = True

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.gate = nn.Linear(2 * width, 1)

    def combine(self, audio: Tensor, picture: Tensor, mask: Tensor | None) -> Fused:
        seen = self.attend(audio, picture, mask)
        gate = torch.sigmoid(self.gate(torch.cat((audio, seen), dim=-1)))
        return Fused((1 - gate) * audio + gate * seen, gate=gate.squeeze(-1))


class EntropyGate(CrossAttention):
    """g = sigmoid(w_g E + b_g): the more scattered the look, the less the picture may say (equations 2 and 3)."""

    has_gate = True

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.gate_weight = nn.Parameter(torch.tensor(-1.0))
        self.gate_bias = nn.Parameter(torch.tensor(0.0))

    def combine(self, audio: Tensor, picture: Tensor, mask: Tensor | None) -> Fused:
        output, entropy = entropy_attention(*self.project(audio, picture), mask)
        seen, entropy = self.merge(output), entropy.mean(dim=1)  # averaged over heads: (B, T_a)
        gate = torch.sigmoid(self.gate_weight * entropy + self.gate_bias)
        weight = gate[..., None].to(audio.dtype)
        return Fused((1 - weight) * audio + weight * seen, gate=gate, entropy=entropy)

    def _without_picture(self, audio: Tensor) -> Fused:
        fused = super()._without_picture(audio)
        fused.entropy = torch.full_like(audio[..., 0], torch.nan)
        return fused


class Concatenation(nn.Module):
    """AVCap: tokens of both modalities side by side, mixed by the encoder's shared block."""

    has_gate = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()


class AudioOnly(nn.Module):
    """No picture at all."""

    has_gate = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()


_KINDS: dict[str, type[nn.Module]] = {
    "entropy-gate": EntropyGate,
    "gate": LearnedGate,
    "cross-attention": CrossAttention,
    "concat": Concatenation,
    "audio-only": AudioOnly,
}


def build_fusion(kind: str, encoder: EncoderConfig) -> nn.Module:
    """The module for a `fusion` setting, sized for an encoder."""
    return _KINDS[kind](encoder.width, encoder.heads)
