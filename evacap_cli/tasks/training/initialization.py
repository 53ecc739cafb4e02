"""The model that a training begins with, before any weights of others are taken over."""

from __future__ import annotations

from dataclasses import replace

import torch

from evacap_cli.model import CaptionModel, Tokenizer
from evacap_cli.model.towers import load_towers
from evacap_cli.tasks.training.config import RunConfig


def fresh_model(settings: RunConfig, tokenizer: Tokenizer) -> CaptionModel:
    """Random weights by the run's seed, as many words as the tokenizer has; tag towers get the packaged networks."""
    torch.manual_seed(settings.training.seed)
    decoder = replace(settings.model.decoder, vocab_size=len(tokenizer))
    config = replace(settings.model, decoder=decoder)
    model = CaptionModel(config, tokenizer.bos, tokenizer.eos, tokenizer.pad)
    return load_towers(model) if model.tagged else model
