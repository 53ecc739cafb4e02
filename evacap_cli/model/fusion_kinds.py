"""The kinds of fusion that the setting `model.fusion` selects."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from evacap_cli.model.adaptive import AdaptiveFusion
from evacap_cli.model.config import ModelConfig
from evacap_cli.model.evidence_switch import EvidenceSwitch
from evacap_cli.model.fusion import AudioOnly, Concatenation, CrossAttention, EntropyGate, LearnedGate
from evacap_cli.model.optimal_transport import OptimalTransport

_KINDS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "entropy-gate": lambda config: EntropyGate(config.encoder.width, config.encoder.heads),
    "gate": lambda config: LearnedGate(config.encoder.width, config.encoder.heads),
    "cross-attention": lambda config: CrossAttention(config.encoder.width, config.encoder.heads),
    "concat": lambda config: Concatenation(),
    "audio-only": lambda config: AudioOnly(),
    "evidence": EvidenceSwitch,
    "adaptive": AdaptiveFusion,
    "optimal-transport": OptimalTransport,
}


def build_fusion(config: ModelConfig) -> nn.Module:
    """The module of the kind `config.fusion`, with random weights."""
    return _KINDS[config.fusion](config)
