"""Matches a file's tensors to a model's parameters, and reports on each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from evacap_cli.errors import EvacapError
from evacap_cli.model import CaptionModel, EncoderConfig
from evacap_cli.model.published import NAMES, OUTPUT, THIRDS, WORDS, target_of
from evacap_cli.tasks.importing.resizing import resized
from evacap_cli.tasks.importing.sizes import depth_settings, size_settings

ENCODER, DECODER = "encoder.", "decoder."
MAX_NAMED = 10  # tensors listed in a message
TITLES = {**NAMES, "yamnet": "YAMNet", "efficientnet-lite0": "EfficientNet-lite0"}
"""The title of each kind of file."""
_LEFT_OUT = (
    (r"av_encoder\.(decoder_|mask_token)", "reconstructs masked patches in CAV-MAE's pre-training"),
    (r"image_encoder\.", "GIT's image encoder, which the towers replace"),
    (
        r"textual\.visual_projection\.",
        "belongs to GIT's image encoder; the towers' projection is new, as in AVCap",
    ),
)
_PICTURE = re.compile(r"encoder\.(patch_embed_v|modality_v|pos_embed_v|blocks_v)\b")
_NORM = re.compile(r"encoder\.(blocks_u\.\d+\.norm[12]|norms)\.(a|v|joint)\.")
_TAGS = re.compile(r"encoder\.tag_head\.")


@dataclass(frozen=True)
class TensorReport:
    """The report on one tensor. `what`: loaded, renamed, resized, left out or fresh (ours, missing in the file)."""

    published: str
    ours: str
    what: str
    note: str = ""


@dataclass
class ImportReport:
    """The report on an import, tensor by tensor. parameters: number of parameters loaded from the file."""

    path: Path
    kind: str
    parameters: int = 0
    rows: list[TensorReport] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(row.what for row in self.rows)
        return {
            what: found[what] for what in ("loaded", "renamed", "resized", "left out", "fresh") if found[what]
        }

    def groups(self) -> list[tuple[str, int, str, str]]:
        """Returns (what, count, name of the first tensor, reason) of each group of similar tensors."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for row in self.rows:
            part = "" if row.what == "left out" else row.ours.split(".")[0]
            groups.setdefault((row.what, part, row.note), []).append(row.published or row.ours)
        order = list(self.counts)
        return [
            (what, len(names), names[0] + (", ..." if len(names) > 1 else ""), note or part)
            for (what, part, note), names in sorted(groups.items(), key=lambda item: order.index(item[0][0]))
        ]

    def summary(self) -> str:
        parts = ", ".join(f"{count} {what}" for what, count in self.counts.items())
        return f"{TITLES[self.kind]}, {self.parameters / 1e6:.2f} M parameters taken: {parts}"


def match(
    path: Path, kind: str, state: dict[str, Tensor], model: CaptionModel, part: str, allow: Sequence[str]
) -> tuple[dict[str, Tensor], ImportReport]:
    """Returns our parameters below `part` from the file, and a report on every tensor. Raises EvacapError."""
    own = {name: value for name, value in model.state_dict().items() if name.startswith(part)}
    taken: dict[str, Tensor] = {}
    thirds: dict[str, dict[int, Tensor]] = {}
    imported = ImportReport(path, kind)
    unexpected, broken, misfits, settings = [], [], [], set()
    misfitting: set[str] = set()
    encoder = model.config.encoder

    def note(published: str, ours: str, what: str, why: str = "") -> None:
        imported.rows.append(TensorReport(published, ours, what, why))

    def allowed(*names: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in allow)

    for name, value in state.items():
        full = f"av_encoder.{name}" if kind == "cav-mae" else name
        target = target_of(full)
        ours = target.name if target else ""
        why = _why_left_out(full, ours, state, model, own)
        if why or (part and ours and not ours.startswith(part) and ours.startswith((ENCODER, DECODER))):
            note(name, "", "left out", why or "another part of the model")
            continue
        wanted = own.get(ours)
        if target is None or wanted is None:
            if allowed(name, ours):
                note(name, "", "left out", "allowed")
            else:
                unexpected.append(name + (f" (should be tied to {WORDS})" if name == OUTPUT else ""))
            continue
        shape = wanted.shape if target.third is None else (len(wanted) // len(THIRDS), *wanted.shape[1:])
        fitted: Tensor | None = value if value.shape == shape else None
        if fitted is None and isinstance(encoder, EncoderConfig):
            fitted = resized(ours, value, wanted, encoder)
        if fitted is None:
            if allowed(name, ours):
                note(name, "", "left out", "allowed")
            else:
                misfits.append(f"{name} {list(value.shape)}, ours {list(shape)}")
                settings.update(size_settings(ours, value.shape, shape))
                misfitting.add(ours)
            continue
        if not bool(torch.isfinite(fitted).all()):
            broken.append(name)
        fitted = fitted.to(wanted.dtype)
        if target.third is None:
            taken[ours] = fitted
        else:
            thirds.setdefault(ours, {})[target.third] = fitted
        if fitted.shape != value.shape:
            note(name, ours, "resized", f"{list(value.shape)} -> {list(fitted.shape)}")
        else:
            note(name, ours, "loaded" if name in (ours, ours.removeprefix(part)) else "renamed")
    for ours, parts in thirds.items():
        if len(parts) == len(THIRDS):
            taken[ours] = torch.cat([parts[third] for third in range(len(THIRDS))])
    missing = []
    for ours in (name for name in own if name not in taken and name not in misfitting):
        if allowed(ours) or _may_be_fresh(ours, kind):
            note("", ours, "fresh", "not in the file")
        else:
            missing.append(ours)
    if unexpected or misfits or broken or missing:
        targets = [target_of(f"av_encoder.{name}" if kind == "cav-mae" else name) for name in state]
        settings.update(depth_settings({target.name for target in targets if target}, set(own)))
    cure = f"set {', '.join(sorted(settings))}" if settings else "choose the preset that matches the file"
    if error := misfit_error(path, unexpected, misfits, broken, missing, cure):
        raise error
    imported.parameters = sum(value.numel() for value in taken.values())
    return taken, imported


def misfit_error(
    path: Path,
    unexpected: Sequence[str],
    misfits: Sequence[str],
    broken: Sequence[str],
    missing: Sequence[str],
    cure: str,
) -> EvacapError | None:
    """Returns the error that lists all tensors that do not fit; None if all fit."""
    problems = [
        f"{len(names)} {what}: {list_names(sorted(names))}"
        for names, what in (
            (unexpected, "tensors that the model does not have"),
            (misfits, "tensors with another shape"),
            (broken, "tensors with NaN or infinite values"),
            (missing, "parameters of the model that the file lacks"),
        )
        if names
    ]
    if not problems:
        return None
    return EvacapError(
        f"{path}: does not fit the model\n" + "\n".join(problems),
        f"{cure}, or allow unused or missing tensors with --allow PATTERN",
    )


def _why_left_out(
    name: str, ours: str, state: dict[str, Tensor], model: CaptionModel, own: dict[str, Tensor]
) -> str:
    """Returns why a published tensor is not needed, or "" if it is."""
    if not ours:
        return "the published model does not use it"
    if name == OUTPUT:
        words = state.get(WORDS)
        tied = words is not None and torch.equal(state[name], words)
        return "a copy of the word embedding" if tied else ""
    for pattern, reason in _LEFT_OUT:
        if re.match(pattern, name):
            return reason
    if ours in own:
        return ""
    fusion = model.config.fusion
    if _PICTURE.match(ours) and not model.has_picture:
        return f"part of the picture tower, which {fusion} does not use"
    if _NORM.match(ours):
        return f"a norm of a path that {fusion} does not use"
    return "tags are not requested" if _TAGS.match(ours) and not model.config.encoder.tag_classes else ""


def _may_be_fresh(ours: str, kind: str) -> bool:
    """Whether published files of a kind never have a parameter."""
    if kind == "cav-mae":
        return bool(_TAGS.match(ours))  # CAV-MAE is pre-trained without a tagging head
    if kind == "ours":
        return bool(_TAGS.match(ours)) or ours.startswith("decoder.project_memory.")
    return kind == "git" and ours.startswith("decoder.project_memory.")


def list_names(names: Sequence[str]) -> str:
    rest = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
