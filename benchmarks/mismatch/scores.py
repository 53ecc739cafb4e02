"""Scores the captions: metric statistics per clip for every arm, seed and condition."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import arms
import numpy as np
from naming import Naming, words_of

from evacap_cli.data.store import Store
from evacap_cli.metrics.mixture_scores import select_clips
from evacap_cli.metrics.statistics import Statistic
from evacap_cli.metrics.suite import Settings
from evacap_cli.tasks.evaluation import score
from evacap_cli.world import World

QUICK = ("BLEU_1", "BLEU_4", "ROUGE_L", "CIDEr")
ALL = ("BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE", "SPIDEr")
DRAWS, QUANTILES = 1000, (0.025, 0.975)
Captions = dict[str, dict[str, list]]
"""Captions and scores by condition, see `measure.py`."""


@dataclass
class Scored:
    """statistics: by (arm, seed, condition) and metric, with the clips of the condition in order."""

    said: dict[tuple[str, int], Captions]
    statistics: dict[tuple[str, int, str], dict[str, Statistic]] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for _, seed in self.said})

    def has(self, arm: str, condition: str, metric: str) -> bool:
        return all(metric in self.statistics.get((arm, seed, condition), {}) for seed in self.seeds)

    def drawn(self, arm: str, condition: str, metric: str, times: np.ndarray) -> np.ndarray:
        """The metric (S, R) by seed over bootstrap samples. times: (R, N), how often each clip is in each sample."""
        rows = [self.statistics[arm, seed, condition][metric] for seed in self.seeds]
        return np.stack([one.value(times @ one.rows) for one in rows])

    def mean(self, arm: str, condition: str, metric: str) -> tuple[float, float, float]:
        """The mean over seeds and its 95 % bootstrap interval over clips and seeds."""
        return self._told(lambda times: self.drawn(arm, condition, metric, times), arm, condition)

    def kept(self, arm: str, condition: str, of: str, where: str, metric: str) -> tuple[float, float, float]:
        """The ratio of an arm's metric to that of another arm (or condition), with the same bootstrap samples of clips
        and seeds for both."""
        return self._told(
            lambda times: (self.drawn(arm, condition, metric, times), self.drawn(of, where, metric, times)),
            arm,
            condition,
        )

    def _told(self, draw: Callable, arm: str, condition: str) -> tuple[float, float, float]:
        count = len(next(iter(self.statistics[arm, self.seeds[0], condition].values())).rows)
        rng, S = np.random.default_rng(0), len(self.seeds)
        whole = _ratio(draw(np.ones((1, count))), None)[0]
        drawn = _ratio(
            draw(rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(np.float64)),
            rng.integers(S, size=(DRAWS, S)),
        )
        low, high = np.quantile(drawn, QUANTILES)
        return float(whole), float(low), float(high)


def _ratio(values: np.ndarray | tuple[np.ndarray, np.ndarray], seeds: np.ndarray | None) -> np.ndarray:
    """Means (R,) over drawn seeds of values (S, R). For two arrays, the ratio of their means."""
    if isinstance(values, tuple):
        return _ratio(values[0], seeds) / _ratio(values[1], seeds)
    return values.mean(axis=0) if seeds is None else np.take_along_axis(values.T, seeds, axis=1).mean(axis=1)


def read(work: Path, name: str, seeds: Sequence[int]) -> Scored:
    """Reads the captions of all arms that were measured with all seeds on a set."""
    folder = work / "said" / name
    said = {}
    for arm in arms.ARMS:
        files = [folder / f"{arm}-{seed}.json" for seed in seeds]
        if all(file.exists() for file in files):
            said |= {
                (arm, seed): json.loads(file.read_text()) for seed, file in zip(seeds, files, strict=True)
            }
    return Scored(said)


def fitting(store: Store) -> np.ndarray:
    return np.flatnonzero([store.extra(i)["kind"] == "matched" for i in range(len(store))])


def add_scores(scored: Scored, store: Store, world: World, thorough: set[tuple[str, str]]) -> None:
    """Fills `statistics` for matched clips under every condition (including `own`), and for other kinds as `own, KIND`.
    thorough: (arm, condition) pairs with all metrics; the others get only the fast ones."""
    kinds = np.array([store.extra(i)["kind"] for i in range(len(store))])
    groups: dict[str, np.ndarray] = {kind: np.flatnonzero(kinds == kind) for kind in dict.fromkeys(kinds)}
    naming = Naming(world.catalogue)
    for kind, rows in groups.items():
        jobs: dict[tuple[str, ...], list[tuple[tuple[str, int, str], list[str]]]] = {QUICK: [], ALL: []}
        for (arm, seed), told in scored.said.items():
            for condition, one in told.items():
                if condition.split(",")[0] == "own":
                    captions, label = [one["captions"][row] for row in rows], condition
                    if kind != "matched":
                        label = f"{condition}, {kind}"
                elif kind == "matched":
                    captions, label = one["captions"], condition
                else:
                    continue
                metrics = ALL if (arm, label) in thorough else QUICK
                jobs[metrics].append(((arm, seed, label), captions))
        references = [store.captions(int(row)) for row in rows]
        for metrics, wanted in jobs.items():
            if not wanted:
                continue
            keys = [f"{row} {i}" for i in range(len(wanted)) for row in rows]
            texts = list(chain.from_iterable(captions for _, captions in wanted))
            whole = score(keys, texts, references * len(wanted), Settings(metrics=metrics), None, len(wanted))
            if whole.unavailable:
                raise RuntimeError(f"metrics are missing: {whole.unavailable}")
            for i, (key, captions) in enumerate(wanted):
                of = select_clips(
                    whole, [str(row) for row in rows], slice(i * len(rows), (i + 1) * len(rows))
                )
                scored.statistics[key] = of.statistics | named(captions, rows, store, world, naming)


def named(
    captions: Sequence[str], rows: np.ndarray, store: Store, world: World, naming: Naming
) -> dict[str, Statistic]:
    """recall: the share of audible sounds that are named. precision: the share of named sounds that are audible.
    source: the share of correct sources among visible sounds whose source can only be seen."""
    recall, precision, source = [], [], []
    for caption, row in zip(captions, map(int, rows), strict=True):
        truth = store.extra(row)["sounds"]
        claimed = naming.all_named(caption)
        told = [s for s in world.script(row).sounds if s.visible and naming.source.get(s.event)]
        recall.append((sum(naming.named(caption, sound) for sound in truth), len(truth)))
        precision.append((sum(sound in truth for sound in claimed), len(claimed)))
        source.append((sum(bool(naming.source[s.event] & words_of(caption)) for s in told), len(told)))
    tables = {"recall": recall, "precision": precision, "source": source}
    return {
        name: Statistic(np.array(table, np.float64), lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1))
        for name, table in tables.items()
    }
