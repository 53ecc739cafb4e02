"""The towers of all arms: trained from scratch with tagging and contrast, then frozen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from arms import PRECISION
from masked import MaskedPretrainer
from pretraining import Labels, Pretrainer, PretrainSettings, pretrain, tower_report

from evacap_cli.model import CaptionModel, build_model, load_preset
from evacap_cli.tasks.batches import FeatureBatches
from evacap_cli.tasks.devices import PRECISIONS

PRESET = "evacap-tiny"
STEPS = 3000


def towers(data: dict[str, FeatureBatches], labels: dict[str, Labels], sounds: list[str], work: Path,
           steps: int = STEPS, device: str = "cpu", masked: bool = False) -> CaptionModel:  # fmt: skip
    """An `evacap-tiny` with a pre-trained encoder; continues an interrupted run. masked: adds masked reconstruction."""
    config = load_preset(PRESET).model
    classes = len(sounds) + labels["train"].things.shape[1]
    torch.manual_seed(0)
    model = build_model(replace(config, encoder=replace(config.encoder, tag_classes=classes))).to(device)

    def progress(step: int, losses: dict[str, float]) -> None:
        print(f"towers: {step}/{steps} " + " ".join(f"{k} {v:.4f}" for k, v in losses.items()), flush=True)

    settings = PretrainSettings(steps=steps, freq_mask=24, time_mask=96)
    trainer = (MaskedPretrainer if masked else Pretrainer)(model.encoder, len(sounds), settings).to(device)
    pretrain(
        trainer, data["train"], labels["train"], settings, work / "towers", PRECISIONS[PRECISION], progress
    )
    if not (work / "towers.json").exists():
        report = tower_report(model, data["val"], labels["val"], sounds) | {"masked": masked}
        (work / "towers.json").write_text(json.dumps(report, indent=1))
        print(
            "towers on val:", {k: round(v, 4) for k, v in report.items() if isinstance(v, float)}, flush=True
        )
    return model


def weights(work: Path) -> dict[str, torch.Tensor]:
    """The encoder weights after pre-training."""
    state = torch.load(work / "towers" / "pretraining.pt", map_location="cpu", weights_only=True)["trainer"]
    return {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
