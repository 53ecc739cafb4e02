"""Which parameters are trained, and how fast each part of the model is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evacap_cli.errors import UsageError
from evacap_cli.model import CaptionModel


def freeze(model: CaptionModel, parts: Iterable[str]) -> None:
    """Excludes parts from training, by the beginning of parameter names; `UsageError` for a part that is none.

    The tagging head never has a part in captioning.
    """
    _known(model, parts, "freeze")
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.tag_head") or any(_within(name, part) for part in parts):
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise UsageError("training.freeze: leaves nothing to train", "freeze fewer parts")


def parameter_groups(model: CaptionModel, lr_scale: Mapping[str, float]) -> list[dict[str, Any]]:
    """Groups for an optimiser: `params`, and `scale`, the factor on the learning rate."""
    _known(model, lr_scale, "lr_scale")
    groups: dict[float, list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = max((p for p in lr_scale if _within(name, p)), key=len, default=None)
            groups.setdefault(1.0 if part is None else lr_scale[part], []).append(parameter)
    return [{"params": found, "scale": scale} for scale, found in sorted(groups.items())]


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def _known(model: CaptionModel, parts: Iterable[str], setting: str) -> None:
    names = [name for name, _ in model.named_parameters()]
    if wrong := [part for part in parts if not any(_within(name, part) for name in names)]:
        ends = sorted({".".join(name.split(".")[:2]) for name in names})
        raise UsageError(
            f"training.{setting}: no parameter is called {', '.join(wrong)}",
            f"parts are encoder, fusion, decoder, and for instance {', '.join(ends)}",
        )
