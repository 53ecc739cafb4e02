"""The training objective against textbook forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from evacap_cli.model.losses import gate_stability, semantic_consistency, smoothed_cross_entropy

from .samples import greatest_error

Record = Callable[[str, object], None]


def logits_of(seed: int = 0, scale: float = 3.0) -> Tensor:
    return torch.randn(40, 23, generator=torch.Generator().manual_seed(seed)) * scale


TARGET = torch.arange(40) % 23


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_loss_equals_the_divergence_from_the_smoothed_target(
    smoothing: float, record_property: Record
) -> None:
    """Value and gradient of torch's own Kullback-Leibler loss: 1 - s at the word, s / (V - 1) elsewhere."""
    ours, theirs = (logits_of().requires_grad_() for _ in range(2))
    smooth = torch.full((40, 23), smoothing / 22).scatter(1, TARGET[:, None], 1 - smoothing)
    loss = smoothed_cross_entropy(ours, TARGET, smoothing)
    expected = nn.KLDivLoss(reduction="batchmean")(theirs.log_softmax(-1), smooth)
    loss.backward()
    expected.backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    errors = (greatest_error(loss, expected), greatest_error(ours.grad, theirs.grad))
    record_property("max_abs_errors", errors)
    assert max(errors) < 2e-6


def test_without_smoothing_the_loss_is_cross_entropy() -> None:
    expected = nn.functional.cross_entropy(logits_of(), TARGET)
    assert smoothed_cross_entropy(logits_of(), TARGET, 0.0).item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_perfect_prediction_has_zero_loss() -> None:
    smooth = torch.full((40, 23), 0.1 / 22).scatter(1, TARGET[:, None], 0.9)
    assert smoothed_cross_entropy(smooth.log(), TARGET, 0.1).abs().item() < 1e-6
    assert smoothed_cross_entropy(smooth.log() + 5, TARGET, 0.1).abs().item() < 1e-5
    assert smoothed_cross_entropy(logits_of(), TARGET, 0.1).item() > 0.1


def test_half_precision_logits_are_summed_in_fp32() -> None:
    loss = smoothed_cross_entropy(logits_of().half(), TARGET)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(smoothed_cross_entropy(logits_of(), TARGET).item(), abs=1e-2)
    assert semantic_consistency(logits_of().half(), logits_of(1).half()).dtype == torch.float32


def test_gate_stability_compares_neighbours_in_time_within_a_row() -> None:
    gate = torch.rand(5, 24, generator=torch.Generator().manual_seed(0))
    squares = []
    for clip in gate.tolist():
        for row in range(4):
            for column in range(5):
                squares.append((clip[row * 6 + column + 1] - clip[row * 6 + column]) ** 2)
    assert gate_stability(gate, (4, 6)).item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_gate_stability_is_zero_for_a_constant_gate() -> None:
    assert gate_stability(torch.full((3, 24), 0.3), (4, 6)).item() == 0
    rows = torch.arange(4.0).repeat_interleave(6)[None]  # frequency rows may differ
    assert gate_stability(rows, (4, 6)).item() == 0
    assert gate_stability(torch.arange(6.0)[None], (2, 3)).item() == 1


def test_consistency_is_the_symmetric_divergence(record_property: Record) -> None:
    """Half of KL(p | q) + KL(q | p), mean over words."""
    a, b = logits_of(0), logits_of(1)
    p, q = a.double().softmax(-1), b.double().softmax(-1)
    expected = ((p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)).mean() / 2
    error = greatest_error(semantic_consistency(a, b).double(), expected)
    record_property("max_abs_error", error)
    assert error < 1e-5
    assert torch.equal(semantic_consistency(a, b), semantic_consistency(b, a))


def test_consistency_is_zero_for_equal_words() -> None:
    a = logits_of().requires_grad_()
    loss = semantic_consistency(a, logits_of())
    loss.backward()
    assert loss.item() == 0
    assert a.grad is not None
    assert a.grad.abs().max() == 0
    assert (
        semantic_consistency(logits_of(), logits_of() + 4).abs().item() < 1e-5
    )  # only differences of logits count


def test_consistency_has_gradients_on_both_sides() -> None:
    a, b = logits_of(0).requires_grad_(), logits_of(1).requires_grad_()
    semantic_consistency(a, b).backward()
    for x in (a, b):
        assert x.grad is not None
        assert x.grad.abs().max() > 0
