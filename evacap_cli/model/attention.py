"""Cross-attention that also reports how spread its look is, without ever holding the attention matrix.

With scaled scores `s_ij` and weights `p_ij`, the entropy of row i is `logsumexp_j(s_ij) - sum_j p_ij s_ij`, and
`sum_j p_ij s_ij` is `q_i . (P K)_i / sqrt(d_head)`: a second attention call with the keys as values gives it. Memory is
linear in the number of keys, forward and backward.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK = 32
"""Queries handled at once where scores must be written out (backward, and devices without a log-sum-exp kernel)."""


def entropy_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention and its normalised entropy.

    q: (B, h, T_q, d), k and v: (B, h, T_k, d), mask: bool (B, T_k), True for keys that exist; every row needs at
    least one. Returns the output (B, h, T_q, d) and E (B, h, T_q) in float32 (float64 for float64 input), 0 for a
    one-hot look and 1 for an even one; with a single key E is 0.
    """
    # The entropy does not change when all keys move together; centred keys keep the subtraction above small, which
    # is what half precision needs.
    bias, count = None, torch.tensor(k.shape[2], device=k.device)
    if mask is None:
        centre = k.mean(dim=2, keepdim=True)
    else:
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, float("-inf"))
        bias, count = bias[:, None, None, :], mask.sum(dim=1)[:, None, None]
        real = torch.where(mask[:, None, :, None], k, 0.0)
        centre = real.mean(dim=2, keepdim=True) * (k.shape[2] / count[..., None]).to(k.dtype)
    k = k - centre
    output, entropy = _EntropyAttention.apply(q, k, v, bias)
    normalised = (entropy / count.clamp(min=2).to(entropy.dtype).log()).clamp(0.0, 1.0)
    return output, normalised * (count > 1)


class _EntropyAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, bias):  # type: ignore[no-untyped-def]
        # The wide sums below are wide for a reason: autocast must not make half precision of them again.
        with torch.autocast(q.device.type, enabled=False):
            output, lse, expected = (_fused if q.device.type == "cpu" else _chunked)(q, k, v, bias)
        entropy = lse - expected
        ctx.save_for_backward(q, k, v, bias, output, lse, entropy)
        return output, entropy

    @staticmethod
    def backward(ctx, grad_output, grad_entropy):  # type: ignore[no-untyped-def]
        with torch.autocast(grad_output.device.type, enabled=False):
            return *_gradients(*ctx.saved_tensors, grad_output, grad_entropy), None


def _gradients(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, output: Tensor, lse: Tensor, entropy: Tensor,
               grad_output: Tensor, grad_entropy: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Of q, k and v, a few queries at a time and in place: what is held at once is what makes the peak."""
    wide, scale = lse.dtype, 1 / math.sqrt(q.shape[-1])
    grad_q = torch.empty_like(q)
    grad_k = torch.zeros(k.shape, dtype=wide, device=k.device)
    grad_v = torch.zeros(v.shape, dtype=wide, device=v.device)
    key, value = k.to(wide), v.to(wide)
    for rows in _row_chunks(q.shape[2]):
        query, upstream = q[:, :, rows].to(wide), grad_output[:, :, rows].to(wide)
        log_p = _scores(query, key, bias, scale).sub_(lse[:, :, rows, None])
        p = log_p.exp()
        grad_v += p.transpose(-2, -1) @ upstream
        grad_scores = upstream @ value.transpose(-2, -1)
        grad_scores -= (upstream * output[:, :, rows].to(wide)).sum(-1, keepdim=True)
        # dH/ds_ij = -p_ij (log p_ij + H_i); a weight of zero contributes nothing.
        spread = log_p.masked_fill_(p == 0, 0.0).add_(entropy[:, :, rows, None])
        grad_scores -= spread.mul_(grad_entropy[:, :, rows, None].to(wide))
        grad_scores *= p.mul_(scale)
        grad_q[:, :, rows] = (grad_scores @ key).to(q.dtype)
        grad_k += grad_scores.transpose(-2, -1) @ query
    return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype)


def _fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Output, log-sum-exp and expected score by the CPU's fused kernel."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if bias is not None:
        bias = bias.expand(q.shape[0], 1, q.shape[2], k.shape[2])
    output, _ = kernel(q, k, v, attn_mask=bias)
    mean_key, lse = kernel(q, k, k, attn_mask=bias)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    expected = (q.to(wide) * mean_key.to(wide)).sum(-1) / math.sqrt(q.shape[-1])
    return output, lse.to(wide), expected


def _chunked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The same from plain operations, a few queries at a time: any device."""
    wide, scale = torch.float64 if q.dtype == torch.float64 else torch.float32, 1 / math.sqrt(q.shape[-1])
    parts = []
    key, value = k.to(wide), v.to(wide)
    for rows in _row_chunks(q.shape[2]):
        scores = _scores(q[:, :, rows].to(wide), key, bias, scale)
        lse = scores.logsumexp(-1)
        p = (scores - lse[..., None]).exp()
        expected = torch.where(p > 0, p * scores, 0.0).sum(-1)
        parts.append(((p @ value).to(q.dtype), lse, expected))
    output, lse, expected = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    return output, lse, expected


def _scores(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    scores = (query @ key.transpose(-2, -1)).mul_(scale)
    return scores if bias is None else scores.add_(bias.to(scores.dtype))


def _row_chunks(rows: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK, rows)) for start in range(0, rows, _CHUNK)]
