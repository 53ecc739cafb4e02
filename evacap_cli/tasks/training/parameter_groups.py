"""Selects the trained parameters and their learning rate factors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evacap_cli.errors import UsageError
from evacap_cli.model import CaptionModel


def freeze(model: CaptionModel, parts: Iterable[str]) -> None:
    """Excludes parts from training, by prefix of the parameter names. Raises UsageError for an unknown part.

    The tagging head is always excluded, because captioning does not use it.
    """
    _check_parts(model, parts, "freeze")
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.tag_head") or any(_within(name, part) for part in parts):
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise UsageError("training.freeze: leaves nothing to train", "freeze fewer parts")


def parameter_groups(model: CaptionModel, lr_scale: Mapping[str, float]) -> list[dict[str, Any]]:
    """Returns groups for an optimizer: `params`, and `scale`, their learning rate factor."""
    _check_parts(model, lr_scale, "lr_scale")
    groups: dict[float, list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = max((p for p in lr_scale if _within(name, p)), key=len, default=None)
            groups.setdefault(1.0 if part is None else lr_scale[part], []).append(parameter)
    return [{"params": found, "scale": scale} for scale, found in sorted(groups.items())]


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def _check_parts(model: CaptionModel, parts: Iterable[str], setting: str) -> None:
    names = [name for name, _ in model.named_parameters()]
    if wrong := [part for part in parts if not any(_within(name, part) for name in names)]:
        ends = sorted({".".join(name.split(".")[:2]) for name in names})
        raise UsageError(
            f"training.{setting}: no parameter is named {', '.join(wrong)}",
            f"use encoder, fusion, decoder, or parts of them, such as {', '.join(ends)}",
        )
