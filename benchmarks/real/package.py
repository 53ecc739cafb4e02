"""Packages the models trained by `run.py`: fp16 weights (shared tensors only once), calibrations and model cards."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, Networks, build
from listen import FEATURES
from safetensors.torch import load_file, save_file
from torch import Tensor

import evacap_cli
from evacap_cli.model import CaptionModel, Tokenizer, load_checkpoint, parameter_counts, save_checkpoint
from evacap_cli.model.towers import SHARED, TIES
from evacap_cli.tasks.calibrating import calibrate

ASSETS = Path(evacap_cli.__file__).parent / "assets" / "models"
ABOUT = {
    "demo": "Uses the picture only if it matches the sound; otherwise, the caption is that of `audio-demo`",
    "entropy-demo": "EVACap as in the paper, on tags: a gate on the attention entropy weights the picture",
    "avcap-demo": "AVCap, on tags: the audio and picture tokens are concatenated",
    "audio-demo": "Audio only, on tags: the model has no picture input",
}


def trained(name: str, work: Path, networks: Networks, words: int) -> CaptionModel:
    """The model of an arm after its last step."""
    model = build(name, networks, words, 0)
    model.load_state_dict(load_file(work / "arms" / name / "last" / "model.safetensors"))
    return networks.into_networks(model).eval()


def in_common(models: dict[str, CaptionModel]) -> dict[str, Tensor]:
    """The tensors that are equal in at least two models, in fp16: the networks, and the audio-only parts."""
    found: dict[str, Tensor] = {}
    seen: dict[str, list[Tensor]] = {}
    for model in models.values():
        for name, value in model.state_dict().items():
            value = value.half() if value.is_floating_point() else value
            if any(torch.equal(value, other) for other in seen.get(name, [])):
                found[name] = value.contiguous()
            seen.setdefault(name, []).append(value)
    found[TIES] = models["demo"].state_dict()[TIES].half().contiguous()
    return found


def package(work: Path, networks: Networks, pairs: Path, about_pairs: str) -> None:
    """Writes `assets/models` from the trained arms. pairs: the store of real pairs for calibration."""
    tokenizer = Tokenizer.load(work / "tokenizer.json")
    models = {name: trained(name, work, networks, len(tokenizer)) for name in ARMS}
    common = in_common(models)
    save_file(common, ASSETS / SHARED)
    (ASSETS / SHARED).chmod(0o644)
    for name, model in models.items():
        own = model.state_dict()
        shared = {
            key
            for key, value in common.items()
            if key in own
            and torch.equal(own[key].half() if own[key].is_floating_point() else own[key], value)
        }
        checkpoint = load_checkpoint(work / "arms" / name / "last").metadata
        done = json.loads((work / "arms" / name / "done.json").read_text())
        metadata = {"preset": ARMS[name].preset, "about": ABOUT[name], "training": checkpoint["training"]}
        counts = parameter_counts(model)
        save_checkpoint(
            ASSETS / name, model, tokenizer, FEATURES.to_dict(), metadata, torch.float16,
            card(name, counts, done), shared,
        )  # fmt: skip
        if load_checkpoint(ASSETS / name).model.has_gate:
            calibrate(str(ASSETS / name), pairs, about=about_pairs)


def card(name: str, counts: dict[str, int], done: dict[str, Any]) -> str:
    """The model card, from the template `card.md` and the measured numbers. `report.py` adds the results."""
    parts = ", ".join(f"{part} {n / 1e6:.2f} M" for part, n in counts.items() if n and part != "total")
    return (Path(__file__).parent / "card.md").read_text("utf-8").format(
        name=name, about=ABOUT[name], preset=ARMS[name].preset, parameters=counts["total"] / 1e6, parts=parts,
        steps=done["steps"], minutes=done["seconds"] / 60,
        after=f" It starts from `{ARMS[name].after}`." if ARMS[name].after else "",
        machine=f"{platform.machine()}, {os.cpu_count()} CPU cores", date=date.today().isoformat(),
    )  # fmt: skip
