"""Bootstrap confidence intervals of corpus metrics and of the difference between two systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evacap_cli.metrics.statistics import Array, Statistic

DRAWS, LEVEL = 1000, 0.95
_BLOCK = 4_000_000  # drawn clips in memory at once


@dataclass(frozen=True)
class Difference:
    """The value of one system minus the value of another on the same clips. `p` is the two-sided bootstrap p-value."""

    value: float
    low: float
    high: float
    p: float


def intervals(
    statistics: Mapping[str, Statistic], draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of each metric over `draws` bootstrap samples of the clips; `level` is the coverage.

    Corpus metrics are recomputed for every sample. CIDEr keeps the document frequencies of all clips.
    """
    (drawn,) = _draw([statistics], draws, seed)
    return {name: _interval(values, level) for name, values in drawn.items()}


def draw(statistics: Mapping[str, Statistic], draws: int = DRAWS, seed: int = 0) -> dict[str, Array]:
    """The values of each metric over bootstrap samples of the clips, (draws,). The same clips are drawn for every
    system with as many clips, so that differences of such values are paired."""
    return _draw([statistics], draws, seed)[0]


def compare(
    ours: Mapping[str, Statistic],
    other: Mapping[str, Statistic],
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, Difference]:
    """Paired bootstrap of the metrics that both systems have: every sample scores both systems on the same clips.

    The rows of both systems must describe the same clips in the same order.
    """
    names = [name for name in ours if name in other]
    mine, theirs = _draw([{n: side[n] for n in names} for side in (ours, other)], draws, seed)
    result = {}
    for name in names:
        differences = mine[name] - theirs[name]
        below, above = np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0)
        p = min(1.0, 2 * (min(below, above) + 1) / (draws + 1))
        whole = [
            float(side[name].value(side[name].rows.sum(axis=0, keepdims=True))[0]) for side in (ours, other)
        ]
        result[name] = Difference(whole[0] - whole[1], *_interval(differences, level), p)
    return result


def _interval(values: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _draw(systems: Sequence[Mapping[str, Statistic]], draws: int, seed: int) -> list[dict[str, Array]]:
    """The values of each system, (draws,) per metric. All systems share the drawn clips."""
    counts = {len(statistic.rows) for system in systems for statistic in system.values()}
    if len(counts) > 1:
        raise ValueError(f"metrics have different numbers of clips: {sorted(counts)}")
    found: list[dict[str, list[Array]]] = [{name: [] for name in system} for system in systems]
    clips = counts.pop() if counts else 0
    random = np.random.default_rng(seed)
    step = max(1, _BLOCK // max(clips, 1))
    for begin in range(0, draws if clips else 0, step):
        size = min(step, draws - begin)
        drawn = random.integers(clips, size=(size, clips)) + clips * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * clips).reshape(size, clips).astype(np.float64)
        sums: dict[int, Array] = {}  # BLEU_1 to BLEU_4 share their rows
        for system, values in zip(systems, found, strict=True):
            for name, statistic in system.items():
                if id(statistic.rows) not in sums:
                    sums[id(statistic.rows)] = times @ statistic.rows
                values[name].append(statistic.value(sums[id(statistic.rows)]))
    return [{name: np.concatenate(parts) for name, parts in values.items()} for values in found]
