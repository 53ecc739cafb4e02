"""Named settings: a YAML file each in `evacap_cli/presets`, which may build on another by `base`."""

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
    """`features` and `training` are plain settings, for the parts of the toolkit that own them."""

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
    """A preset by name; `UsageError` with the known names otherwise."""
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
    """The merged values of a preset and everything it builds on."""
    if name not in preset_names():
        raise UsageError(f"no preset is called {name!r}", f"the presets are {', '.join(preset_names())}")
    return resolve(
        yaml.safe_load((resources.files("evacap_cli.presets") / f"{name}.yaml").read_text("utf-8")) or {}
    )


def resolve(values: dict[str, Any]) -> dict[str, Any]:
    """Lays `values` over the preset that its `base` names."""
    base = values.pop("base", None)
    return merge(read_preset(base), values) if base else values


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`, section by section."""
    result = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if nested else value
    return result
