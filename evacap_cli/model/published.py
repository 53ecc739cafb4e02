"""Maps published weights (AVCap's, which have the names of CAV-MAE and GIT) to our parameters.

AVCap has six norms in every block, and separate query, key and value weights. Our blocks have only the norms that they
use, and one weight for all three. The other weights only change their names.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from evacap_cli.errors import EvacapError, UsageError

NAMES = {"cav-mae": "CAV-MAE", "git": "GIT", "avcap": "AVCap", "ours": "evacap"}
WORDS, OUTPUT = "textual.embedding.words.weight", "textual.output.weight"
THIRDS = ("query", "key", "value")
_LAYER = r"^textual\.transformer\.encoder\.layer\.(\d+)\."
_NAMES = (
    (r"^av_encoder\.(patch_embed_[av])\.proj\.", r"encoder.\1."),
    (r"^av_encoder\.(blocks_[av]\.\d+\.norm[12])\.", r"encoder.\1.own."),
    (r"^av_encoder\.(blocks_u\.\d+\.norm[12])_([av])\.", r"encoder.\1.\2."),
    (r"^av_encoder\.(blocks_u\.\d+\.norm[12])\.", r"encoder.\1.joint."),
    (r"^av_encoder\.norm_([av])\.", r"encoder.norms.\1."),
    (r"^av_encoder\.norm\.", r"encoder.norms.joint."),
    (r"^av_encoder\.mlp_head\.", r"encoder.tag_head."),
    (r"^av_encoder\.", r"encoder."),
    (r"^textual\.(?:av|visual)_projection\.", r"decoder.project_memory."),
    (r"^textual\.embedding\.words\.", r"decoder.words."),
    (r"^textual\.embedding\.positions\.", r"decoder.positions."),
    (r"^textual\.embedding\.layer_norm\.", r"decoder.embedding_norm."),
    (r"^textual\.output\.bias$", r"decoder.output_bias"),
    (_LAYER + r"attention\.output\.dense\.", r"decoder.layers.\1.out."),
    (_LAYER + r"attention\.output\.LayerNorm\.", r"decoder.layers.\1.attention_norm."),
    (_LAYER + r"intermediate\.dense\.", r"decoder.layers.\1.widen."),
    (_LAYER + r"output\.dense\.", r"decoder.layers.\1.narrow."),
    (_LAYER + r"output\.LayerNorm\.", r"decoder.layers.\1.output_norm."),
)
_ATTENTION = re.compile(_LAYER + r"attention\.self\.(query|key|value)\.(weight|bias)$")
_UNUSED_NORM = re.compile(r"^av_encoder\.blocks_[av]\.\d+\.norm[12]_[av]\.")


@dataclass(frozen=True)
class Target:
    """The target of a published tensor: one of our parameters, or a third of one (0 query, 1 key, 2 value)."""

    name: str
    third: int | None = None


def target_of(name: str) -> Target | None:
    """The target of a published name (a leading `module.` is ignored); None for tensors that the published model never
    uses. Other names are not changed."""
    name = name.removeprefix("module.")
    if _UNUSED_NORM.match(name):
        return None
    if attention := _ATTENTION.match(name):
        layer, which, kind = attention.groups()
        return Target(f"decoder.layers.{layer}.qkv.{kind}", THIRDS.index(which))
    for pattern, replacement in _NAMES:
        new, changed = re.subn(pattern, replacement, name)
        if changed:
            return Target(new)
    return Target(name)


def read_published(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a published file: a state dict, possibly under the key `model`, or safetensors.

    Pickles are read as data only (`weights_only`), and mapped into memory if the format allows it. A leading `module.`
    of names is removed. Raises EvacapError if the file is something else, is damaged, or would run code.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", "give a file with weights") from error
    if not start or start[:1] == b"<" or start.startswith(b"version https://git-lfs"):
        what = "a web page" if start[:1] == b"<" else "a Git LFS pointer" if start else "empty"
        raise EvacapError(f"{path}: is {what}, not weights", "download it again")
    zipped = zipfile.is_zipfile(path)
    if start.startswith(b"PK") and not zipped:
        raise EvacapError(f"{path}: is truncated", "download it again")
    try:
        found: Any
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            with warnings.catch_warnings():  # torch warns about files that it then rejects
                warnings.simplefilter("ignore", UserWarning)
                found = torch.load(path, "cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not asked:
            raise EvacapError(
                f"{path}: damaged, or a pickle that contains more than weights; it was not opened",
                "download it again, or ask its authors for a plain state dict",
            ) from error
        raise EvacapError(
            f"{path}: would run {asked[1]}; it was not opened",
            "weights need no code: get the file from its authors, or ask them for a plain state dict",
        ) from error
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
    ) as error:
        raise EvacapError(f"{path}: damaged, or not weights ({_line(error)})", "download it again") from error
    for name in ("model", "state_dict"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    tensors = found.items() if isinstance(found, dict) else ()
    state = {str(name).removeprefix("module."): value for name, value in tensors if isinstance(value, Tensor)}
    if not state:
        raise EvacapError(
            f"{path}: contains no named tensors", "give a state dict, or a dict with one under `model`"
        )
    return state


def kind_of(state: Iterable[str]) -> str | None:
    """The model that the names come from: `avcap`, `git`, `cav-mae`, `ours`, or None."""
    firsts = {name.split(".")[0] for name in state}
    if "textual" in firsts:
        return "avcap" if "av_encoder" in firsts else "git"
    if {"blocks_a", "blocks_v", "blocks_u"} <= firsts:
        return "cav-mae"
    return "ours" if firsts <= {"encoder", "decoder", "fusion"} else None


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
