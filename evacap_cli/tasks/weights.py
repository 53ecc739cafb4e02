"""Describes presets, checkpoints and published weight files, and exports checkpoints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import (
    build_model,
    load_checkpoint,
    load_preset,
    packaged_models,
    parameter_counts,
    preset_names,
    resolve_model,
)
from evacap_cli.model.checkpoint import SUFFIX, export_checkpoint
from evacap_cli.model.meta import without_weights
from evacap_cli.model.tag_encoder import NETWORKS
from evacap_cli.tasks.importing.networks import WEIGHT, find_kind, read_weights
from evacap_cli.tasks.importing.tensor_matching import TITLES

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
USES = {
    "cav-mae": "initializes an encoder: `evacap train ... --init-encoder FILE`",
    "git": "initializes a decoder: `evacap train ... --init-decoder FILE`",
    "avcap": "a complete model: `evacap weights import avcap FILE -o DIR`, then `evacap caption ... --model DIR`",
    "yamnet": "an audio tag tower: `evacap weights import yamnet FILE -o DIR`",
    "efficientnet-lite0": "a picture tag tower: `evacap weights import efficientnet-lite0 FILE -o DIR`",
    "ours": "initializes a part: `evacap train ... --init-encoder FILE` or `--init-decoder FILE`",
}


def describe_model(name: str) -> dict[str, Any]:
    """Describes a preset, a packaged model or a checkpoint: name, kind, fusion, parameters by part, sizes and features;
    or a published weight file: its content and use. `networks`: parameters of the pre-trained networks of tag towers,
    which those of the towers include."""
    if name in preset_names():
        preset = load_preset(name)
        with without_weights():
            model = build_model(preset.model)
        about, features, kind = preset.about, preset.features, "preset"
    else:
        if Path(name).is_file() and (published := _describe_published(Path(name))):
            return published
        try:
            resolve_model(name)
        except UsageError as error:
            raise UsageError(
                f"{name}: neither a preset, a packaged model, a checkpoint nor a weight file",
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
        "networks": {
            title: sum(parameter.numel() for parameter in network.parameters())
            for title, name in zip(
                ("YAMNet", getattr(model.config.encoder, "network", "")), NETWORKS, strict=True
            )
            if isinstance(network := getattr(model.encoder, name, None), torch.nn.Module)
        },
        "model": model.config.to_dict(),
        "features": features,
    }


def _describe_published(path: Path) -> dict[str, Any] | None:
    """Describes a published weight file; None for an evacap checkpoint."""
    state = read_weights(path)
    kind = find_kind(state)
    if kind == "ours" and len({name.split(".")[0] for name in state}) > 1:
        return None
    parts: dict[str, int] = {}
    for tensor_name, value in state.items():
        part = re.split(r"[./]", tensor_name.removeprefix(WEIGHT))[0]
        parts[part] = parts.get(part, 0) + value.numel()
    return {
        "name": str(path),
        "kind": TITLES[kind] if kind else "unknown",
        "about": USES[kind]
        if kind
        else "its tensor names are not those of CAV-MAE, GIT, AVCap, YAMNet or EfficientNet-lite0",
        "tensors": len(state),
        "dtypes": sorted({str(value.dtype).removeprefix("torch.") for value in state.values()}),
        "parameters": {"total": sum(parts.values()), **parts},
    }


def export(model: str, out: Path, precision: str = "fp32", overwrite: bool = False) -> int:
    """Writes a checkpoint as one file for `--model`. Returns its size in bytes."""
    if precision not in DTYPES:
        raise UsageError(f"--precision {precision}: must be one of {', '.join(DTYPES)}")
    if out.suffix != SUFFIX:
        raise UsageError(
            f"--out {out}: the suffix of an exported checkpoint is {SUFFIX}",
            f"name it {out.with_suffix(SUFFIX)}",
        )
    if out.exists() and not overwrite:
        raise UsageError(f"--out {out}: already exists", "use another name, or --overwrite")
    checkpoint = load_checkpoint(model, dtype=DTYPES[precision])
    try:
        export_checkpoint(checkpoint, out)
    except OSError as error:
        raise EvacapError(
            f"{out}: cannot be written ({error.strerror or error})", "free some space, or use another folder"
        ) from error
    return out.stat().st_size
