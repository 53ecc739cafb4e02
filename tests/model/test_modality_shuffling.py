"""Stochastic modality shuffling: how often, how evenly, and from which generator."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from evacap_cli.model.modality_shuffling import shuffle_partners


def draws(count: int, batch: int, probability: float, seed: int = 0, per_batch: bool = False) -> Tensor:
    """(count, batch)"""
    g = torch.Generator().manual_seed(seed)
    return torch.stack([shuffle_partners(batch, probability, g, per_batch) for _ in range(count)])


def test_probability_zero_changes_nothing_and_draws_no_numbers() -> None:
    g = torch.Generator().manual_seed(0)
    before = g.get_state()
    assert torch.equal(shuffle_partners(8, 0.0, g), torch.arange(8))
    assert torch.equal(g.get_state(), before)


@pytest.mark.parametrize("per_batch", [False, True])
def test_probability_one_is_a_permutation(per_batch: bool) -> None:
    for partners in draws(50, 9, 1.0, per_batch=per_batch):
        assert partners.dtype == torch.int64
        assert sorted(partners.tolist()) == list(range(9))


@pytest.mark.parametrize("per_batch", [False, True])
def test_all_permutations_are_equally_likely(per_batch: bool) -> None:
    """Chi-square over the 24 permutations of four clips; 23 degrees of freedom exceed 60 once in 40,000 trials."""
    count = 6000
    seen = Counter(map(tuple, draws(count, 4, 1.0, per_batch=per_batch).tolist()))
    assert len(seen) == 24
    expected = count / 24
    assert sum((n - expected) ** 2 / expected for n in seen.values()) < 60


def test_the_fraction_matches_the_paper() -> None:
    """At 0.05, one clip in twenty gets a place in the permutation, which is its own once in a batch's size."""
    batch = 32
    partners = draws(4000, batch, 0.05)
    moved = partners != torch.arange(batch)
    assert moved.float().mean().item() == pytest.approx(0.05 * (1 - 1 / batch), abs=0.003)
    # whichever clip it is, and whoever gives
    assert moved.float().mean(dim=0).min() > 0.03
    assert moved.float().mean(dim=0).max() < 0.07
    givers = torch.bincount(partners[moved], minlength=batch)
    assert givers.min() > 0.6 * givers.float().mean()
    assert givers.max() < 1.4 * givers.float().mean()


def test_samples_are_chosen_independently() -> None:
    """Per sample the number moved in a batch spreads; per batch it is nearly none or nearly all."""
    single, whole = (
        (draws(2000, 16, 0.3, per_batch=b) != torch.arange(16)).sum(dim=1) for b in (False, True)
    )
    assert ((single > 0) & (single < 10)).float().mean() > 0.9
    assert ((whole == 0) | (whole >= 10)).float().mean() > 0.99
    assert (whole > 0).float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_the_generator_determines_the_result() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(draws(20, 16, 0.5, seed=7), draws(20, 16, 0.5, seed=7))
    assert not torch.equal(draws(20, 16, 0.5, seed=7), draws(20, 16, 0.5, seed=8))
    assert torch.equal(torch.get_rng_state(), before)  # the global generator is left alone


def test_a_batch_of_one_keeps_its_picture() -> None:
    assert shuffle_partners(1, 1.0).tolist() == [0]
