"""Mismatch detection: AUROC with intervals for each score, and the reliability of probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scores import DRAWS, QUANTILES, Captions, Scored

from evacap_cli.data.store import Store
from evacap_cli.world import World

BINS = 10
OFF_SCREEN = 0.15
Number = Callable[[Captions, str], np.ndarray]


def number(name: str, cue: int | None = None, sign: float = 1.0) -> Number:
    """A score that is higher for matching pairs."""

    def read(said: Captions, condition: str) -> np.ndarray:
        values = np.array(said[condition][name], np.float64)
        return sign * (values if cue is None else values[:, cue])

    return read


def auroc(scored: Scored, arm: str, read: Number, own: np.ndarray, against: str,
          wrong: np.ndarray | None = None) -> tuple[float, float, float]:  # fmt: skip
    """AUROC of the clips `own` with their own pictures against the condition `against`: the mean over seeds and the
    95 % bootstrap interval over clips and seeds. wrong: indices into `against`; None for all."""
    matrices = []
    for seed in scored.seeds:
        said = scored.said[arm, seed]
        high, low = read(said, "own")[own], read(said, against)
        low = low if wrong is None else low[wrong]
        matrices.append((high[:, None] > low).astype(np.float32) + 0.5 * (high[:, None] == low))
    rng, (n, m) = np.random.default_rng(0), matrices[0].shape
    drawn = []
    for _ in range(DRAWS // 4):  # the matrices are large
        a, b = (rng.multinomial(k, np.full(k, 1 / k)).astype(np.float32) / k for k in (n, m))
        drawn.append(np.mean([a @ matrices[s] @ b for s in rng.integers(len(matrices), size=len(matrices))]))
    low_end, high_end = np.quantile(drawn, QUANTILES)
    return float(np.mean([x.mean() for x in matrices])), float(low_end), float(high_end)


def with_off_screen(store: Store, world: World, share: float = OFF_SCREEN) -> np.ndarray:
    """Clips of which a share `share` has off-screen sources: all matched and distractor clips, and some off-screen."""
    kinds = [store.extra(i)["kind"] for i in range(len(store))]
    chosen = [i for i, kind in enumerate(kinds) if kind in ("matched", "distractor")]
    sources, hidden = sum(len(world.script(i).sounds) for i in chosen), 0
    for i in (i for i, kind in enumerate(kinds) if kind == "off-screen"):
        if hidden >= share * sources:
            break
        sounds = world.script(i).sounds
        chosen.append(i)
        sources, hidden = sources + len(sounds), hidden + sum(not sound.visible for sound in sounds)
    return np.array(chosen)


def reliability(scored: Scored, arm: str, own: np.ndarray, against: str = "any") -> dict[str, object]:
    """Brier score, and the observed frequency by tenths of the prediction. Both classes have equal weight."""
    said, true = [], []
    for seed in scored.seeds:
        told = scored.said[arm, seed]
        for values, fits in (
            (np.array(told["own"]["evidence"])[own], 1.0),
            (np.array(told[against]["evidence"]), 0.0),
        ):
            said.append(values)
            true.append(np.full(len(values), fits))
    p, y = np.concatenate(said), np.concatenate(true)
    weights = np.where(y == 1, 0.5 / y.sum(), 0.5 / (1 - y).sum())
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    curve = [
        [
            float(np.average(p[at], weights=weights[at])),
            float(np.average(y[at], weights=weights[at])),
            int(at.sum()),
        ]
        for at in (place == b for b in range(BINS))
        if at.any()
    ]
    return {"brier": float(np.average((p - y) ** 2, weights=weights)), "curve": curve}
