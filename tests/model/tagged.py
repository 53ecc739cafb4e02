"""Small models with tag towers and random tags that the model tests share. The networks have their full size."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from evacap_cli.model import CaptionModel, ModelConfig
from evacap_cli.model.config import EvidenceConfig, TagEncoderConfig
from evacap_cli.model.evidence_switch import EvidenceSwitch
from evacap_cli.model.tag_evidence import TagEvidence

from .samples import DECODER, smooth_pictures

ENCODER = TagEncoderConfig(
    audio_frames=240, image_size=64, frames=3, heard=5, seen=4, windows=3, width=32, depth=1, heads=2
)
"""4 patches of sound."""
COMMON = 60  # random tags are of the first classes, so that frames and clips share some


@lru_cache(maxsize=16)
def _tag_model(fusion: str, seed: int, decoders: int, encoder: TagEncoderConfig) -> CaptionModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CaptionModel(ModelConfig(fusion, encoder, DECODER, EvidenceConfig(decoders=decoders))).eval()
        with torch.no_grad():
            for name, parameter in model.encoder.named_parameters():
                if (
                    name.startswith("network_") and parameter.dim() == 4
                ):  # with their initial weights, outputs hardly depend on inputs
                    parameter.mul_(2.5 if name.startswith("network_a") else 1.4)
            for decoder in model.decoders:
                decoder.words.weight.mul_(30)
                decoder.positions.weight.mul_(60)
                for layer in decoder.stack:
                    for part in (layer.qkv, layer.out, layer.widen, layer.narrow):
                        part.weight.mul_(8)
                    layer.output_norm.weight.mul_(torch.randint(0, 2, (DECODER.width,)) * 2 - 1)
            if isinstance(model.fusion, EvidenceSwitch):
                assert isinstance(model.fusion.evidence, TagEvidence)
                model.fusion.evidence.start_from(random_ties(encoder, seed))
                model.fusion.evidence.bias.fill_(5.6)  # open for about half of the clips
    return model


def tag_model(fusion: str, seed: int = 0, decoders: int = 2, **encoder: Any) -> CaptionModel:
    """Weights so large that captions differ, in evaluation mode, with ties of `random_ties`."""
    return copy.deepcopy(_tag_model(fusion, seed, decoders, replace(ENCODER, **encoder)))


def random_ties(encoder: TagEncoderConfig = ENCODER, seed: int = 0) -> Tensor:
    """(C_a, C_v), one in six above 0."""
    g = torch.Generator().manual_seed(seed)
    shape = (encoder.audio_classes, encoder.picture_classes)
    return torch.rand(shape, generator=g) * (torch.rand(shape, generator=g) < 1 / 6)


def random_heard(batch: int, seed: int = 0, encoder: TagEncoderConfig = ENCODER) -> Tensor:
    """Tags of sounds (B, heard, 2 + windows), the best class first."""
    g = torch.Generator().manual_seed(seed)
    classes = torch.stack([torch.randperm(COMMON, generator=g)[: encoder.heard] for _ in range(batch)])
    numbers = torch.randn(batch, encoder.heard, 1 + encoder.windows, generator=g) * 2 - 1
    order = numbers[..., 0].argsort(dim=1, descending=True)
    numbers = numbers.gather(1, order[..., None].expand_as(numbers))
    return torch.cat((classes[..., None].float(), numbers), dim=2)


def random_seen(batch: int, seed: int = 0, frames: int = 3, encoder: TagEncoderConfig = ENCODER) -> Tensor:
    """Tags of frames (B, N * seen, 3), the best class of each frame first."""
    g = torch.Generator().manual_seed(seed)
    rows = batch * frames
    classes = torch.stack([torch.randperm(COMMON, generator=g)[: encoder.seen] for _ in range(rows)])
    logits = (torch.randn(rows, encoder.seen, generator=g) * 3).sort(dim=1, descending=True).values
    chances = logits.softmax(dim=1) * torch.rand(rows, 1, generator=g)
    return torch.stack((classes.float(), logits, chances), dim=-1).view(batch, frames * encoder.seen, 3)


def random_inputs(batch: int, seed: int = 0, frames: int = 3) -> tuple[Tensor, Tensor]:
    """Log-mel (B, 240, 64) and pixels (B, N, 3, 64, 64)."""
    g = torch.Generator().manual_seed(seed)
    timbre = torch.randn(batch, 1, 64, generator=g) * 4
    return timbre + torch.randn(batch, 240, 64, generator=g), smooth_pictures(batch, frames, 64, g)
