from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from evacap_cli.model import word_losses
from evacap_cli.model.chunked import chunked_sum
from evacap_cli.model.losses import Objective, semantic_consistency, smoothed_cross_entropy

from .samples import random_model
from .test_captioner import PARTNERS, batch_of


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def test_parts_equal_the_sum_and_its_gradients() -> None:
    hidden, other, weight, frozen = leaves((11, 4), (11, 4), (9, 4), (9,))
    frozen.requires_grad_(False)
    target = torch.randint(9, (11,))

    def loss(hidden: Tensor, other: Tensor, target: Tensor) -> Tensor:
        logits, others = linear(hidden, weight, frozen), linear(other, weight, frozen)
        consistency = semantic_consistency(logits, others)
        return (smoothed_cross_entropy(logits, target) + consistency) * len(target)

    inputs, parameters = (hidden, other, target), (weight, frozen)
    found, grads = {}, {}
    for rows in (11, 4, 1):
        found[rows] = chunked_sum(loss, inputs, parameters, rows) / 3
        grads[rows] = torch.autograd.grad(found[rows], (hidden, other, weight))
        torch.testing.assert_close(found[rows], found[11])
        torch.testing.assert_close(grads[rows], grads[11], rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(chunked_sum(loss, inputs, parameters, 4) / 3, found[11].detach())


def test_only_one_part_is_in_memory() -> None:
    """Of 64 rows of 1,000 logits, the graph keeps the gradients of the states and of the weight."""
    hidden, weight = leaves((64, 4), (1000, 4))
    total = chunked_sum(lambda x: linear(x, weight).log_softmax(-1).sum(), (hidden,), (weight,), 8)
    assert total.grad_fn is not None
    assert [x.shape for x in total.grad_fn.saved_tensors] == [hidden.shape, weight.shape]
    assert not any(before is not None and before.next_functions for before, _ in total.grad_fn.next_functions)


def test_small_gradients_do_not_vanish_in_half_precision() -> None:
    x = torch.ones(3, requires_grad=True)
    chunked_sum(lambda x: (x.half().float() * 1e-8).sum(), (x,), (), 1).backward()
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([1e-8] * 3, rel=0.05)


@pytest.mark.parametrize("fusion", ["entropy-gate", "evidence", "adaptive"])
def test_losses_of_a_model_do_not_depend_on_the_parts(fusion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(fusion, 9).double().train()
    data = {name: x.double() if x.is_floating_point() else x for name, x in batch_of().items()}
    objective = Objective(0.1, 0.5, 0.5)
    runs: list[tuple[Tensor, ...]] = []
    for most in (word_losses.MAX_LOGITS, 3 * model.config.decoder.vocab_size):
        monkeypatch.setattr(word_losses, "MAX_LOGITS", most)
        calls = count_calls(monkeypatch, "smoothed_cross_entropy")
        torch.manual_seed(0)
        result = model(**data, partners=PARTNERS, objective=objective)
        trained = [p for p in model.parameters() if p.requires_grad]
        grads = torch.autograd.grad(result["loss"], trained, allow_unused=True)
        runs.append((result["caption"], result["consistency"], *(g for g in grads if g is not None)))
        assert (len(calls) > 2) == (len(runs) == 2)
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-5, atol=1e-6)


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    calls: list[int] = []
    function: Callable[..., Tensor] = getattr(word_losses, name)

    def counted(logits: Tensor, *rest: object) -> Tensor:
        calls.append(len(logits))
        return function(logits, *rest)

    monkeypatch.setattr(word_losses, name, counted)
    return calls
