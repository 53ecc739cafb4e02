"""Variants of the paper's entropy gate: one gate per head, and attention with a learned temperature."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from evacap_cli.model import CaptionModel
from evacap_cli.model.attention import entropy_attention
from evacap_cli.model.fused import Fused
from evacap_cli.model.fusion import EntropyGate


class EntropyGatePerHead(EntropyGate):
    """g_h = sigmoid(w_h E_h + b_h) weights head h's part of F; the audio has weight 1 - mean_h g_h."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.gate_weight = nn.Parameter(torch.full((heads, 1), -1.0))
        self.gate_bias = nn.Parameter(torch.zeros(heads, 1))

    def combine(self, audio: Tensor, picture: Tensor, mask: Tensor | None) -> Fused:
        output, entropy = entropy_attention(
            *self.project(audio, picture), mask
        )  # (B, h, T_a, d_h), (B, h, T_a)
        gates = torch.sigmoid(self.gate_weight * entropy + self.gate_bias)
        seen = self.merge(output * gates[..., None].to(output.dtype))
        gate = gates.mean(dim=1)
        weight = gate[..., None].to(audio.dtype)
        return Fused((1 - weight) * audio + seen, gate=gate, entropy=entropy.mean(dim=1))


class EntropyGateSharp(EntropyGate):
    """Multiplies attention scores by a learned factor, initially 4. Sharper attention has a more variable entropy."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.sharpness = nn.Parameter(torch.tensor(math.log(4.0)))

    def project(self, audio: Tensor, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(audio, picture)
        return q * self.sharpness.exp(), k, v


def per_head(model: CaptionModel) -> None:
    model.fusion = EntropyGatePerHead(model.config.encoder.width, model.config.encoder.heads)


def sharp(model: CaptionModel) -> None:
    model.fusion = EntropyGateSharp(model.config.encoder.width, model.config.encoder.heads)


def start(weight: float, bias: float) -> Callable[[CaptionModel], None]:
    """Returns a function that sets other initial values of w_g and b_g."""

    def change(model: CaptionModel) -> None:
        assert isinstance(model.fusion, EntropyGate)
        model.fusion.gate_weight.data.fill_(weight)
        model.fusion.gate_bias.data.fill_(bias)

    return change
