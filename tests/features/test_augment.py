from __future__ import annotations

import pytest
import torch
import torchaudio

from evacap_cli.features import noise_and_roll, spec_augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def runs(masked: torch.Tensor) -> int:
    """How many stretches of True a (N,) bool tensor has."""
    return int((masked[1:] & ~masked[:-1]).sum()) + int(masked[0])


def test_one_band_and_one_time_mask_per_sample() -> None:
    masked = spec_augment(torch.ones(64, 300, 128), 48, 192, generator()) == 0
    bands, stretches = masked.all(dim=1), masked.all(dim=2)  # (64, 128), (64, 300)
    assert torch.equal(masked, bands.unsqueeze(1) | stretches.unsqueeze(2))
    assert all(runs(band) <= 1 for band in bands)
    assert all(runs(stretch) <= 1 for stretch in stretches)
    assert bands.sum(1).max() < 48
    assert stretches.sum(1).max() < 192
    assert len({tuple(band.tolist()) for band in bands}) > 50  # every sample has its own


def test_the_distribution_is_torchaudios() -> None:
    """How often each bin and each frame is masked, over many draws."""
    x = torch.ones(6000, 40, 16)
    ours = (spec_augment(x, 8, 20, generator()) == 0).float().mean(0)
    torch.manual_seed(0)
    theirs = torchaudio.functional.mask_along_axis_iid(x.unsqueeze(1), 8, 0.0, 3)
    theirs = torchaudio.functional.mask_along_axis_iid(theirs, 20, 0.0, 2)
    torch.testing.assert_close(ours, (theirs[:, 0] == 0).float().mean(0), atol=0.04, rtol=0)


def test_the_generator_determines_the_result() -> None:
    x = torch.randn(4, 100, 32, generator=generator(1))
    assert torch.equal(spec_augment(x, 8, 20, generator(7)), spec_augment(x, 8, 20, generator(7)))
    assert torch.equal(noise_and_roll(x, generator(7)), noise_and_roll(x, generator(7)))
    assert not torch.equal(noise_and_roll(x, generator(7)), noise_and_roll(x, generator(8)))


def test_masks_of_width_zero_change_nothing() -> None:
    x = torch.randn(2, 50, 16, generator=generator())
    assert torch.equal(spec_augment(x, 0, 0, generator()), x)


def test_limits_wider_than_the_fbank() -> None:
    assert spec_augment(torch.ones(8, 10, 4), 48, 192, generator()).shape == (8, 10, 4)


def test_masked_value() -> None:
    masked = spec_augment(torch.zeros(8, 100, 32), 16, 40, generator(), value=1.5)
    assert set(masked.unique().tolist()) == {0.0, 1.5}


def test_noise_is_small_positive_and_its_strength_is_per_sample() -> None:
    noise = noise_and_roll(torch.zeros(32, 50, 16), generator(), roll=0)
    assert noise.min() >= 0
    assert noise.max() <= 0.1
    strengths = noise.amax(dim=(1, 2))
    assert strengths.min() < 0.02
    assert strengths.max() > 0.08


def test_roll_in_time_only() -> None:
    x = torch.arange(20.0).view(1, 20, 1).expand(64, 20, 3) * 100
    rolled = noise_and_roll(x, generator()).div(100).round()
    shifts = rolled[:, 0, 0]
    for row, shift in zip(rolled, shifts, strict=True):
        assert torch.equal(row, torch.roll(x[0] / 100, -int(shift), 0))
    assert len(shifts.unique()) > 12


@pytest.mark.parametrize("roll", [1, 5])
def test_roll_limit(roll: int) -> None:
    x = torch.zeros(128, 40, 1)
    x[:, 20] = 100
    places = noise_and_roll(x, generator(), roll=roll).argmax(dim=1).flatten() - 20
    assert set(places.tolist()) == set(range(-roll, roll))


def test_the_dtype_is_kept() -> None:
    x = torch.zeros(2, 20, 4, dtype=torch.bfloat16)
    assert noise_and_roll(x, generator()).dtype == torch.bfloat16
    assert spec_augment(x, 2, 4, generator()).dtype == torch.bfloat16
