"""The towers under every arm: tagging and contrast from nothing, then frozen; their tokens are computed once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from evacap_cli.model import CaptionModel, build_model, load_preset
from evacap_cli.tasks.batches import FeatureBatches
from evacap_cli.tasks.pretraining import Labels, PretrainSettings, pretrain, tower_report

PRESET = "evacap-tiny"
STEPS = 3000


def towers(data: dict[str, FeatureBatches], labels: dict[str, Labels], sounds: list[str], work: Path,
           steps: int = STEPS, device: str = "cpu") -> CaptionModel:  # fmt: skip
    """An `evacap-tiny` whose encoder knows the world; stopped, it goes on."""
    config = load_preset(PRESET).model
    classes = len(sounds) + labels["train"].things.shape[1]
    torch.manual_seed(0)
    model = build_model(replace(config, encoder=replace(config.encoder, tag_classes=classes))).to(device)

    def progress(step: int, losses: dict[str, float]) -> None:
        print(f"towers: {step}/{steps} " + " ".join(f"{k} {v:.4f}" for k, v in losses.items()), flush=True)

    settings = PretrainSettings(steps=steps, freq_mask=24, time_mask=96)
    pretrain(model, data["train"], labels["train"], settings, work / "towers", torch.bfloat16, progress)
    if not (work / "towers.json").exists():
        report = tower_report(model, data["val"], labels["val"], sounds)
        (work / "towers.json").write_text(json.dumps(report, indent=1))
        print(
            "towers on val:", {k: round(v, 4) for k, v in report.items() if isinstance(v, float)}, flush=True
        )
    return model
