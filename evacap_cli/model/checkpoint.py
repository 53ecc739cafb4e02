"""Checkpoints: a folder with `config.yaml`, `model.safetensors`, `tokenizer.json` and `README.md`, the model card."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model.captioner import CaptionModel
from evacap_cli.model.config import ModelConfig
from evacap_cli.model.tokenizer import Tokenizer

CONFIG, WEIGHTS, TOKENIZER, CARD = "config.yaml", "model.safetensors", "tokenizer.json", "README.md"


@dataclass
class Checkpoint:
    """`features` are the feature settings the model was trained with; `metadata` is free (training, metrics)."""

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
    """The folder of a checkpoint: a path, or the name of a packaged one. `UsageError` when there is none."""
    path = Path(model)
    if path.is_dir():
        return path
    if str(model) in packaged_models():
        return Path(str(resources.files("evacap_cli") / "assets" / "models" / str(model)))
    known = ", ".join(packaged_models()) or "none"
    raise UsageError(
        f"--model {model}: no such folder or packaged model", f"give a checkpoint folder or one of: {known}"
    )


def load_checkpoint(model: str | Path, device: str | torch.device = "cpu",
                    dtype: torch.dtype = torch.float32) -> Checkpoint:  # fmt: skip
    """Loads a checkpoint for captioning: weights as `dtype` on `device`, in evaluation mode."""
    path = resolve_model(model)
    if missing := [name for name in (CONFIG, WEIGHTS, TOKENIZER) if not (path / name).is_file()]:
        raise EvacapError(
            f"{path}: not a checkpoint, it lacks {', '.join(missing)}", "give a folder that train wrote"
        )
    try:
        config = yaml.safe_load((path / CONFIG).read_text("utf-8"))
        state = load_file(path / WEIGHTS)
    except (yaml.YAMLError, UnicodeDecodeError, SafetensorError, OSError) as error:
        raise EvacapError(f"{path}: damaged checkpoint ({error})", "copy or make it again") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise EvacapError(f"{path / CONFIG}: has no section `model`", "copy or make it again")
    tokenizer = Tokenizer.load(path / TOKENIZER)
    with torch.device("meta"):
        built = CaptionModel(
            ModelConfig.from_dict(config["model"]), tokenizer.bos, tokenizer.eos, tokenizer.pad
        )
    try:
        built.load_state_dict({k: v.to(dtype) for k, v in state.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise EvacapError(
            f"{path / WEIGHTS}: does not fit {CONFIG} ({error})", "the two belong to different models"
        ) from error
    name = str(model) if str(model) in packaged_models() else path.name
    return Checkpoint(name, path, built.to(device).eval(), tokenizer, config.get("features") or {},
                      config.get("metadata") or {})  # fmt: skip


def save_checkpoint(path: Path, model: CaptionModel, tokenizer: Tokenizer, features: dict[str, Any],
                    metadata: dict[str, Any] | None = None, dtype: torch.dtype | None = None,
                    card: str | None = None) -> None:  # fmt: skip
    """Writes a checkpoint folder beside its place and renames it in; an older one there is replaced."""
    aside = path.with_name(path.name + ".tmp")
    aside.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().to(dtype or v.dtype).contiguous() for k, v in model.state_dict().items()}
    save_file(state, aside / WEIGHTS)
    (aside / WEIGHTS).chmod(0o644)  # the library writes for its owner alone
    tokenizer.save(aside / TOKENIZER)
    config = {"model": model.config.to_dict(), "features": features, "metadata": metadata or {}}
    (aside / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "utf-8")
    (aside / CARD).write_text(card or f"# {path.name}\n\nA captioner trained with evacap.\n", "utf-8")
    replace_folder(aside, path)


def replace_folder(new: Path, place: Path) -> None:
    """Renames `new` to `place`, keeping what stood there until the new one is in."""
    old = place.with_name(place.name + ".old")
    _remove(old)
    if place.exists():
        place.rename(old)
    new.rename(place)
    _remove(old)


def _remove(folder: Path) -> None:
    if folder.exists():
        for item in folder.iterdir():
            item.unlink()
        folder.rmdir()
