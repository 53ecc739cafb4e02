"""Calibrations: against numbers whose truth is known, and a slow fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evacap_cli.errors import EvacapError
from evacap_cli.metrics.mixture_scores import auroc
from evacap_cli.model import Checkpoint, load_checkpoint
from evacap_cli.tasks.mismatch import FOLDS, RIDGE, Calibration, FittedCalibration, fit, probability


def drawn(clips: int, pairs: int = 1, distance: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two inputs: the first tells, by normal distributions of width 1 so far apart; the second does not."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (clips, 2)), rng.normal([distance, 0], 1, (pairs, clips, 2))


@pytest.mark.slow
def test_a_known_solution() -> None:
    """Two normal distributions: log odds are distance x - distance^2 / 2, AUROC is Phi(distance / sqrt 2)."""
    found = fit(*drawn(6000, 2))
    assert found.calibration.weights == pytest.approx((1.0, 0.0), abs=0.05)
    assert found.calibration.bias == pytest.approx(-0.5, abs=0.05)
    assert found.auroc == pytest.approx(0.7602, abs=0.01)
    assert found.interval[0] < 0.7602 < found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.03
    x = np.random.default_rng(9).normal(0, 1, 200_000)
    right = np.mean((1 / (1 + np.exp(0.5 - x))) ** 2), np.mean((1 / (1 + np.exp(0.5 + x))) ** 2)
    assert found.brier == pytest.approx(np.mean(right), abs=0.005)
    assert (found.clips, found.pairs) == (6000, 12_000)


@pytest.mark.slow
def test_the_probability_is_calibrated() -> None:
    found = fit(*drawn(5000, 3, distance=1.5))
    assert [predicted for predicted, _ in found.reliability] == sorted(
        predicted for predicted, _ in found.reliability
    )
    assert all(abs(predicted - was) < 0.03 for predicted, was in found.reliability)
    fresh = drawn(20_000, 1, distance=1.5, seed=5)
    values = np.concatenate([fresh[0], fresh[1][0]])
    wrong = np.repeat([0, 1], 20_000)
    predicted = np.array([found.calibration.probability({"gate": a, "entropy": b}) for a, b in values[::7]])
    for low in np.arange(0.1, 0.9, 0.1):
        inside = (predicted >= low) & (predicted < low + 0.1)
        assert wrong[::7][inside].mean() == pytest.approx(predicted[inside].mean(), abs=0.06)
    better = auroc(predicted[wrong[::7] == 1], predicted[wrong[::7] == 0])
    assert better == pytest.approx(found.auroc, abs=0.02)


def test_newton_finds_the_minimum() -> None:
    """At the minimum every step in any direction is up; inputs of odd scales, near twins of one another."""
    rng = np.random.default_rng(3)
    matched, mismatched = drawn(300)
    twin = np.concatenate([matched, mismatched[0]])
    values = np.column_stack([1e-3 * twin[:, 0] + 5, 100 * twin[:, 0] + rng.normal(0, 0.1, 600)])
    wrong = np.repeat([0.0, 1.0], 300)
    found = fit(values[:300], values[300:][None]).calibration
    mean, scale = values.mean(axis=0), values.std(axis=0)

    def loss(weights: np.ndarray, bias: float) -> float:
        z = values @ weights + bias
        own = weights * scale
        return float(np.sum(np.logaddexp(0, z) - wrong * z) + RIDGE * own @ own / 2)

    least = loss(np.array(found.weights), found.bias)
    for _ in range(100):
        step = rng.normal(0, 1e-2, 2) / scale
        assert loss(found.weights + step, found.bias - step @ mean + rng.normal(0, 1e-3)) > least


def test_uninformative_numbers() -> None:
    """On clips it was not fitted to, a calibration of noise is worth no more than noise."""
    found = fit(*drawn(400, 4, distance=0.0))
    assert found.interval[0] < 0.5 < found.interval[1]
    assert found.brier == pytest.approx(0.25, abs=0.01)


def test_separable_numbers() -> None:
    found = fit(*drawn(100, 1, distance=50.0))
    assert found.auroc == 1
    assert found.brier < 0.01
    assert np.isfinite(found.calibration.weights).all()


def test_cross_validation_excludes_the_clip() -> None:
    """Inputs that identify the clip: a memorised clip is predicted perfectly, other clips not at all."""
    rng = np.random.default_rng(0)
    matched, mismatched = rng.normal(0, 1, (30, 25)), rng.normal(0, 1, (1, 30, 25))
    found = fit(matched, mismatched, [f"x{i}" for i in range(25)])
    assert 0.3 < found.auroc < 0.7


def test_both_classes_have_equal_weight() -> None:
    matched, mismatched = drawn(500, 1)
    once, thrice = fit(matched, mismatched), fit(matched, np.repeat(mismatched, 3, axis=0))
    assert once.calibration.weights == pytest.approx(thrice.calibration.weights, rel=0.02)
    assert once.calibration.bias == pytest.approx(thrice.calibration.bias, abs=0.01)
    assert once.auroc == pytest.approx(thrice.auroc, abs=0.002)


def test_rows_without_numbers_are_left_out() -> None:
    matched, mismatched = drawn(200, 2)
    matched[::4] = np.nan
    mismatched[0, 5, 1] = np.nan
    found = fit(matched, mismatched)
    assert (found.clips, found.pairs) == (150, 399)
    with pytest.raises(ValueError, match="9 matched"):
        fit(np.where(np.arange(200)[:, None] < FOLDS - 1, 1.0, np.nan) * np.ones(2), mismatched)


def test_it_is_deterministic() -> None:
    assert fit(*drawn(100, 2)) == fit(*drawn(100, 2))
    assert fit(*drawn(100, 2), seed=1).interval != fit(*drawn(100, 2)).interval


@pytest.fixture(scope="module")
def plain() -> Checkpoint:
    checkpoint = load_checkpoint("entropy-demo")
    return replace(checkpoint, metadata={k: v for k, v in checkpoint.metadata.items() if k != "mismatch"})


def calibrated(plain: Checkpoint, found: FittedCalibration | dict[str, Any]) -> Checkpoint:
    saved = found.to_dict() if isinstance(found, FittedCalibration) else found
    return replace(plain, metadata={**plain.metadata, "mismatch": saved})


def test_a_probability_from_a_checkpoint(plain: Checkpoint) -> None:
    own = calibrated(plain, {"inputs": ["gate", "entropy"], "weights": [-2.0, 0.5], "bias": 0.1})
    for gate, entropy in ((0.3, 0.8), (0.9, 0.1)):
        z = 0.1 - 2 * gate + 0.5 * entropy
        assert probability(own, gate, entropy) == pytest.approx(1 / (1 + np.exp(-z)))
    by_gate = [probability(own, gate, 0.8) for gate in np.linspace(0.01, 1, 50)]
    assert by_gate == sorted(by_gate, reverse=True)
    assert 0 < min(by_gate) < max(by_gate) < 1
    extreme = calibrated(plain, {"inputs": ["gate"], "weights": [-1e6], "bias": 0.0})
    assert probability(extreme, 1.0, None) == 0  # and no warning of an overflow


@pytest.mark.slow
def test_no_probability_without_calibration_or_picture(plain: Checkpoint) -> None:
    own = calibrated(plain, fit(*drawn(100)))
    assert probability(own, 0.3, 0.8) is not None
    for gate, entropy in ((0.0, None), (0.0, 0.5), (None, None), (0.3, None), (0.3, float("nan"))):
        assert probability(own, gate, entropy) is None
    assert probability(plain, 0.3, 0.8) is None
    for name in ("avcap-demo", "audio-demo"):
        assert probability(load_checkpoint(name), None, None) is None
        assert probability(load_checkpoint(name), 0.3, 0.8) is None


def test_other_inputs(plain: Checkpoint) -> None:
    own = calibrated(plain, {"inputs": ["gate", "evidence"], "weights": [-1.0, 3.0], "bias": 0.0})
    assert probability(own, 0.5, None) is None
    assert probability(own, 0.5, None, evidence=0.5) == pytest.approx(1 / (1 + np.exp(-1.0)))


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        [],
        "0.6",
        {"inputs": ["gate"], "weights": [1.0, 2.0], "bias": 0},
        {"inputs": ["gate"], "weights": ["x"], "bias": 0},
        {"inputs": ["gate"], "weights": [1.0], "bias": None},
        {"inputs": ["gate"], "weights": [float("nan")], "bias": 0},
    ],
)
def test_a_damaged_calibration_names_its_checkpoint(damaged: Any, plain: Checkpoint) -> None:
    with pytest.raises(EvacapError, match=r"demo.*mismatch is damaged") as caught:
        Calibration.of(calibrated(plain, damaged))
    assert "calibrate" in caught.value.cure
