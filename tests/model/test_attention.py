"""The entropy without the matrix, against the plain softmax form."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from evacap_cli.model import attention
from evacap_cli.model.attention import AttentionPath, entropy_attention

from .samples import greatest_error, plain_attention

Form = Callable[..., tuple[Tensor, Tensor]]
Record = Callable[[str, object], None]


def flash_on_cpu(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """In place of the CUDA kernel: the same shapes and results."""
    assert q.shape[-1] % 8 == 0
    assert q.shape[-1] == v.shape[-1]
    output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale)
    return output, lse


def efficient_on_cpu(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """In place of the CUDA kernel, whose log-sum-exp has unused rows up to a multiple of 32."""
    assert q.shape[-1] % 8 == v.shape[-1] % 8 == 0
    wide = q.dtype if q.dtype == torch.float64 else torch.float32
    scores = q.to(wide) @ k.to(wide).transpose(-2, -1) * scale
    rows = math.ceil(q.shape[2] / 32) * 32
    lse = torch.nn.functional.pad(scores.detach().logsumexp(-1), (0, rows - q.shape[2]), value=float("nan"))
    return (scores.softmax(-1) @ v.to(wide)).to(q.dtype), lse


@pytest.fixture(params=AttentionPath, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AttentionPath:
    """Makes `entropy_attention` take each path, with the CUDA kernels replaced."""
    chosen: AttentionPath = request.param
    monkeypatch.setattr(attention, "attention_path", lambda *_: chosen)
    for name, kernel, square in (
        (AttentionPath.FLASH, flash_on_cpu, True),
        (AttentionPath.EFFICIENT, efficient_on_cpu, False),
    ):
        monkeypatch.setitem(attention._KERNELS, name, partial(attention._joined, kernel, square))
    return chosen


every_path = pytest.mark.usefixtures("path")


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


@every_path
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [0.1, 1.0, 4.0])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_value_and_gradient_equal_the_reference(
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


@pytest.mark.slow
@every_path
def test_value_and_gradient_at_full_width(record_property: Record) -> None:
    """As many keys as 18 frames have, 12 heads; a few queries, so that the plain form stays cheap."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 12, n, 64, generator=g) for n in (33, 3528, 3528))
    ours = value_and_gradient(entropy_attention, q, k, v, None)
    theirs = value_and_gradient(plain_attention, q.double(), k.double(), v.double(), None)
    errors = [greatest_error(a, b) for a, b in zip(ours, theirs, strict=True)]
    record_property("max_abs_errors_output_entropy_dq_dk_dv", errors)
    assert max(errors) < 1e-4


@pytest.mark.slow
@every_path
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(masked: bool) -> None:
    """Both outputs against finite differences in float64."""
    q, k, v, mask = inputs()
    leaves = [x[:, :2, :n, :4].clone().requires_grad_() for x, n in ((q, 3), (k, 5), (v, 5))]
    chosen = mask[:, :5] if masked else None
    assert torch.autograd.gradcheck(lambda q, k, v: entropy_attention(q, k, v, chosen), leaves)


@every_path
@pytest.mark.parametrize("masked", [False, True])
def test_autocast_does_not_reduce_the_precision(masked: bool, record_property: Record) -> None:
    """Of the forward; the backward runs outside autocast, as PyTorch's documentation asks."""
    q, k, v, mask = inputs(torch.float32)
    chosen = mask if masked else None

    def under_autocast(*inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return entropy_attention(*inputs)

    full = value_and_gradient(entropy_attention, q, k, v, chosen)
    cast = value_and_gradient(under_autocast, q, k, v, chosen)
    errors = [greatest_error(a, b) for a, b in zip(full, cast, strict=True)]
    record_property("max_abs_errors", errors)
    assert max(errors) < 1e-6


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("path", [AttentionPath.FLASH, AttentionPath.EFFICIENT], ids=lambda path: path.name)
def test_cuda_kernels_take_these_arguments(masked: bool, path: AttentionPath) -> None:
    """PyTorch's own operators on the device `meta`, which checks arguments and shapes but computes nothing."""
    dtype = torch.bfloat16 if path == AttentionPath.FLASH else torch.float32
    leaves = [x.to("meta", dtype).requires_grad_() for x in inputs()[:3]]
    mask = inputs()[3].to("meta") if masked else None
    output, mean_key, lse = attention._KERNELS[path](*leaves, mask)
    (output.sum() + mean_key.sum()).backward()
    assert output.shape == mean_key.shape == (2, 3, 70, 8)
    assert output.dtype == dtype
    assert lse.shape == (2, 3, 70)
    assert lse.dtype == torch.float32
    assert [x.grad.shape for x in leaves if x.grad is not None] == [x.shape for x in leaves]


@pytest.mark.parametrize(
    ("usable", "expected"),
    [
        ({"flash", "efficient"}, AttentionPath.FLASH),
        ({"efficient"}, AttentionPath.EFFICIENT),
        (set(), AttentionPath.PLAIN),
    ],
)
def test_a_gpu_uses_the_first_supported_kernel(
    usable: set[str], expected: AttentionPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch is asked about the sizes that the kernels get."""
    asked = {}

    def answer(name: str, parameters: torch.backends.cuda.SDPAParams) -> bool:
        asked[name] = (parameters.query.shape[-1], parameters.value.shape[-1])
        return name in usable

    for name in ("flash", "efficient"):
        monkeypatch.setattr(torch.backends.cuda, f"can_use_{name}_attention", partial(answer, name))
    with FakeTensorMode():  # tensors of a GPU without one
        assert attention._choose_path(torch.device("cuda"), torch.bfloat16, 64) == expected
    assert asked["flash"] == (128, 128)
    assert asked.get("efficient", (72, 128)) == (72, 128)


def test_the_path_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    attention.attention_path.cache_clear()
    q, k, v, _ = inputs(torch.float32)
    with caplog.at_level(logging.DEBUG, "evacap_cli"):
        entropy_attention(q, k, v)
        entropy_attention(q, k, v)
    assert caplog.messages == [
        "attention with entropy on cpu, float32, head size 8: aten::_scaled_dot_product_flash_attention_for_cpu"
    ]


def test_devices_without_the_operator_use_plain_operations() -> None:
    assert attention._choose_path(torch.device("mps"), torch.float32, 64) == AttentionPath.PLAIN


@every_path
def test_entropy_of_a_single_key_is_zero() -> None:
    q, k, v, _ = inputs(torch.float32)
    output, entropy = entropy_attention(q, k[:, :, :1], v[:, :, :1])
    assert entropy.abs().max() == 0
    assert torch.allclose(output, v[:, :, :1].expand_as(output))
    only = torch.zeros(2, 50, dtype=torch.bool)
    only[:, 7] = True
    assert entropy_attention(q, k, v, only)[1].abs().max() == 0


@every_path
@pytest.mark.parametrize("masked", [False, True])
def test_entropy_of_equal_scores_is_one(masked: bool, record_property: Record) -> None:
    q, k, v, mask = inputs(torch.float32)
    chosen = mask if masked else None
    zero = entropy_attention(torch.zeros_like(q), k, v, chosen)[1]
    same = entropy_attention(q, k[:, :, :1].expand_as(k), v, chosen)[1]
    error = max(greatest_error(zero, torch.ones_like(zero)), greatest_error(same, torch.ones_like(same)))
    record_property("max_abs_error", error)
    assert error < 1e-6


@every_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_entropy_of_one_hot_attention_is_zero(
    masked: bool, dtype: torch.dtype, record_property: Record
) -> None:
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


@every_path
def test_huge_scores_are_finite(record_property: Record) -> None:
    """Random directions, scores in the ten thousands: nearly every look is at one key."""
    q, k, v, mask = inputs(torch.float32)
    output, entropy, *gradients = value_and_gradient(entropy_attention, q * 1e4, k, v, mask)
    expected = plain_attention(q.double() * 1e4, k.double(), v.double(), mask)[1]
    error = greatest_error(entropy, expected)
    record_property("max_abs_error_of_entropy", error)
    assert all(torch.isfinite(x).all() for x in (output, *gradients))
    assert entropy.median() == 0
    assert error < 0.02


@every_path
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


@every_path
def test_padding_does_not_change_a_clip(record_property: Record) -> None:
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
def test_peak_memory_is_a_small_fraction_of_the_reference(record_property: Record) -> None:
    """Forward and backward at T_a 512, T_v 3528, 12 heads: what each form adds to a process of its own."""
    pytest.importorskip("resource")
    peak, root = {}, Path(__file__).parents[2]
    for form in ("entropy_attention", "plain_attention"):
        command = [sys.executable, "-c", PEAK.format(form=form)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
        peak[form] = float(done.stdout)
    record_property("extra_MiB", peak)
    assert 0 < peak["entropy_attention"] < peak["plain_attention"] / 4
