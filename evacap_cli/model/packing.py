"""Reorders weights once for inference, instead of at every product or batch."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from evacap_cli.model.causal_lm import CausalLMDecoder
from evacap_cli.model.evidence import Evidence
from evacap_cli.model.graphs import Recordings
from evacap_cli.model.tag_encoder import NETWORKS
from evacap_cli.model.tag_evidence import TagEvidence

if TYPE_CHECKING:
    from evacap_cli.model.captioner import CaptionModel

LAYOUT_ROWS = 512  # the layout is optimised for products of so many rows; it is as good for a few rows


class PackedLinear(nn.Module):
    """A linear layer whose weight oneDNN has reordered for a CPU, in `dtype`. Gradients do not flow through it.

    Compared with torch's product, it is up to 1.25 times as fast for the hundreds of rows of the towers and three times
    as fast for the few rows of a beam. If oneDNN has no product in `dtype` on this CPU, torch's product is used.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = dtype
        self.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
        self.plain = not can_pack(dtype)
        packed = weight.detach().to(dtype)
        self.packed = packed if self.plain else torch.ops.mkldnn._reorder_linear_weight(packed, LAYOUT_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., d) to (..., n), in the weight's precision."""
        if self.plain:
            return linear(x.to(self.dtype), self.packed, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.packed, self.bias, "none", [], "")


def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN and may use it: some builds, such as those for ARM, lack it."""
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN has products with reordered weights of this type on this CPU.

    For bf16 they need AVX-512 or AVX-NE-CONVERT on x86. Without them bf16 is correct, but slower than fp32.
    """
    return has_onednn() and _works(dtype, packed=True)


def can_multiply(dtype: torch.dtype) -> bool:
    """Whether PyTorch can multiply matrices of this type on this CPU."""
    return _works(dtype, packed=False)


@lru_cache(maxsize=16)
def _works(dtype: torch.dtype, packed: bool) -> bool:
    """Tries a product, because the requirements of the libraries differ between versions."""
    x = torch.zeros(1, 1, dtype=dtype)
    try:
        if packed:
            weight = torch.ops.mkldnn._reorder_linear_weight(x, LAYOUT_ROWS)
            torch.ops.mkldnn._linear_pointwise(x, weight, x[0], "none", [], "")
        else:
            linear(x, x, x[0])
    except (
        AttributeError,
        RuntimeError,
    ):  # a build without the operation, a processor without the instructions
        return False
    return True


def pack(model: CaptionModel, precision: torch.dtype | None) -> CaptionModel:
    """Prepares `model` for fast inference. Its state can no longer be saved. A packed model stays as it is.

    `precision`: the autocast type that it will run in, None for fp32. On a CPU, every linear layer becomes a
    `PackedLinear`; on other devices, weights of linear layers are stored in `precision`, and CUDA replays recorded
    kernels (`graphs`). Norms, embeddings, the vocabulary's logits
    and what `Evidence` compares stay fp32. Raises ValueError for a model that was packed for another precision.
    """
    dtype = precision or torch.float32
    on_cpu = model.device.type == "cpu" and has_onednn()
    if on_cpu and model.packed not in (None, dtype):
        raise ValueError(f"the model is packed as {model.packed}: load it again for {dtype}")
    if not on_cpu:
        for module, name in _linear(model):
            layer = getattr(module, name)
            layer.weight.data = layer.weight.data.to(dtype)
        if model.device.type == "cuda":
            model.recordings = Recordings()
        return model
    if model.packed is None:
        for module, name in _linear(model):
            setattr(module, name, _packed(getattr(module, name), dtype))
        for decoder in model.decoders:
            if isinstance(decoder, CausalLMDecoder):
                continue
            decoder.vocabulary = PackedLinear(decoder.words.weight, decoder.output_bias, torch.float32)
        model.packed = dtype
    return model


def _linear(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """The linear layers to pack: the parent module and the attribute name of each."""
    found: list[tuple[nn.Module, str]] = []
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            found.append((module, name))
        elif name not in NETWORKS and not isinstance(child, Evidence | TagEvidence | CausalLMDecoder):
            found += _linear(child)
    return found


def _packed(layer: nn.Linear, dtype: torch.dtype) -> PackedLinear:
    bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    return PackedLinear(layer.weight, bias, dtype)
