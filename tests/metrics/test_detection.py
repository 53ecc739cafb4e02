"""AUROC intervals and calibration of what detects changed clips."""

from __future__ import annotations

import numpy as np
import pytest

from evacap_cli.metrics.detection import auroc_interval, reliability
from evacap_cli.metrics.mixture_scores import auroc


def test_interval_contains_the_auroc_and_narrows_with_more_clips() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for clips in (40, 1000):
        own = rng.normal(1.0, 1.0, clips)
        changed = [rng.normal(0.0, 1.0, clips) for _ in range(2)]
        low, high = auroc_interval(own, changed)
        assert low < np.mean([auroc(own, each) for each in changed]) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_intervals_of_separable_and_uninformative_numbers() -> None:
    ones, zeros = np.ones(20), np.zeros(20)
    assert auroc_interval(ones, [zeros]) == (1.0, 1.0)
    assert auroc_interval(ones, [ones]) == (0.5, 0.5)
    assert np.isnan(auroc_interval(ones, [np.full(20, np.nan)])).all()


@pytest.mark.slow
def test_reliability_of_a_calibrated_probability_is_the_diagonal() -> None:
    rng = np.random.default_rng(1)
    predicted = rng.uniform(0, 1, 20_000)
    changed = rng.uniform(0, 1, 20_000) < predicted
    own = np.where(changed, np.nan, predicted)
    replaced = np.where(changed, predicted, np.nan)
    bins = reliability(own, [replaced])
    assert len(bins) == 8
    for mean, share, low, high in bins:
        assert share == pytest.approx(mean, abs=0.03)
        assert low < share < high
        assert high - low < 0.1


def test_reliability_weights_both_classes_equally() -> None:
    own = np.array([0.1, 0.1, 0.1, 0.9])
    changed = [np.array([0.1, 0.9, 0.9, 0.9])] * 3
    bins = reliability(own, changed, bins=2)
    assert [round(mean, 6) for mean, *_ in bins] == [0.1, 0.9]
    assert [round(share, 6) for _, share, *_ in bins] == [0.25, 0.75]


def test_reliability_needs_both_classes() -> None:
    assert reliability(np.ones(3), [np.full(3, np.nan)]) == []
