"""Checkpoints: a folder with `config.yaml`, `model.safetensors`, `tokenizer.json` and `README.md` (the model card), or
one safetensors file with configuration and tokenizer in its metadata."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from evacap_cli.atomic import folder_written_whole, old_folder, written_whole
from evacap_cli.cache import fetched_models
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model.captioner import CaptionModel
from evacap_cli.model.causal_lm import CausalLMDecoder
from evacap_cli.model.config import ModelConfig
from evacap_cli.model.hub import HUB, HubModel, download_checkpoint
from evacap_cli.model.lexicon import Lexicon
from evacap_cli.model.meta import without_weights
from evacap_cli.model.tag_encoder import TagEncoder
from evacap_cli.model.tokenizer import Tokenizer
from evacap_cli.model.towers import shared_weights

CONFIG, WEIGHTS, TOKENIZER, CARD = "config.yaml", "model.safetensors", "tokenizer.json", "README.md"
SUFFIX = ".safetensors"


@dataclass
class Checkpoint:
    """`features`: the feature settings that the model was trained with. `metadata`: any values (training, metrics)."""

    name: str
    path: Path
    model: CaptionModel
    tokenizer: Tokenizer
    features: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


def packaged_models() -> list[str]:
    """Names of the checkpoints inside the package."""
    folder = resources.files("evacap_cli") / "assets" / "models"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / CONFIG).is_file())


def resolve_model(model: str | Path) -> Path:
    """The folder or file of a checkpoint. model: a path, the name of a packaged or fetched model, or
    `hf:ORG/NAME[@REVISION]`, which is downloaded. Raises UsageError if it does not exist.

    A folder with the name of a packaged or fetched model takes precedence only if it is a checkpoint.
    """
    if str(model).startswith(HUB):
        return download_checkpoint(str(model), (CONFIG, TOKENIZER), WEIGHTS)
    path, packaged, fetched = Path(model), str(model) in packaged_models(), _fetched(str(model))
    hides = not (packaged or fetched) or (path / CONFIG).is_file()
    if (path.is_dir() and hides) or (path.is_file() and path.suffix == SUFFIX):
        return path
    if (old := old_folder(path)).is_dir():  # a save was killed between its two renames
        return old
    if packaged:
        return Path(str(resources.files("evacap_cli") / "assets" / "models" / str(model)))
    if fetched:
        return fetched
    known = ", ".join(packaged_models()) or "none"
    raise UsageError(
        f"--model {model}: no such checkpoint or packaged model",
        f"give a checkpoint's folder, an exported {SUFFIX}, {HUB}ORG/NAME, a model of `evacap weights fetch --list`, "
        f"or one of: {known}",
    )


def _fetched(name: str) -> Path | None:
    """The checkpoint of this name that `evacap weights fetch` made, if there is one."""
    path = fetched_models() / name
    if path.parent != fetched_models():
        return None
    return next((p for p in (path, old_folder(path)) if (p / CONFIG).is_file()), None)


def load_checkpoint(model: str | Path, device: str | torch.device = "cpu",
                    dtype: torch.dtype = torch.float32) -> Checkpoint:  # fmt: skip
    """Loads a checkpoint for captioning. The weights are converted to `dtype` and moved to `device`; the model is in
    evaluation mode."""
    path = resolve_model(model)
    config, tokenizer = _read_file(path) if path.is_file() else _read_folder(path)
    weights = path if path.is_file() else path / WEIGHTS
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise EvacapError(f"{weights}: damaged checkpoint ({error})", "copy or make it again") from error
    with without_weights():
        built = CaptionModel(
            ModelConfig.from_dict(config["model"]), tokenizer.bos, tokenizer.eos, tokenizer.pad
        )
    if isinstance(built.decoder, CausalLMDecoder):
        built.decoder.load_language_model()
        state = {k: v for k, v in built.state_dict().items() if built.decoder.is_foreign(k)} | state
    if config.get("shared"):
        state = shared_weights(name for name in built.state_dict() if name not in state) | state
    try:
        built.load_state_dict({k: v.to(dtype) for k, v in state.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise EvacapError(
            f"{weights}: does not fit its configuration ({error})", "the two belong to different models"
        ) from error
    if built.has_tag_towers:
        built.lexicon = Lexicon(tokenizer, built.config.lexicon)
        cast(TagEncoder, built.encoder).use_channels_last()
    return Checkpoint(_name(str(model), path), path, built.to(device).eval(), tokenizer, config.get("features") or {},
                      config.get("metadata") or {})  # fmt: skip


def _name(model: str, path: Path) -> str:
    if model.startswith(HUB):
        return HubModel.parse(model).name
    return model if model in packaged_models() else path.stem if path.is_file() else path.name


def read_features(model: str | Path) -> dict[str, Any]:
    """A checkpoint's feature settings, without its weights."""
    path = resolve_model(model)
    config, _ = _read_file(path) if path.is_file() else _read_folder(path)
    return config.get("features") or {}


def _read_folder(path: Path) -> tuple[dict[str, Any], Tokenizer]:
    if missing := [name for name in (CONFIG, WEIGHTS, TOKENIZER) if not (path / name).is_file()]:
        raise EvacapError(
            f"{path}: not a checkpoint: {', '.join(missing)} missing", "give a folder that train wrote"
        )
    try:
        config = yaml.safe_load((path / CONFIG).read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise EvacapError(f"{path}: damaged checkpoint ({error})", "copy or make it again") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise EvacapError(f"{path / CONFIG}: has no section `model`", "copy or make it again")
    return config, Tokenizer.load(path / TOKENIZER)


def _read_file(path: Path) -> tuple[dict[str, Any], Tokenizer]:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise EvacapError(f"{path}: damaged checkpoint ({error})", "copy or make it again") from error
    if not {"config", "tokenizer"} <= about.keys():
        raise EvacapError(
            f"{path}: not a checkpoint: its metadata contain no model and no tokenizer",
            "give what `weights export` wrote",
        )
    try:
        config = json.loads(about["config"])
        ModelConfig.from_dict(config["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise EvacapError(f"{path}: damaged checkpoint ({error})", "copy or make it again") from error
    return config, Tokenizer.from_text(about["tokenizer"], path)


def export_checkpoint(checkpoint: Checkpoint, path: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a checkpoint as one safetensors file, which `load_checkpoint` reads. Writes it completely or not at
    all."""
    about = {
        "config": json.dumps(
            {
                "model": checkpoint.model.config.to_dict(),
                "features": checkpoint.features,
                "metadata": checkpoint.metadata,
            },
            default=str,
        ),
        "tokenizer": checkpoint.tokenizer.to_text(),
    }
    with written_whole(path) as aside:
        save_file(_state(checkpoint.model, dtype), aside, about)
        aside.chmod(0o644)  # the library makes it readable only by its owner


def save_checkpoint(path: Path, model: CaptionModel, tokenizer: Tokenizer, features: dict[str, Any],
                    metadata: dict[str, Any] | None = None, dtype: torch.dtype | None = None,
                    card: str | None = None, shared: Collection[str] = ()) -> None:  # fmt: skip
    """Writes a checkpoint folder under a temporary name and renames it. Replaces an existing folder.

    shared: names of tensors that the package contains (see `towers`), which are omitted.
    """
    config: dict[str, Any] = {
        "model": model.config.to_dict(),
        "features": features,
        "metadata": metadata or {},
    }
    if shared:
        config["shared"] = True
    with folder_written_whole(path) as aside:
        state = {name: value for name, value in _state(model, dtype).items() if name not in shared}
        save_file(state, aside / WEIGHTS)
        (aside / WEIGHTS).chmod(0o644)  # the library makes it readable only by its owner
        tokenizer.save(aside / TOKENIZER)
        (aside / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "utf-8")
        (aside / CARD).write_text(card or f"# {path.name}\n\nA captioner trained with evacap.\n", "utf-8")


def _state(model: CaptionModel, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The weights of a model, without those of a language model, which the checkpoint names."""
    foreign = model.decoder.is_foreign if isinstance(model.decoder, CausalLMDecoder) else lambda name: False
    return {
        name: value.detach().cpu().to(dtype or value.dtype).contiguous()
        for name, value in model.state_dict().items()
        if not foreign(name)
    }
