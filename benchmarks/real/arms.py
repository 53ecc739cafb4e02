"""Trains the captioners of the packaged models on simulated tags."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from captions import Scene, Scenes
from listen import FEATURES
from safetensors.torch import load_file
from simulate import FixedClips, SimulatedClips, Simulation
from torch import Tensor

from evacap_cli.features import FeatureSettings
from evacap_cli.model import CaptionModel, Tokenizer, build_model, load_preset
from evacap_cli.model.tag_evidence import TagEvidence
from evacap_cli.tasks.training import TrainSettings, fit

CLIPS = 50_000
"""Clips per epoch."""
VALIDATION = 800
VOCABULARY = 3000


@dataclass(frozen=True)
class Arm:
    """training: overrides the preset. after: the arm that initialises it."""

    preset: str
    training: dict[str, Any] = field(default_factory=dict)
    after: str = ""


ARMS = {
    "audio-demo": Arm("audio-tags"),
    "demo": Arm(
        "evidence-tags",
        {"freeze": ["decoder", "encoder.embed_a", "encoder.blocks_a", "encoder.norms.a"]},
        "audio-demo",
    ),
    "entropy-demo": Arm("evacap-tags", {}, "audio-demo"),
    "avcap-demo": Arm("avcap-tags", {}, "audio-demo"),
}  # fmt: skip
"""Arms by the name of the packaged model."""


@dataclass
class Networks:
    """The state dicts of the audio and picture networks, and the table of ties (C_a, C_v)."""

    ear: dict[str, Tensor]
    eye: dict[str, Tensor]
    ties: Tensor

    def into_networks(self, model: CaptionModel) -> CaptionModel:
        model.tag_encoder.network_a.load_state_dict(self.ear)
        if model.has_picture:
            model.tag_encoder.network_v.load_state_dict(self.eye)
        return model

    def into(self, model: CaptionModel) -> CaptionModel:
        """Loads the networks and ties into a model before training."""
        self.into_networks(model)
        evidence = getattr(model.fusion, "evidence", None)
        if isinstance(evidence, TagEvidence):
            evidence.start_from(self.ties)
        return model


def learn_words(scenes: Scenes, place: Path) -> Tokenizer:
    """Trains the tokenizer of the captions and saves it to `place`."""
    if not place.exists():
        rare = [
            text
            for kinds in scenes.composer.phrases.values()
            for texts in kinds.values()
            for text in texts * 8  # repeated, so that rare words also become whole tokens
        ]
        general = [
            text for kinds in scenes.composer.general.values() for texts in kinds.values() for text in texts
        ]
        real = [scene.caption for clip in scenes.clips for scene in clip]
        Tokenizer.train([*real, *rare, *general * 8], VOCABULARY).save(place)
    return Tokenizer.load(place)


def build(name: str, networks: Networks, words: int, seed: int) -> CaptionModel:
    config = load_preset(ARMS[name].preset).model
    torch.manual_seed(1000 + seed)
    model = build_model(replace(config, decoder=replace(config.decoder, vocab_size=words)))
    return networks.into(model)


def train(
    name: str, work: Path, networks: Networks, tokenizer: Tokenizer, scenes: Scenes, validation: list[list[Scene]],
    simulation: Simulation, epochs: float, seed: int = 0,
) -> None:  # fmt: skip
    """Trains an arm, or continues its training."""
    arm, folder = ARMS[name], work / "arms" / name
    if (folder / "done.json").exists():
        return
    model = build(name, networks, len(tokenizer), seed)
    if arm.after:
        start_from(model, load_file(work / "arms" / arm.after / "last" / "model.safetensors"))
    preset = load_preset(arm.preset)
    values = {
        **preset.training,
        "batch_size": 64,
        "lr": 8e-4,
        "epochs": epochs,
        "seed": seed,
        "save_minutes": 2.0,
    }
    if arm.after:
        fuses = any(True for _ in model.fusion.parameters())
        values |= {"lr": 4e-4, "lr_scale": {"fusion": 2.0} if fuses else {}}
    values |= arm.training
    features: FeatureSettings = FEATURES
    data = SimulatedClips(scenes, simulation, features, CLIPS, model.has_picture)
    fixed = FixedClips(validation[:VALIDATION], simulation, features, model.has_picture)
    started = time.monotonic()

    def print_progress(now: Any) -> None:
        if now.step % 100 == 0 or now.note:
            print(f"{name}: step {now.step}/{now.steps}, loss {now.loss:.3f}, {now.clips_per_second:.0f} clips/s, "
                  f"{now.left / 60:.1f} min left {now.note}", flush=True)  # fmt: skip

    settings = TrainSettings.from_dict(values)
    summary = fit(
        model,
        tokenizer,
        data,
        settings,
        folder,
        fixed,
        metadata={"preset": arm.preset},
        progress=print_progress,
    )
    spent = {
        "seconds": round(time.monotonic() - started, 1),
        "steps": summary["steps"],
        "loss": summary["loss"],
    }
    (folder / "done.json").write_text(json.dumps(spent))


def start_from(model: CaptionModel, known: dict[str, Tensor]) -> None:
    """Copies the tensors that a model shares with another arm. Its decoder also initialises an audio-visual decoder."""
    own = model.state_dict()
    if model.picture_decoder is not None:
        known |= {f"picture_{k}": v for k, v in known.items() if k.startswith("decoder.")}
    model.load_state_dict({k: v for k, v in known.items() if k in own}, strict=False)
