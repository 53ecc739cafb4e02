"""The model core: encoder, fusion, decoder, search and checkpoints. Pure PyTorch, on any device."""

from evacap_cli.model.captioner import CaptionModel, build_model
from evacap_cli.model.checkpoint import (
    Checkpoint,
    load_checkpoint,
    packaged_models,
    resolve_model,
    save_checkpoint,
)
from evacap_cli.model.config import FUSIONS, DecoderConfig, EncoderConfig, ModelConfig
from evacap_cli.model.generation import Generation
from evacap_cli.model.losses import Objective
from evacap_cli.model.parameters import parameter_counts
from evacap_cli.model.presets import Preset, load_preset, preset_names
from evacap_cli.model.tokenizer import Tokenizer

__all__ = [
    "FUSIONS",
    "CaptionModel",
    "Checkpoint",
    "DecoderConfig",
    "EncoderConfig",
    "Generation",
    "ModelConfig",
    "Objective",
    "Preset",
    "Tokenizer",
    "build_model",
    "load_checkpoint",
    "load_preset",
    "packaged_models",
    "parameter_counts",
    "preset_names",
    "resolve_model",
    "save_checkpoint",
]
