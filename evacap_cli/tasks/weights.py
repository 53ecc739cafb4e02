"""What is in a model, without making it: presets are built without memory, checkpoints and others' files read."""

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
from evacap_cli.model.tag_encoder import NETWORKS
from evacap_cli.tasks.importing.networks import WEIGHT, find_kind, read_weights
from evacap_cli.tasks.importing.tensor_matching import TITLES

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NEXT = {
    "cav-mae": "an encoder to begin with: `evacap train ... --init-encoder FILE`",
    "git": "a decoder to begin with: `evacap train ... --init-decoder FILE`",
    "avcap": "a whole model: `evacap weights import avcap FILE -o DIR`, then `evacap caption ... --model DIR`",
    "yamnet": "an ear of tag towers: `evacap weights import yamnet FILE -o DIR`",
    "efficientnet-lite0": "an eye of tag towers: `evacap weights import efficientnet-lite0 FILE -o DIR`",
    "ours": "a part to begin with: `evacap train ... --init-encoder FILE` or `--init-decoder FILE`",
}


def describe_model(name: str) -> dict[str, Any]:
    """Name, kind, fusion, parameters by part, sizes and features of a preset, a packaged model or a checkpoint; of a
    file that others publish, what it holds and what it is good for. `networks`: of tag towers, the parameters of the
    pre-trained networks, which the towers' numbers count too."""
    if name in preset_names():
        preset = load_preset(name)
        with torch.device("meta"):
            model = build_model(preset.model)
        about, features, kind = preset.about, preset.features, "preset"
    else:
        if Path(name).is_file() and (published := _describe_published(Path(name))):
            return published
        try:
            resolve_model(name)
        except UsageError as error:
            raise UsageError(
                f"{name}: no preset, packaged model, checkpoint or file with weights",
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
    """None for a checkpoint of ours."""
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
        "about": NEXT[kind]
        if kind
        else "its names are not those of CAV-MAE, GIT, AVCap, YAMNet or EfficientNet-lite0",
        "tensors": len(state),
        "dtypes": sorted({str(value.dtype).removeprefix("torch.") for value in state.values()}),
        "parameters": {"total": sum(parts.values()), **parts},
    }


def export(model: str, out: Path, precision: str = "fp32", overwrite: bool = False) -> int:
    """Writes a checkpoint as one file that `--model` takes; returns its bytes."""
    if precision not in DTYPES:
        raise UsageError(f"--precision {precision}: is none of {', '.join(DTYPES)}")
    if out.suffix != SUFFIX:
        raise UsageError(
            f"--out {out}: an exported checkpoint ends in {SUFFIX}", f"name it {out.with_suffix(SUFFIX)}"
        )
    if out.exists() and not overwrite:
        raise UsageError(f"--out {out}: is there already", "give another name, or --overwrite")
    checkpoint = load_checkpoint(model, dtype=DTYPES[precision])
    try:
        export_checkpoint(checkpoint, out)
    except OSError as error:
        raise EvacapError(
            f"{out}: cannot be written ({error.strerror or error})", "make room, or name another place"
        ) from error
    return out.stat().st_size
