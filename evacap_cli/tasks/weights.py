"""What is in a model, without making it: presets are built without memory, checkpoints read."""

from __future__ import annotations

from typing import Any

import torch

from evacap_cli.errors import UsageError
from evacap_cli.model import (
    build_model,
    load_checkpoint,
    load_preset,
    packaged_models,
    parameter_counts,
    preset_names,
    resolve_model,
)


def describe_model(name: str) -> dict[str, Any]:
    """Name, kind, fusion, parameters by part, sizes and features of a preset, packaged model or checkpoint folder."""
    if name in preset_names():
        preset = load_preset(name)
        with torch.device("meta"):
            model = build_model(preset.model)
        about, features, kind = preset.about, preset.features, "preset"
    else:
        try:
            resolve_model(name)
        except UsageError as error:
            raise UsageError(
                f"{name}: no preset, packaged model or checkpoint folder",
                f"presets: {', '.join(preset_names())}; packaged: {', '.join(packaged_models()) or 'none'}",
            ) from error
        checkpoint = load_checkpoint(name)
        model, features, kind = checkpoint.model, checkpoint.features, "checkpoint"
        about = str(
            checkpoint.metadata.get("about") or f"checkpoint at step {checkpoint.metadata.get('step', '?')}"
        )
    return {
        "name": name,
        "kind": kind,
        "about": about,
        "fusion": model.config.fusion,
        "parameters": parameter_counts(model),
        "model": model.config.to_dict(),
        "features": features,
    }
