"""Reads the settings of a run from a preset or YAML file and overrides. Reports all errors at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from evacap_cli.errors import UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.model import ModelConfig, preset_names
from evacap_cli.model.presets import SECTIONS, merge, read_preset, resolve
from evacap_cli.tasks.training.settings import TrainSettings

Section = TypeVar("Section")


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run. `name`: the preset or file they come from."""

    name: str
    model: ModelConfig
    features: FeatureSettings
    training: TrainSettings

    def to_dict(self) -> dict[str, Any]:
        """Returns the sections of a YAML file with the same settings."""
        return {
            "model": self.model.to_dict(),
            "features": self.features.to_dict(),
            "training": self.training.to_dict(),
        }


def read_config(config: str, overrides: Sequence[str] = (), known: dict[str, Any] | None = None) -> RunConfig:
    """Reads a preset or a YAML file (which may extend a preset with `base`) and applies `section.key=value` overrides.

    `known`: values that replace those of the file, but not the overrides. Raises UsageError that lists all problems.
    """
    values, problems = merge(_read(config), known or {}), []
    for override in overrides:
        try:
            values = merge(values, _nested(override))
        except UsageError as error:
            problems.append(error.message)
    problems += [
        f"{name}: no such section; use {', '.join(SECTIONS)}" for name in values if name not in SECTIONS
    ]

    def section(read: Callable[[Any], Section], name: str) -> Section:
        given = values.get(name) or {}
        try:
            if not isinstance(given, dict):
                raise UsageError(f"{name}: {given!r} is not a section of settings")
            return read(given)
        except UsageError as error:
            problems.append(error.message)
            return read({})

    model = section(ModelConfig.from_dict, "model")
    features = section(FeatureSettings.from_dict, "features")
    training = section(TrainSettings.from_dict, "training")
    encoder = model.encoder
    if not problems:
        problems += [
            f"features.{name} is {getattr(features, name)}, model.encoder.{name} is {getattr(encoder, name)}: "
            "they must be equal"
            for name in ("audio_frames", "mel_bins", "image_size", "frames")
            if getattr(features, name) != getattr(encoder, name)
            and (name in ("audio_frames", "mel_bins") or model.fusion != "audio-only")
        ]
    if problems:
        raise UsageError(f"{config}: invalid settings\n" + "\n".join(problems))
    return RunConfig(config, model, features, training)


def _read(config: str) -> dict[str, Any]:
    if config in preset_names():
        return read_preset(config)
    if not Path(config).is_file():
        raise UsageError(
            f"{config}: neither a preset nor a file", f"the presets are {', '.join(preset_names())}"
        )
    try:
        values = yaml.safe_load(Path(config).read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{config}: not YAML ({error})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{config}: has no sections", f"the sections are base, {', '.join(SECTIONS)}")
    return resolve(values)


def _nested(override: str) -> dict[str, Any]:
    name, equals, text = override.partition("=")
    if not equals or "." not in name:
        raise UsageError(f"{override!r}: not an override; write section.key=value, such as training.lr=3e-4")
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"{override!r}: the value after = is not YAML") from None
    if isinstance(value, str):  # YAML 1.1 reads 3e-4 as text
        with suppress(ValueError):
            value = float(value)
    for part in reversed(name.split(".")):
        value = {part: value}
    return value
