"""Builds the model that a training run starts from, before any other weights are loaded."""

from __future__ import annotations

from dataclasses import replace

import torch

from evacap_cli.model import CaptionModel, Tokenizer
from evacap_cli.model.towers import load_towers
from evacap_cli.tasks.training.config import RunConfig


def fresh_model(settings: RunConfig, tokenizer: Tokenizer) -> CaptionModel:
    """Returns a model with random weights from the run's seed and the tokenizer's vocabulary size. Tag towers get the
    packaged networks."""
    torch.manual_seed(settings.training.seed)
    decoder = replace(settings.model.decoder, vocab_size=len(tokenizer))
    config = replace(settings.model, decoder=decoder)
    model = CaptionModel(config, tokenizer.bos, tokenizer.eos, tokenizer.pad)
    return load_towers(model) if model.has_tag_towers else model
