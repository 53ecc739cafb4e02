"""The arms: models that are trained on the frozen towers and differ only in the studied property.

Every arm starts from the audio-only captioner of its seed (`words`), as the paper's models start from GIT, and trains
for the same number of steps. The towers are frozen. Only `concat` also trains the encoder's shared block, which is its
fusion.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import variants
from safetensors.torch import load_file
from tokens import TowerBatches

from evacap_cli.features import FeatureSettings
from evacap_cli.model import CaptionModel, Tokenizer, build_model, load_preset
from evacap_cli.model.decoder import TextDecoder
from evacap_cli.model.packing import can_pack
from evacap_cli.tasks.training import TrainSettings, fit

WORDS_EPOCHS, EPOCHS = 5.0, 1.5
SEEDS = (0, 1, 2)
PRECISION = "bf16" if can_pack(torch.bfloat16) else "fp32"
"""The precision of training: reduced only if the processor supports it."""


@dataclass(frozen=True)
class Arm:
    """training: overrides the preset. after: the arm that initialises it, otherwise the seed's `words`; a separate
    audio-visual decoder always starts from `words`. change: modifies the fusion before training. decoders: number of
    decoders of `evidence`."""

    preset: str
    training: dict[str, Any] = field(default_factory=dict)
    after: str = "words"
    change: Callable[[CaptionModel], None] | None = None
    decoders: int = 2


ARMS = {
    "words": Arm("audio-tiny", {"epochs": WORDS_EPOCHS, "lr": 1e-3}, after=""),
    "audio-only": Arm("audio-tiny"),
    "evidence": Arm("evidence-tiny", {"freeze": ["decoder"]}, after="audio-only"),
    "evidence-frozen": Arm("evidence-tiny", {"freeze": ["decoder"]}, after="audio-only", decoders=1),
    "evidence-one-decoder": Arm("evidence-tiny", {"modality_dropout": 0.35}, decoders=1),
    "cross-attention": Arm("evacap-no-gate-tiny"),
    "concat": Arm("avcap-tiny"),
    "entropy-sms-0.05": Arm("evacap-tiny"),
    "entropy-sms-0": Arm("evacap-no-sms-tiny"),
    "gate-sms-0.05": Arm("evacap-no-entropy-tiny"),
    "gate-sms-0": Arm("evacap-no-sms-no-entropy-tiny"),
    "entropy-sms-0.5": Arm("evacap-tiny", {"sms": 0.5}),
    "entropy-sms-1": Arm("evacap-tiny", {"sms": 1.0}),
    "entropy-steep": Arm("evacap-tiny", change=variants.start(-8.0, 4.0)),
    "entropy-reversed": Arm("evacap-tiny", change=variants.start(8.0, -4.0)),
    "entropy-per-head": Arm("evacap-tiny", change=variants.per_head),
    "entropy-sharp": Arm("evacap-tiny", change=variants.sharp),
}
OURS = ("evidence", "evidence-frozen", "evidence-one-decoder")
EXTRA = {name for name in ARMS if name.startswith("entropy-") and "sms" not in name}
"""Variants of the entropy gate that are not in the paper."""


def folder_of(work: Path, name: str, seed: int) -> Path:
    return work / "arms" / f"{name}-{seed}"


def build(name: str, towers: dict[str, torch.Tensor], words: int, seed: int) -> CaptionModel:
    """The model of an arm before training, with the towers' weights. words: size of the vocabulary."""
    arm = ARMS[name]
    config = load_preset(arm.preset).model
    tags = towers["tag_head.1.weight"].shape[0]
    encoder = replace(config.encoder, tag_classes=tags if config.fusion == "evidence" else 0)
    evidence = replace(config.evidence, decoders=arm.decoders)
    decoder = replace(config.decoder, vocab_size=words)
    torch.manual_seed(1000 + seed)
    model = build_model(replace(config, encoder=encoder, decoder=decoder, evidence=evidence))
    known = dict(towers)
    if model.unified:  # initialise the joint norms with those of the audio
        known |= {k.replace(".a.", ".joint."): v for k, v in known.items() if ".a." in k}
    model.encoder.load_state_dict({k: v for k, v in known.items() if k in model.encoder.state_dict()})
    if arm.change:
        arm.change(model)
    return model


def trained(name: str, work: Path, towers: dict[str, torch.Tensor], words: int, seed: int) -> CaptionModel:
    """The model of an arm after its last step, calibrated if it is an `evidence` model."""
    model = build(name, towers, words, seed)
    folder = folder_of(work, name, seed)
    model.load_state_dict(load_file(folder / "last" / "model.safetensors"))
    if model.has_evidence and (folder / "calibration.json").exists():
        found = json.loads((folder / "calibration.json").read_text())
        evidence = model.fusion.evidence
        evidence.weights.copy_(-torch.tensor(found["weights"]))  # the file has the weights of a mismatch
        evidence.bias.copy_(-torch.tensor(found["bias"]))
    return model.eval()


def train(name: str, seed: int, work: Path, towers: dict[str, torch.Tensor], tokenizer: Tokenizer,
          features: FeatureSettings, captions: Callable[[int], list[str]], device: str,
          scale: float) -> None:  # fmt: skip
    """Trains an arm, or continues its training. scale: factor of the epochs, for trial runs."""
    arm, folder = ARMS[name], folder_of(work, name, seed)
    if (folder / "done.json").exists():
        return
    model = build(name, towers, len(tokenizer), seed)
    if arm.after:
        load_words(model.decoder, folder_of(work, arm.after, seed))
        if model.picture_decoder is not None:
            load_words(model.picture_decoder, folder_of(work, "words", seed))
    fusion = any(True for _ in model.fusion.parameters())
    values = {
        **load_preset(arm.preset).training, "precision": PRECISION, "noise": False, "freq_mask": 0, "time_mask": 0,
        "epochs": EPOCHS, "lr": 5e-4, "lr_scale": {"fusion": 2.0} if fusion else {}, "seed": seed, "save_minutes": 1.0,
        **arm.training,
    }  # fmt: skip
    values["epochs"] *= scale
    values["freeze"] = [*_frozen(model), *arm.training.get("freeze", ())]
    data = TowerBatches(work / "tokens-train", features, captions, picture=model.has_picture)
    started = time.monotonic()
    settings = TrainSettings.from_dict(values)
    summary = fit(model, tokenizer, data, settings, folder, device=device, metadata={"preset": arm.preset})
    spent = {
        "seconds": round(time.monotonic() - started, 1),
        "steps": summary["steps"],
        "loss": summary["loss"],
    }
    (folder / "done.json").write_text(json.dumps(spent))


def load_words(decoder: TextDecoder, folder: Path) -> None:
    """Initialises a decoder with that of another arm."""
    known = load_file(folder / "last" / "model.safetensors")
    decoder.load_state_dict(
        {k.removeprefix("decoder."): v for k, v in known.items() if k.startswith("decoder.")}
    )


def _frozen(model: CaptionModel) -> list[str]:
    """The parts of the encoder that are not trained."""
    parts = {name.split(".")[0] for name, _ in model.encoder.named_parameters()}
    kept = {"blocks_u", "norms"} if model.unified else set()
    return sorted(f"encoder.{part}" for part in parts - kept)
