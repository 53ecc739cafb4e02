"""The entropy without the matrix, against the plain softmax form."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from evacap_cli.model import attention
from evacap_cli.model.attention import entropy_attention


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention and normalised entropy with the whole matrix written out."""
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    count = torch.full((q.shape[0],), k.shape[2])
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        count = mask.sum(1)
    p = scores.softmax(-1)
    entropy = -(p * p.clamp(min=1e-300 if q.dtype == torch.float64 else 1e-38).log()).sum(-1)
    return p @ v, entropy / count.clamp(min=2).to(q.dtype).log()[:, None, None]


def inputs(
    dtype: torch.dtype = torch.float64, size: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 3, n, 8, generator=g, dtype=torch.float64) * size for n in (70, 50, 50))
    mask = torch.rand(2, 50, generator=g) < 0.6
    mask[:, 0] = True
    return q.to(dtype), k.to(dtype), v.to(dtype), mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [0.1, 1.0, 4.0])
def test_value_and_gradient_equal_the_plain_form(masked: bool, size: float, record_property) -> None:
    q, k, v, mask = inputs(size=size)
    weight = torch.randn(2, 3, 70, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for form in (entropy_attention, plain):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        output, entropy = form(*leaves, mask if masked else None)
        (output.square().sum() + (entropy * weight).sum()).backward()
        results.append((output, entropy, *(x.grad for x in leaves)))
    errors = [(a - b).abs().max().item() for a, b in zip(*results, strict=True)]
    record_property("max_abs_errors_output_entropy_dq_dk_dv", errors)
    assert max(errors) < 1e-4


def test_gradcheck() -> None:
    q, k, v, mask = (x[:, :1] if x.dim() == 4 else x for x in inputs())
    q, k, v, mask = q[:, :, :5], k[:, :, :6], v[:, :, :6], mask[:, :6]
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(lambda *x: entropy_attention(*x), leaves)
    assert torch.autograd.gradcheck(lambda *x: entropy_attention(*x, mask), leaves)


@pytest.mark.parametrize("masked", [False, True])
def test_devices_without_a_fused_kernel_get_the_same(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, mask = inputs(torch.float32)
    fused = entropy_attention(q, k, v, mask if masked else None)
    monkeypatch.setattr(attention, "_fused", attention._chunked)
    chunked = entropy_attention(q, k, v, mask if masked else None)
    for a, b in zip(fused, chunked, strict=True):
        assert (a - b).abs().max() < 1e-5


def test_one_key_has_no_entropy() -> None:
    q, k, v, _ = inputs(torch.float32)
    output, entropy = entropy_attention(q, k[:, :, :1], v[:, :, :1])
    assert entropy.abs().max() == 0
    assert torch.allclose(output, v[:, :, :1].expand_as(output))
    only = torch.zeros(2, 50, dtype=torch.bool)
    only[:, 7] = True
    assert entropy_attention(q, k, v, only)[1].abs().max() == 0


def test_equal_scores_are_one_and_a_sharp_look_is_zero() -> None:
    q, k, v, _ = inputs(torch.float32)
    _, even = entropy_attention(torch.zeros_like(q), k, v)
    assert (even - 1).abs().max() < 1e-6
    _, same = entropy_attention(q, k[:, :, :1].expand_as(k), v)
    assert (same - 1).abs().max() < 1e-5
    output, sharp = entropy_attention(q * 1e4, k, v)
    assert torch.isfinite(output).all()
    assert sharp.median() == 0
    assert sharp.min() >= 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.5, 2.0])
def test_half_precision(dtype: torch.dtype, size: float, record_property) -> None:
    q, k, v, mask = inputs(dtype, size)
    k = k + 3  # far from the origin, where the subtraction would lose digits
    output, entropy = entropy_attention(q, k, v, mask)
    expected = plain(q.double(), k.double(), v.double(), mask)[1]
    error = (entropy.double() - expected).abs().max().item()
    record_property("max_abs_error", error)
    assert output.dtype == dtype
    assert error < (0.03 if dtype == torch.bfloat16 else 0.01)


def test_a_padded_clip_is_what_it_is_alone() -> None:
    q, k, v, _ = inputs(torch.float32)
    mask = torch.zeros(2, 50, dtype=torch.bool)
    mask[0, :20], mask[1, :] = True, True
    padded = entropy_attention(q, k, v, mask)
    alone = entropy_attention(q[:1], k[:1, :, :20], v[:1, :, :20])
    for a, b in zip(padded, alone, strict=True):
        assert (a[:1] - b).abs().max() < 1e-5


PEAK = """
import resource, sys, torch
sys.path[:0] = {path!r}
torch.set_num_threads(1)
from evacap_cli.model.attention import entropy_attention
from tests_plain import plain
q, k, v = (torch.randn(1, 12, n, 64, requires_grad=True) for n in (512, 3528, 3528))
small = [x[:, :, :8].detach().requires_grad_() for x in (q, k, v)]
form = {form}
output, entropy = form(*small)
(output.sum() + entropy.sum()).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
output, entropy = form(q, k, v)
(output.sum() + entropy.sum()).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_peak_memory_is_a_small_fraction_of_the_plain_forms(tmp_path, record_property) -> None:
    """Forward and backward at T_a 512, T_v 3528, 12 heads: what each form adds to a process of its own."""
    source = "from __future__ import annotations\nimport torch\nfrom torch import Tensor\n\n" + __import__(
        "inspect"
    ).getsource(plain)
    (tmp_path / "tests_plain.py").write_text(source)
    peak = {}
    for form in ("entropy_attention", "plain"):
        code = PEAK.format(path=[str(tmp_path), *sys.path], form=form)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peak[form] = int(done.stdout) / 1024
    record_property("extra_MiB", peak)
    assert peak["entropy_attention"] < peak["plain"] / 4
