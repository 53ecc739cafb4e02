"""Who gets whose picture."""

from __future__ import annotations

import numpy as np
import pytest

from evacap_cli.errors import UsageError
from evacap_cli.tasks.pairing import Pairing, donor_cycle


@pytest.mark.parametrize(("clips", "seed"), [(2, 0), (3, 1), (7, 4), (100, 0), (100, 98)])
def test_the_pairing_is_a_derangement(clips: int, seed: int) -> None:
    pairing = Pairing.draw(clips, seed)
    assert (pairing.donor != np.arange(clips)).all()
    assert sorted(pairing.donor) == sorted(pairing.order) == list(range(clips))


def test_seeds_give_every_clip_other_donors() -> None:
    donors = np.stack([Pairing.draw(20, seed).donor for seed in range(19)])
    assert all(len(set(column)) == 19 for column in donors.T)


def test_the_donor_is_one_stride_away() -> None:
    walk = donor_cycle(50)
    for seed in (0, 3):
        pairing = Pairing.draw(50, seed)
        assert (pairing.donor[walk] == np.roll(walk, -pairing.stride)).all()


def test_shuffled_clips_stay_shuffled_at_higher_fractions() -> None:
    pairing = Pairing.draw(40, 1)
    few, more = pairing.touched(0.05), pairing.touched(0.5)
    assert few.sum() == 2
    assert more.sum() == 20
    assert (more | ~few).all()
    assert not pairing.touched(0).any()
    assert pairing.touched(1).all()


def test_a_seed_determines_the_pairing() -> None:
    first, same, other = (Pairing.draw(30, seed) for seed in (5, 5, 6))
    assert (first.donor == same.donor).all()
    assert (first.order == same.order).all()
    assert (first.donor != other.donor).any()


@pytest.mark.parametrize(("clips", "seed"), [(5, 4), (5, -1)])
def test_seed_out_of_range_is_refused(clips: int, seed: int) -> None:
    with pytest.raises(UsageError, match=r"5 clips allow the seeds 0 to 3"):
        Pairing.draw(clips, seed)


@pytest.mark.parametrize("clips", [0, 1])
def test_one_clip_has_no_donor(clips: int) -> None:
    with pytest.raises(UsageError, match="cannot be exchanged"):
        Pairing.draw(clips, 0)
