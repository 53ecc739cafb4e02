"""Published weights (AVCap's, and so CAV-MAE's and GIT's names) as our parameters.

AVCap keeps six norms in every block and query, key and value apart; we keep the norms a block uses and one product for
all three. Everything else is a change of name.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from evacap_cli.errors import EvacapError

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


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames a published state dict; drops what no path of the published model reads, and the tied output's copy."""
    renamed: dict[str, Tensor] = {}
    thirds: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, value in state.items():
        name = name.removeprefix("module.")
        if _UNUSED_NORM.match(name):
            continue
        if name == "textual.output.weight":
            words = state.get(
                "textual.embedding.words.weight", state.get("module.textual.embedding.words.weight")
            )
            if words is None or not torch.equal(value, words):
                raise EvacapError(
                    "textual.output.weight differs from textual.embedding.words.weight, which it should be tied to",
                    "this is not an AVCap or GIT checkpoint as published",
                )
            continue
        if attention := _ATTENTION.match(name):
            layer, which, kind = attention.groups()
            thirds.setdefault((layer, kind), {})[which] = value
            continue
        for pattern, replacement in _NAMES:
            new, changed = re.subn(pattern, replacement, name)
            if changed:
                name = new
                break
        renamed[name] = value
    for (layer, kind), parts in thirds.items():
        if missing := {"query", "key", "value"} - set(parts):
            raise EvacapError(
                f"decoder layer {layer} lacks {', '.join(sorted(missing))} {kind}", "the file is incomplete"
            )
        renamed[f"decoder.layers.{layer}.qkv.{kind}"] = torch.cat(
            [parts[w] for w in ("query", "key", "value")]
        )
    return renamed
