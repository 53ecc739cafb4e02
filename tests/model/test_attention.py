"""The entropy without the matrix, against the plain softmax form."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evacap_cli.model import attention
from evacap_cli.model.attention import entropy_attention

from .samples import greatest_error, plain_attention

Form = Callable[..., tuple[Tensor, Tensor]]
Record = Callable[[str, object], None]


def inputs(
    dtype: torch.dtype = torch.float64, size: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q (2, 3, 70, 8), k and v (2, 3, 50, 8), mask (2, 50)."""
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 3, n, 8, generator=g, dtype=torch.float64) * size for n in (70, 50, 50))
    mask = torch.rand(2, 50, generator=g) < 0.6
    mask[:, 0] = True
    return q.to(dtype), k.to(dtype), v.to(dtype), mask


def value_and_gradient(form: Form, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Output, entropy and the gradients of q, k, v under a random functional of both."""
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    output, entropy = form(*leaves, mask)
    weight = torch.arange(entropy[0].numel()).cos().view(entropy.shape[1:]).to(entropy)
    (output.square().sum() + (entropy * weight).sum()).backward()
    return [output.detach(), entropy.detach(), *(x.grad for x in leaves if x.grad is not None)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [0.1, 1.0, 4.0])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_value_and_gradient_equal_the_plain_form(
    masked: bool, size: float, dtype: torch.dtype, bound: float, record_property: Record
) -> None:
    q, k, v, mask = inputs(dtype, size)
    ours = value_and_gradient(entropy_attention, q, k, v, mask if masked else None)
    theirs = value_and_gradient(plain_attention, q.double(), k.double(), v.double(), mask if masked else None)
    # gradients grow with the inputs: their error is taken in proportion once they exceed 1
    errors = [
        greatest_error(a, b) / max(1.0, b.abs().max().item()) for a, b in zip(ours, theirs, strict=True)
    ]
    record_property("max_errors_output_entropy_dq_dk_dv", errors)
    assert max(errors) < bound


def test_value_and_gradient_at_full_width(record_property: Record) -> None:
    """As many keys as 18 frames have, 12 heads; a few queries, so that the plain form stays cheap."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 12, n, 64, generator=g) for n in (33, 3528, 3528))
    ours = value_and_gradient(entropy_attention, q, k, v, None)
    theirs = value_and_gradient(plain_attention, q.double(), k.double(), v.double(), None)
    errors = [greatest_error(a, b) for a, b in zip(ours, theirs, strict=True)]
    record_property("max_abs_errors_output_entropy_dq_dk_dv", errors)
    assert max(errors) < 1e-4


@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(masked: bool) -> None:
    """Both outputs against finite differences in float64."""
    q, k, v, mask = inputs()
    leaves = [x[:, :2, :n, :4].clone().requires_grad_() for x, n in ((q, 3), (k, 5), (v, 5))]
    chosen = mask[:, :5] if masked else None
    assert torch.autograd.gradcheck(lambda q, k, v: entropy_attention(q, k, v, chosen), leaves)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_devices_without_a_fused_kernel_get_the_same(
    masked: bool, autocast: bool, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    """And autocast, which would do the plain operations in half precision, is kept out of them."""
    q, k, v, mask = inputs(torch.float32)
    chosen = mask if masked else None
    fused = value_and_gradient(entropy_attention, q, k, v, chosen)
    monkeypatch.setattr(attention, "_fused", attention._chunked)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        chunked = value_and_gradient(entropy_attention, q, k, v, chosen)
    errors = [greatest_error(a, b) for a, b in zip(fused, chunked, strict=True)]
    record_property("max_abs_errors", errors)
    assert max(errors) < 1e-5


def test_one_key_has_no_entropy() -> None:
    q, k, v, _ = inputs(torch.float32)
    output, entropy = entropy_attention(q, k[:, :, :1], v[:, :, :1])
    assert entropy.abs().max() == 0
    assert torch.allclose(output, v[:, :, :1].expand_as(output))
    only = torch.zeros(2, 50, dtype=torch.bool)
    only[:, 7] = True
    assert entropy_attention(q, k, v, only)[1].abs().max() == 0


@pytest.mark.parametrize("masked", [False, True])
def test_equal_scores_have_entropy_one(masked: bool, record_property: Record) -> None:
    q, k, v, mask = inputs(torch.float32)
    chosen = mask if masked else None
    zero = entropy_attention(torch.zeros_like(q), k, v, chosen)[1]
    same = entropy_attention(q, k[:, :, :1].expand_as(k), v, chosen)[1]
    error = max(greatest_error(zero, torch.ones_like(zero)), greatest_error(same, torch.ones_like(same)))
    record_property("max_abs_error", error)
    assert error < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_a_one_hot_look_has_entropy_zero(masked: bool, dtype: torch.dtype, record_property: Record) -> None:
    """Each query points at one key, by scores of a hundred to ten thousand: zero, and gradients that are numbers."""
    _, _, v, mask = inputs(dtype)
    mask[:, :4] = True
    key = torch.zeros(2, 3, 50, 8, dtype=dtype)
    key[:, :, torch.arange(4), torch.arange(4)] = 30.0
    worst = 0.0
    for size in (10.0, 100.0, 1000.0):
        query = (torch.eye(8, dtype=dtype)[:4] * size).expand(2, 3, 4, 8)
        output, entropy, *gradients = value_and_gradient(
            entropy_attention, query, key, v, mask if masked else None
        )
        worst = max(worst, entropy.max().item())
        assert greatest_error(output.float(), v[:, :, :4].float()) < 1e-2
        assert all(torch.isfinite(x).all() for x in (output, entropy, *gradients))
        assert entropy.min() >= 0
    record_property("greatest_entropy", worst)
    assert worst < 1e-3


def test_huge_scores_give_numbers(record_property: Record) -> None:
    """Random directions, scores in the ten thousands: nearly every look is at one key."""
    q, k, v, mask = inputs(torch.float32)
    output, entropy, *gradients = value_and_gradient(entropy_attention, q * 1e4, k, v, mask)
    expected = plain_attention(q.double() * 1e4, k.double(), v.double(), mask)[1]
    error = greatest_error(entropy, expected)
    record_property("max_abs_error_of_entropy", error)
    assert all(torch.isfinite(x).all() for x in (output, *gradients))
    assert entropy.median() == 0
    assert error < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.5, 2.0])
@pytest.mark.parametrize("masked", [False, True])
def test_half_precision(dtype: torch.dtype, size: float, masked: bool, record_property: Record) -> None:
    q, k, v, mask = inputs(dtype, size)
    k = k + 3  # far from the origin, where the subtraction would lose digits
    chosen = mask if masked else None
    ours = value_and_gradient(entropy_attention, q, k, v, chosen)
    theirs = value_and_gradient(plain_attention, q.double(), k.double(), v.double(), chosen)
    error = greatest_error(ours[1], theirs[1])
    record_property("max_abs_error_of_entropy", error)
    assert ours[0].dtype == dtype
    assert ours[1].dtype == torch.float32
    assert error < (0.03 if dtype == torch.bfloat16 else 0.004)
    for mine, plain in zip(ours[2:], theirs[2:], strict=True):
        assert greatest_error(mine, plain) < 0.1 * max(1.0, plain.abs().max().item())


def test_a_padded_clip_is_what_it_is_alone(record_property: Record) -> None:
    """Whatever stands in the padding, values and gradients."""
    q, k, v, _ = inputs(torch.float32)
    mask = torch.zeros(2, 50, dtype=torch.bool)
    mask[0, :20], mask[1, :] = True, True
    k[0, :, 20:], v[0, :, 20:] = 50.0, -70.0
    padded = value_and_gradient(entropy_attention, q, k, v, mask)
    alone = value_and_gradient(entropy_attention, q[:1], k[:1, :, :20], v[:1, :, :20], None)
    full = value_and_gradient(entropy_attention, q[1:], k[1:], v[1:], None)
    errors = [greatest_error(a[:1, :, : b.shape[2]], b) for a, b in zip(padded, alone, strict=True)]
    errors += [greatest_error(a[1:], b) for a, b in zip(padded, full, strict=True)]
    record_property("max_abs_errors", errors)
    assert max(errors) < 1e-5
    for gradient in padded[3:]:  # of k and v: none reaches the padding
        assert gradient[0, :, 20:].abs().max() == 0


PEAK = """
import resource, torch
from evacap_cli.model.attention import entropy_attention
from tests.model.samples import plain_attention

def memory(peak):  # MiB; Linux's ru_maxrss is no use: a child begins with its parent's
    try:
        wanted = "VmHWM:" if peak else "VmRSS:"
        return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(wanted)) / 1024
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(1)
q, k, v = (torch.randn(1, 12, n, 64, requires_grad=True) for n in (512, 3528, 3528))
small = [x[:, :, :8].detach().requires_grad_() for x in (q, k, v)]
output, entropy = {form}(*small)
(output.sum() + entropy.sum()).backward()
before = memory(peak=False)
output, entropy = {form}(q, k, v)
(output.sum() + entropy.sum()).backward()
print(memory(peak=True) - before)
"""


@pytest.mark.slow
def test_peak_memory_is_a_small_fraction_of_the_plain_forms(record_property: Record) -> None:
    """Forward and backward at T_a 512, T_v 3528, 12 heads: what each form adds to a process of its own."""
    pytest.importorskip("resource")
    peak, root = {}, Path(__file__).parents[2]
    for form in ("entropy_attention", "plain_attention"):
        command = [sys.executable, "-c", PEAK.format(form=form)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
        peak[form] = float(done.stdout)
    record_property("extra_MiB", peak)
    assert 0 < peak["entropy_attention"] < peak["plain_attention"] / 4
