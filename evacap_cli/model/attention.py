"""Cross-attention and the entropy of its weights, without the attention matrix in memory.

With scaled scores `s_ij` and weights `p_ij`, the entropy of row i is `H_i = lse_i - sum_j p_ij s_ij`, where `lse_i` is
`logsumexp_j(s_ij)`. Fused attention kernels return `lse`, and `sum_j p_ij s_ij = q_i . (P K)_i / sqrt(d)` is attention
with the keys as values. Memory is linear in the number of keys, forward and backward.

The gradient needs no kernel of its own: `dH_i/ds_ij = -p_ij (s_ij - sum_j p_ij s_ij)` is the gradient of
`-sum_j p_ij s_ij` with `s_ij` constant, because those of `lse_i` and of `s_ij` cancel.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from enum import Enum
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

_CHUNK = 32
"""Queries per chunk where no fused kernel exists."""
_ALIGNMENT = 8
"""The fused CUDA kernels need head sizes that are multiples of this."""
_MASK = 4096.0
"""Factor of query and of key that makes a score of about -2e6 for a key that does not exist. A power of two is exact in
every precision, and the score is small enough for float32 to resolve steps of 1, which keeps `exp(s - max)` finite in a
block in which no key exists."""


class AttentionPath(str, Enum):
    """How attention with entropy is computed. The fused kernels are named by their operator in PyTorch."""

    CPU = "aten::_scaled_dot_product_flash_attention_for_cpu"
    FLASH = "aten::_scaled_dot_product_flash_attention"
    EFFICIENT = "aten::_scaled_dot_product_efficient_attention"
    PLAIN = "plain operations"


def entropy_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention and its normalised entropy.

    q: (B, h, T_q, d), k and v: (B, h, T_k, d), mask: bool (B, T_k), True for keys that exist; every row needs at
    least one. Returns the output (B, h, T_q, d) and E (B, h, T_q) in float32 (float64 for float64 input): 0 if all
    weight is on one key, 1 if all keys have equal weight. With a single key E is 0.
    """
    # The entropy does not change when all keys move together; centred keys keep the subtraction `lse - sum_j p_ij s_ij`
    # small, which half precision needs.
    if mask is None:
        centre = k.mean(dim=2, keepdim=True)
    else:
        count = mask.sum(dim=1)[:, None, None]
        real = torch.where(mask[:, None, :, None], k, 0.0)
        centre = real.mean(dim=2, keepdim=True) * (k.shape[2] / count[..., None]).to(k.dtype)
    path = attention_path(q.device, q.dtype, q.shape[-1])
    # Autocast must not reduce the precision of the float32 sums.
    with torch.autocast(q.device.type, enabled=False):
        output, mean_key, lse = _KERNELS[path](q, k - centre, v, mask)
        expected = (q.detach().to(lse.dtype) * mean_key.to(lse.dtype)).sum(-1) / math.sqrt(q.shape[-1])
        entropy = lse.detach() - expected
    if mask is None:
        return output, (entropy / math.log(max(k.shape[2], 2))).clamp(0.0, 1.0) * (k.shape[2] > 1)
    normalised = (entropy / count.clamp(min=2).to(entropy.dtype).log()).clamp(0.0, 1.0)
    return output, normalised * (count > 1)


@cache
def attention_path(device: torch.device, dtype: torch.dtype, head_size: int) -> AttentionPath:
    """The path of `entropy_attention` for inputs of this kind. The first call for each kind logs it (level DEBUG)."""
    path = _choose_path(device, dtype, head_size)
    kind = f"{str(dtype).removeprefix('torch.')}, head size {head_size}"
    logging.getLogger(__name__).debug("attention with entropy on %s, %s: %s", device, kind, path.value)
    return path


def _choose_path(device: torch.device, dtype: torch.dtype, head_size: int) -> AttentionPath:
    if device.type == "cpu":
        return AttentionPath.CPU
    if device.type != "cuda":  # MPS has no operator that returns the log-sum-exp
        return AttentionPath.PLAIN
    cuda = torch.backends.cuda

    def example(width: int) -> Tensor:
        return torch.empty(1, 1, _ALIGNMENT, width, dtype=dtype, device=device)

    def parameters(*sizes: int) -> cuda.SDPAParams:
        q_and_k, values = map(example, sizes)
        return cuda.SDPAParams(q_and_k, q_and_k, values, None, 0.0, False, False)

    # The sizes with a mask, which need more than those without
    if cuda.can_use_flash_attention(parameters(*_joined_sizes(head_size, True, True))):
        return AttentionPath.FLASH
    if cuda.can_use_efficient_attention(parameters(*_joined_sizes(head_size, True, False))):
        return AttentionPath.EFFICIENT
    return AttentionPath.PLAIN


# The functions below return attention's output, the mean key `sum_j p_ij k_j` (both (B, h, T_q, d)) and `lse`
# (B, h, T_q), in float32 or float64. Gradients reach q, k and v through the weights and through v; the keys that are
# averaged are constants.


def _cpu(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Two calls, because this kernel needs keys and values of equal size: one call with padded keys takes longer."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    dtype = q.dtype
    if torch.is_grad_enabled() and dtype not in (torch.float32, torch.float64):
        q, k, v = (
            q.float(),
            k.float(),
            v.float(),
        )  # without bf16 instructions, its half-precision backward takes 6 times as long
    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, float("-inf"))
        bias = bias[:, None, None].expand(-1, 1, q.shape[2], -1)
    output, _ = kernel(q, k, v, attn_mask=bias)
    mean_key, lse = kernel(q, k, k.detach(), attn_mask=bias)
    return output.to(dtype), mean_key, lse


def _joined(kernel: Callable[..., tuple[Tensor, Tensor]], square: bool, q: Tensor, k: Tensor, v: Tensor,
            mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One call of `kernel` with [V; K] as values. square: it needs keys and values of equal size.

    A mask becomes one more component of queries and keys, because the flash kernel takes no mask.
    """
    size = q.shape[-1]
    width, values_width = _joined_sizes(size, mask is not None, square)
    scale = 1 / math.sqrt(size)
    values = torch.cat((v, k.detach()), dim=-1)
    if mask is not None:
        q = torch.cat((q, q.new_full((*q.shape[:3], 1), _MASK)), dim=-1)
        absent = torch.where(mask, 0.0, -_MASK).to(k.dtype)[:, None, :, None]
        k = torch.cat((k, absent.expand(*k.shape[:3], 1)), dim=-1)
    q, k, values = (
        pad(x, (0, to - x.shape[-1])) for x, to in ((q, width), (k, width), (values, values_width))
    )
    output, lse = kernel(q, k, values, scale)
    return output[..., :size], output[..., size : 2 * size], lse[:, :, : q.shape[2]]


def _joined_sizes(head_size: int, masked: bool, square: bool) -> tuple[int, int]:
    """Sizes of keys and of values for `_joined`."""
    keys, values = (math.ceil(n / _ALIGNMENT) * _ALIGNMENT for n in (head_size + int(masked), 2 * head_size))
    return (max(keys, values), max(keys, values)) if square else (keys, values)


def _flash(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    output, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)
    return output, lse


def _efficient(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Its log-sum-exp is padded to a multiple of 32 queries."""
    output, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, None, compute_log_sumexp=True, scale=scale
    )
    return output, lse


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """For devices without a fused kernel: a few queries at a time, which the backward computes again."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    key, value, parts = k.to(wide), v.to(wide), []
    values = torch.cat((value, key.detach()), dim=-1)
    for queries in q.to(wide).split(_CHUNK, dim=2):
        parts.append(
            checkpoint(_attend, queries, key, values, mask, use_reentrant=False, preserve_rng_state=False)
        )
    output, lse = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    seen, mean_key = output.split(q.shape[-1], dim=-1)
    return seen.to(q.dtype), mean_key, lse


def _attend(q: Tensor, k: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
    return scores.softmax(-1) @ values, scores.detach().logsumexp(-1)


_KERNELS: dict[AttentionPath, Callable[..., tuple[Tensor, Tensor, Tensor]]] = {
    AttentionPath.CPU: _cpu,
    AttentionPath.FLASH: partial(_joined, _flash, True),
    AttentionPath.EFFICIENT: partial(_joined, _efficient, False),
    AttentionPath.PLAIN: _plain,
}
