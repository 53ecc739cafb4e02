"""Checkpoints with tag towers (the packaged networks, and fresh random weights behind them) and pictures for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from evacap_cli.model import ModelConfig, Tokenizer, build_model, load_preset, save_checkpoint
from evacap_cli.model.towers import load_towers

from ...conftest import WORDS


def save_tagged(folder: Path, preset: str) -> Path:
    """A checkpoint of a preset with tag towers. It says "a" of every clip, so that neighbours have equal captions."""
    chosen = load_preset(preset)
    tokenizer = Tokenizer.train(WORDS, 200)
    config = chosen.model.to_dict()
    config["decoder"] |= {"vocab_size": len(tokenizer), "layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = load_towers(build_model(ModelConfig.from_dict(config)))
    for decoder in model.decoders:
        decoder.output_bias.data[tokenizer.encode("a")[1]] = 50.0
    save_checkpoint(folder / preset, model, tokenizer, chosen.features)
    return folder / preset


def stripes(t: float, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8, a picture in which something is seen."""
    wide = np.sin(np.arange(width) / (2 + t))[None, :, None] * np.array([100, 60, -90])
    return np.clip(128 + wide + np.zeros((height, 1, 1)), 0, 255).astype(np.uint8)
