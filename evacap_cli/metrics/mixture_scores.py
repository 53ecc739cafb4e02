"""Metrics of mixed caption sets: some clips have the caption of set A, the others the caption of set B.

With fixed references, the contribution of a clip to a corpus metric depends only on its own caption. Scoring each set
once is therefore enough to compute the metrics of every mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evacap_cli.metrics.detection import Bin
from evacap_cli.metrics.statistics import Array, Statistic, mean_of
from evacap_cli.metrics.suite import Scores

DRAWS, QUANTILES = 1000, (0.025, 0.975)


@dataclass
class SweepPoint:
    """Metrics of a model at one share or level: the mean over seeds, its ratio to the value at share 0 (`kept`), and
    95 % bootstrap intervals of both over seeds and clips."""

    at: float
    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    kept_intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)
    by_seed: list[dict[str, float]] = field(default_factory=list)


@dataclass
class ModelSweep:
    """A model's sweep. followed: for pairs that do not belong together, the metrics of their captions against the
    sound's references and against the picture donor's. told_apart: AUROC of own against changed clips, of each number
    that the model gives. by_kind: of clips whose kind is known, what the gate does and the metrics are, by kind.
    seconds: of captioning and of scoring, all seeds. told_apart_intervals: 95 % intervals of `told_apart`. reliability:
    calibration of the mismatch probability, as `detection.reliability` returns it; empty without a calibration. clips:
    of every clip, its captions as it is and changed (by the first seed, at the last level), references and numbers, by
    column."""

    name: str
    preset: str
    points: list[SweepPoint]
    followed: dict[str, dict[str, float]]
    told_apart: dict[str, float]
    by_kind: dict[str, dict[str, float]]
    unavailable: dict[str, str]
    seconds: dict[str, float]
    clips: list[dict[str, str]] = field(default_factory=list)
    told_apart_intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    reliability: list[Bin] = field(default_factory=list)


def sweep_points(
    plain: Scores,
    changed: Sequence[Sequence[Scores]],
    places: Sequence[tuple[float, int, Sequence[np.ndarray]]],
) -> list[SweepPoint]:
    """Computes the metrics of each point. changed: scores of the changed clips, by seed and level. places: (at, level,
    bool (N,) masks of the changed clips by seed)."""
    clips, seeds = len(plain.clips), len(changed)
    times = (
        np.random.default_rng(0).multinomial(clips, np.full(clips, 1 / clips), size=DRAWS).astype(np.float64)
    )
    drawn_seeds = np.random.default_rng(1).integers(seeds, size=(DRAWS, seeds))

    def values(name: str, level: int, touched: Sequence[np.ndarray]) -> tuple[Array, Array]:
        """(S,) values by seed, and (DRAWS,) bootstrap means over seeds."""
        found, drawn = [], []
        own = plain.statistics[name]
        for row, hit in zip(changed, touched, strict=True):
            rows = np.where(hit[:, None], row[level].statistics[name].rows, own.rows)
            found.append(own.value(rows.sum(axis=0, keepdims=True))[0])
            drawn.append(own.value(times @ rows))
        by_draw = np.stack(drawn, axis=1)  # (DRAWS, S)
        return np.array(found), np.take_along_axis(by_draw, drawn_seeds, axis=1).mean(axis=1)

    names = [name for name in plain.statistics if all(name in s.statistics for row in changed for s in row)]
    nobody = [np.zeros(clips, bool)] * seeds
    whole = {name: values(name, 0, nobody) for name in names}
    points = []
    for at, level, touched in places:
        point = SweepPoint(at, by_seed=[{} for _ in range(seeds)])
        for name in names:
            by_seed, drawn = values(name, level, touched)
            point.values[name] = float(by_seed.mean())
            point.intervals[name] = _interval(drawn)
            start, start_drawn = whole[name]
            if start.mean() > 0:
                point.kept[name] = float(by_seed.mean() / start.mean())
                point.kept_intervals[name] = _interval(drawn / np.where(start_drawn > 0, start_drawn, np.nan))
            for seed, value in zip(point.by_seed, by_seed, strict=True):
                seed[name] = float(value)
        points.append(point)
    return points


def _interval(values: Array) -> tuple[float, float]:
    low, high = np.nanquantile(values, QUANTILES)
    return float(low), float(high)


def select_clips(whole: Scores, keys: Sequence[str], rows: slice | np.ndarray) -> Scores:
    """The scores of a subset of the clips, renamed to `keys`."""
    found = Scores(tuple(keys), unavailable=whole.unavailable, cures=whole.cures, tokenizer=whole.tokenizer)
    for name, statistic in whole.statistics.items():
        found.per_clip[name] = whole.per_clip[name][rows]
        mean = statistic.rows.shape[1] == 1
        found.statistics[name] = (
            mean_of(found.per_clip[name]) if mean else Statistic(statistic.rows[rows], statistic.value)
        )
        sums = found.statistics[name].rows.sum(axis=0, keepdims=True)
        found.values[name] = float(found.statistics[name].value(sums)[0])
    return found


def mean_values(scores: Sequence[Scores]) -> dict[str, float]:
    return {name: float(np.mean([s.values[name] for s in scores])) for name in scores[0].per_clip}


def share_following(heard: Sequence[Scores], seen: Sequence[Scores]) -> dict[str, float]:
    """The share of captions that score higher against the references of the picture donor than against those of the
    sound. Ties count as one half."""
    shares = {}
    for name in heard[0].per_clip:
        pairs = [(h.per_clip[name], s.per_clip[name]) for h, s in zip(heard, seen, strict=True)]
        shares[name] = float(np.mean([(s > h).mean() + (s == h).mean() / 2 for h, s in pairs]))
    return shares


def auroc(own: Array, changed: Array) -> float:
    """The probability that an unchanged clip has a higher value than a changed one; 0.5 is chance. Ignores NaN."""
    own, changed = own[np.isfinite(own)], np.sort(changed[np.isfinite(changed)])
    if not len(own) or not len(changed):
        return float("nan")
    below, upto = np.searchsorted(changed, own, "left"), np.searchsorted(changed, own, "right")
    return float((below + upto).mean() / 2 / len(changed))
