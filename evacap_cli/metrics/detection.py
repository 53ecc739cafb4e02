"""How well a number of a clip detects that its picture or sound was replaced: AUROC interval and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evacap_cli.metrics.statistics import Array

DRAWS, QUANTILES, BINS = 1000, (0.025, 0.975), 8
Integers = npt.NDArray[np.integer]
Bin = tuple[float, float, float, float]
"""Mean probability, share of changed clips, and the 95 % interval of the share."""


def auroc_interval(own: Array, changed: Sequence[Array]) -> tuple[float, float]:
    """The 95 % bootstrap interval, over clips, of the AUROC of unchanged clips over changed ones.

    own: (N,). changed: (N,) for each seed. NaN values are ignored. (NaN, NaN) if either has no value.
    """
    values, clips, kind = _pooled(own, changed)
    levels, level = np.unique(values, return_inverse=True)
    found = []
    for times in _draws(len(own)):
        weights = times[clips]
        low, high = (np.bincount(level[kind == k], weights[kind == k], len(levels)) for k in (1, 0))
        pairs = low.sum() * high.sum()
        if pairs:
            found.append(float(high @ (np.cumsum(low) - low / 2)) / pairs)
    return _interval(found)


def reliability(own: Array, changed: Sequence[Array], bins: int = BINS) -> list[Bin]:
    """Calibration of a probability that a clip was changed, in bins of equal weight with increasing probability.

    own, changed: as in `auroc_interval`; both kinds have the same total weight. Returns (mean probability, share of
    changed clips, low, high) of each bin, where low and high are the 95 % bootstrap interval of the share over clips.
    """
    values, clips, kind = _pooled(own, changed)
    if not len(values) or kind.min() == kind.max():
        return []
    weight = np.where(kind == 1, 1 / (kind == 1).sum(), 1 / (kind == 0).sum())
    order = np.argsort(values, kind="stable")
    place = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    bin_of = np.empty(len(values), np.int64)
    bin_of[order] = np.minimum((place * bins).astype(np.int64), bins - 1)
    drawn: list[list[float]] = [[] for _ in range(bins)]
    for times in _draws(len(own)):
        counted = weight * times[clips]
        total = np.bincount(bin_of, counted, bins)
        hit = np.bincount(bin_of, counted * kind, bins)
        for i in range(bins):
            if total[i]:
                drawn[i].append(float(hit[i] / total[i]))
    found = []
    for i in range(bins):
        here = bin_of == i
        if here.any():
            share = float(np.average(kind[here], weights=weight[here]))
            low, high = _interval(drawn[i])
            found.append((float(np.average(values[here], weights=weight[here])), share, low, high))
    return found


def _pooled(own: Array, changed: Sequence[Array]) -> tuple[Array, Integers, Integers]:
    """Finite values of all clips, the clip of each, and its kind: 0 unchanged, 1 changed."""
    values = np.concatenate([own, *changed]).astype(np.float64)
    clips = np.tile(np.arange(len(own)), 1 + len(changed))
    kind = np.repeat([0, 1], [len(own), len(own) * len(changed)])
    finite = np.isfinite(values)
    return values[finite], clips[finite], kind[finite]


def _draws(clips: int) -> Integers:
    """How often each bootstrap draw contains each clip: (DRAWS, N)."""
    return np.random.default_rng(0).multinomial(clips, np.full(clips, 1 / clips), size=DRAWS)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return float("nan"), float("nan")
    low, high = np.quantile(values, QUANTILES)
    return float(low), float(high)
