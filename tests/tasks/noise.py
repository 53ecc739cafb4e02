"""A store of noise and models that say different things of it, for tests of what models make of stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from evacap_cli.data.store import Sample, Store, write_store
from evacap_cli.features import FeatureSettings
from evacap_cli.model import CaptionModel, Checkpoint, DecoderConfig, EncoderConfig, ModelConfig, Tokenizer
from evacap_cli.model.evidence_switch import EvidenceSwitch

from ..data.toys import Toy

FEATURES = FeatureSettings(mel_bins=32, audio_frames=64, image_size=32, frames=2, fps=0.2)
CLIPS = 7
WORDS = ("a dog barks", "rain falls on a roof", "an engine idles")
WITHOUT_PICTURE = 4
OPENING = 5.0


def pictures(rng: np.random.Generator) -> np.ndarray:
    """uint8 (2, 3, 32, 32): two frames of squares, each of a colour of its own."""
    return rng.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8).repeat(4, axis=2).repeat(4, axis=3)


def make(toy: Toy) -> Sample:
    number = int(toy.key.split("-")[1])
    rng = np.random.default_rng(number)
    frames = None if number == WITHOUT_PICTURE else pictures(rng)
    return Sample(rng.standard_normal((64, 32)).astype(np.float32), frames, end=10.0)


def noise_store(folder: Path, clips: int = CLIPS) -> Store:
    """Clips, one of them without a picture, each with two captions."""
    items = [Toy(f"clip-{i}", (WORDS[i % 3], f"{WORDS[(i + 1) % 3]} twice")) for i in range(clips)]
    write_store(folder, items, make, FEATURES, frames_format="raw", workers=0)
    return Store(folder)


def checkpoint(fusion: str, folder: Path = Path("toy")) -> Checkpoint:
    torch.manual_seed(1)
    tokenizer = Tokenizer.train(WORDS, 100)
    encoder = EncoderConfig(audio_frames=64, mel_bins=32, image_size=32, frames=2, width=32, depth=1, heads=2,
                            tag_classes=0)  # fmt: skip
    decoder = DecoderConfig(
        vocab_size=len(tokenizer), width=32, layers=1, heads=2, feedforward=64, positions=32
    )
    model = CaptionModel(ModelConfig(fusion, encoder, decoder)).eval()
    with torch.no_grad():  # fresh weights say the same of everything
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        if isinstance(model.fusion, EvidenceSwitch):  # open for some
            model.fusion.evidence.bias.fill_(OPENING)
    return Checkpoint("toy", folder, model, tokenizer, FEATURES.to_dict())
