"""Small random models and clips that the model tests share, and the plain form of what they check."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evacap_cli.model import CaptionModel, DecoderConfig, EncoderConfig, ModelConfig
from evacap_cli.model.adaptive import AdaptiveLayer
from evacap_cli.model.config import EvidenceConfig
from evacap_cli.model.evidence_switch import EvidenceSwitch

ENCODER = EncoderConfig(
    audio_frames=64, mel_bins=32, image_size=32, frames=3, width=32, depth=1, heads=2, tag_classes=0
)
"""8 tokens of sound, 4 a frame."""
DECODER = DecoderConfig(vocab_size=23, width=32, layers=2, heads=2, feedforward=64, positions=64)
PICTURES = ("entropy-gate", "gate", "cross-attention", "concat", "evidence", "adaptive", "optimal-transport")
"""The kinds of fusion that look."""


def fresh_model(fusion: str, seed: int = 0, decoders: int = 2, **encoder: Any) -> CaptionModel:
    """A small model as training would start it, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        evidence = EvidenceConfig(decoders=decoders)
        return CaptionModel(ModelConfig(fusion, replace(ENCODER, **encoder), DECODER, evidence)).eval()


def random_model(fusion: str, seed: int = 0, decoders: int = 2, **encoder: Any) -> CaptionModel:
    """Weights so large that captions differ in words and length, and that beams overtake one another. Of two decoders,
    each says other things."""
    model = fresh_model(fusion, seed, decoders, **encoder)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.fusion.named_parameters():
            parameter.mul_(4 if name == "out.weight" else 1)
        if isinstance(model.fusion, EvidenceSwitch):  # open for about half of the clips
            model.fusion.evidence.bias.fill_(5.6)
        for decoder in model.decoders:
            decoder.words.weight.mul_(30)
            decoder.positions.weight.mul_(60)
            for layer in decoder.stack:
                parts = [layer.qkv, layer.out, layer.widen, layer.narrow]
                if isinstance(layer, AdaptiveLayer):
                    parts += [
                        layer.query,
                        layer.hear,
                        layer.see,
                        layer.hear_out,
                        layer.see_out,
                        layer.confidence,
                    ]
                for part in parts:
                    part.weight.mul_(8)
                # words and output are tied: without this every word is its own likeliest successor
                layer.output_norm.weight.mul_(torch.randint(0, 2, (DECODER.width,), generator=g) * 2 - 1)
    return model


def random_clips(batch: int, seed: int = 0, frames: int = 3) -> tuple[Tensor, Tensor]:
    """fbank (B, 64, 32) and pixels (B, N, 3, 32, 32), as smooth as pictures are."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 64, 32, generator=g), smooth_pictures(batch, frames, 32, g)


def smooth_pictures(batch: int, frames: int, size: int, generator: torch.Generator) -> Tensor:
    """(B, N, 3, S, S), of about the deviation 1."""
    coarse = torch.randn(batch * frames, 3, 8, 8, generator=generator)
    pixels = interpolate(coarse, (size, size), mode="bilinear") * 1.5
    return pixels.unflatten(0, (batch, frames))


def random_words(batch: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Captions of differing length, tokens (B, L) from bos to eos and pad, and which words are to be learned."""
    g = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(batch, length, dtype=torch.long)
    for i in range(batch):
        words = length - 2 - i % 3
        tokens[i, : words + 2] = torch.cat(
            (
                torch.tensor([1]),
                torch.randint(4, DECODER.vocab_size, (words,), generator=g),
                torch.tensor([2]),
            )
        )
    return tokens, (tokens != 0) & (tokens != 1)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention and normalised entropy -sum_j p_j log p_j / log T_k with the whole matrix written out."""
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    count = torch.full((q.shape[0],), k.shape[2])
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        count = mask.sum(1)
    p = scores.softmax(-1)
    entropy = -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(-1)
    return p @ v, entropy / count.clamp(min=2).to(q.dtype).log()[:, None, None]


def greatest_error(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


class TableDecoding:
    """Logits from a table (B, L, V, V): by clip, position and last word. Counts how often a beam took another's place,
    which includes those of the last step."""

    def __init__(self, table: Tensor) -> None:
        self.table, self.moved = table, 0

    def step(self, tokens: Tensor, position: Tensor) -> Tensor:
        t = int(position)
        return torch.stack([logits[t, tokens[b, :, t]] for b, logits in enumerate(self.table)])

    def reorder(self, parent: Tensor) -> None:
        self.moved += int((parent != torch.arange(parent.shape[1])).sum())
