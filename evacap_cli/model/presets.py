"""Named settings: YAML files in `evacap_cli/presets`. A preset can extend another one with `base`."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from evacap_cli.errors import UsageError
from evacap_cli.model.config import ModelConfig

SECTIONS = ("about", "model", "features", "training")


@dataclass(frozen=True)
class Preset:
    """`features` and `training` are unchecked settings: `features/` and `tasks/training` check them."""

    name: str
    model: ModelConfig
    features: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    about: str = ""


def preset_names() -> list[str]:
    folder = resources.files("evacap_cli.presets")
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load_preset(name: str) -> Preset:
    """Reads a preset by its name. Raises UsageError with the known names if it does not exist."""
    return preset_from_dict(name, read_preset(name))


def preset_from_dict(name: str, values: dict[str, Any]) -> Preset:
    unknown = sorted(set(values) - set(SECTIONS))
    if unknown:
        raise UsageError(
            f"{name}: no such section: {', '.join(unknown)}", f"the sections are {', '.join(SECTIONS)}"
        )
    return Preset(
        name,
        ModelConfig.from_dict(values.get("model") or {}),
        values.get("features") or {},
        values.get("training") or {},
        values.get("about") or "",
    )


def read_preset(name: str) -> dict[str, Any]:
    """The values of a preset, merged with those of the presets that it extends."""
    if name not in preset_names():
        raise UsageError(f"no preset is called {name!r}", f"the presets are {', '.join(preset_names())}")
    return resolve(
        yaml.safe_load((resources.files("evacap_cli.presets") / f"{name}.yaml").read_text("utf-8")) or {}
    )


def resolve(values: dict[str, Any]) -> dict[str, Any]:
    """Merges `values` into the preset that its `base` names."""
    base = values.pop("base", None)
    return merge(read_preset(base), values) if base else values


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merges `above` into `below`, section by section."""
    result = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if nested else value
    return result
