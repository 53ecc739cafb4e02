"""Estimates the probability that a clip's picture does not match its sound, from the model's gate and entropy.

A calibration is a logistic regression in a checkpoint's metadata. It names its inputs, so that a fusion with more than
gate and entropy needs a calibration with more inputs, but no other code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from evacap_cli.errors import EvacapError
from evacap_cli.tasks.pairing import donor_cycle

if TYPE_CHECKING:
    from evacap_cli.model import Checkpoint

Array = npt.NDArray[np.float64]
KEY = "mismatch"  # in the metadata
RIDGE = 1.0  # penalty on the weights of standardized inputs, which may be collinear
FOLDS, BINS, DRAWS, QUANTILES = 10, 5, 1000, (0.025, 0.975)
MAX_STEPS, TOLERANCE = 100, 1e-10


@dataclass(frozen=True)
class Calibration:
    """P(mismatch) = 1 / (1 + exp(-(bias + sum of weights x inputs))), for equal priors."""

    inputs: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float

    def probability(self, numbers: Mapping[str, float | None]) -> float | None:
        """Returns the probability of a mismatch; None if an input is missing."""
        total = self.bias
        for name, weight in zip(self.inputs, self.weights, strict=True):
            value = numbers.get(name)
            if value is None or not math.isfinite(value):
                return None
            total += weight * value
        return float(_sigmoid(total))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Calibration | None:
        """Returns the calibration of a checkpoint; None if it has none. Raises EvacapError if it is damaged."""
        saved = checkpoint.metadata.get(KEY)
        if saved is None:
            return None
        try:
            inputs = tuple(map(str, saved["inputs"]))
            weights, bias = tuple(map(float, saved["weights"])), float(saved["bias"])
            if len(inputs) != len(weights) or not np.isfinite([*weights, bias]).all():
                raise ValueError("it needs one finite weight per input")
        except (KeyError, TypeError, ValueError) as error:
            raise EvacapError(
                f"{checkpoint.path}: its metadata.{KEY} is damaged ({type(error).__name__}: {error})",
                "make it again with `evacap weights calibrate`",
            ) from error
        return cls(inputs, weights, bias)


def probability(
    checkpoint: Checkpoint, gate: float | None, entropy: float | None, **further: float | None
) -> float | None:
    """Returns the probability that picture and sound do not match, from a clip's mean gate and entropy.

    None for models without a calibration, and for clips without a picture, whose gate is 0.
    """
    calibration = Calibration.of(checkpoint)
    if calibration is None or not gate:
        return None
    return calibration.probability({"gate": gate, "entropy": entropy, **further})


@dataclass(frozen=True)
class FittedCalibration:
    """A calibration and its cross-validated quality.

    auroc: probability that a mismatched pair scores higher than a matched one. interval: 95 % bootstrap interval over
    clips. brier: mean squared error; a constant 0.5 gives 0.25. reliability: (mean probability, share of mismatched
    pairs) of each fifth. clips, pairs: number of matched and mismatched pairs.
    """

    calibration: Calibration
    auroc: float
    interval: tuple[float, float]
    brier: float
    reliability: list[tuple[float, float]] = field(default_factory=list)
    clips: int = 0
    pairs: int = 0

    @property
    def method(self) -> str:
        return (
            f"logistic regression (ridge {RIDGE:g} on standardised inputs, both kinds counted alike); "
            f"{FOLDS}-fold cross-validation by clip"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the entry of a checkpoint's metadata."""
        values = asdict(self.calibration)
        return {
            "method": self.method,
            "inputs": list(values["inputs"]),
            "weights": list(values["weights"]),
            "bias": values["bias"],
            "prior": 0.5,
            "auroc": round(self.auroc, 4),
            "auroc_interval": [round(end, 4) for end in self.interval],
            "brier": round(self.brier, 4),
            "reliability": [[round(mean, 4), round(share, 4)] for mean, share in self.reliability],
            "clips": self.clips,
            "pairs": self.pairs,
        }


def fit(
    matched: Array, mismatched: Array, inputs: Sequence[str] = ("gate", "entropy"), seed: int = 0
) -> FittedCalibration:
    """Fits a calibration to N sounds with their own pictures and with those of others.

    matched: (N, K), the K inputs of each clip. mismatched: (P, N, K), of the same sounds with P other pictures each.
    Rows with NaN are left out. Folds and bootstrap draws are by clip, so that no sound is both fitted and scored; folds
    are contiguous in `donor_cycle`, where donors are close to their clips. `seed`: of the draws. Raises ValueError if
    either kind has fewer than `FOLDS` rows.
    """
    count, width = matched.shape
    values = np.concatenate([matched[None], mismatched]).reshape(-1, width).astype(np.float64)
    clip = np.tile(np.arange(count), 1 + len(mismatched))
    wrong = np.repeat([0.0, 1.0], [count, count * len(mismatched)])
    finite = np.isfinite(values).all(axis=1)
    values, clip, wrong = values[finite], clip[finite], wrong[finite]
    sizes = np.array([(wrong == kind).sum() for kind in (0, 1)])
    if sizes.min() < FOLDS:
        raise ValueError(f"too few pairs: {sizes[0]} matched and {sizes[1]} mismatched")
    counts = (0.5 / sizes * len(wrong))[wrong.astype(int)]  # equal total weight of both kinds

    position = np.empty(count, np.int64)
    position[donor_cycle(count)] = np.arange(count)
    fold = (position * FOLDS // count)[clip]
    predicted = np.empty(len(wrong))
    for held_out in range(FOLDS):
        rest = fold != held_out
        weights, bias = _regress(values[rest], wrong[rest], counts[rest])
        predicted[~rest] = _sigmoid(values[~rest] @ weights + bias)

    weights, bias = _regress(values, wrong, counts)
    rank = _Ranking(predicted, wrong)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    drawn = [rank.auroc(counts * times[clip]) for times in draws]
    low, high = np.nanquantile(drawn, QUANTILES)
    return FittedCalibration(
        Calibration(tuple(inputs), tuple(map(float, weights)), float(bias)),
        rank.auroc(counts),
        (float(low), float(high)),
        float(np.average((predicted - wrong) ** 2, weights=counts)),
        _reliability(predicted, wrong, counts),
        int(sizes[0]),
        int(sizes[1]),
    )


def _sigmoid(x: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * x))  # never overflows


def _regress(values: Array, wrong: Array, counts: Array) -> tuple[Array, float]:
    """Fits a logistic regression on standardized inputs by Newton's method. Returns weights (K,) and bias for the
    original inputs."""
    mean = np.average(values, axis=0, weights=counts)
    scale = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=counts))
    scale[scale < 1e-12] = 1.0
    x = np.column_stack([np.ones(len(values)), (values - mean) / scale])
    ridge = np.diag([0.0, *[RIDGE] * values.shape[1]])

    def loss(w: Array) -> float:
        z = x @ w
        return float(counts @ (np.logaddexp(0, z) - wrong * z) + w @ ridge @ w / 2)

    w = np.zeros(x.shape[1])
    for _ in range(MAX_STEPS):
        p = _sigmoid(x @ w)
        slope = x.T @ (counts * (p - wrong)) + ridge @ w
        step = np.linalg.solve((x.T * (counts * np.maximum(p * (1 - p), 1e-12))) @ x + ridge, slope)
        now = loss(w)
        while loss(w - step) > now and np.abs(step).max() > TOLERANCE:
            step /= 2
        w = w - step
        if np.abs(step).max() <= TOLERANCE:
            break
    weights = w[1:] / scale
    return weights, float(w[0] - weights @ mean)


class _Ranking:
    """Predictions sorted once, to compute the AUROC for many weightings."""

    def __init__(self, predicted: Array, wrong: Array) -> None:
        levels, self.level = np.unique(predicted, return_inverse=True)
        self.levels, self.wrong = len(levels), wrong.astype(bool)

    def auroc(self, counts: Array) -> float:
        """Returns the weighted AUROC; NaN if a draw has only one kind."""
        low, high = (
            np.bincount(self.level[kind], counts[kind], self.levels) for kind in (~self.wrong, self.wrong)
        )
        total = low.sum() * high.sum()
        return float(high @ (np.cumsum(low) - low / 2) / total) if total else math.nan


def _reliability(predicted: Array, wrong: Array, counts: Array) -> list[tuple[float, float]]:
    parts = np.array_split(np.argsort(predicted, kind="stable"), BINS)
    return [
        (float(np.average(predicted[p], weights=counts[p])), float(np.average(wrong[p], weights=counts[p])))
        for p in parts
    ]
