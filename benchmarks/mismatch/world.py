"""The clip sets of the benchmark and their labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pretraining import Labels
from scenes import Kinds, Recordings, Scene, make_sample, world_of

from evacap_cli.data.store import Store, write_store
from evacap_cli.features import FeatureSettings
from evacap_cli.world import World

LICENSES = ("CC0", "CC-BY")


@dataclass(frozen=True)
class ClipSet:
    """folds: of the recordings. kinds: weights of matched, off-screen, dubbed and distractor clips."""

    clips: int
    seed: int
    folds: tuple[int, ...]
    kinds: Kinds


SETS = {
    "train": ClipSet(14_000, 1101, (1, 2, 3), (0.70, 0.15, 0.0, 0.15)),
    "val": ClipSet(800, 1202, (4,), (0.50, 0.25, 0.05, 0.20)),
    "test": ClipSet(1000, 1303, (4,), (0.50, 0.25, 0.05, 0.20)),
}
"""All settings are chosen on `val`; `test` is used once."""


def world(name: str, recordings: Path) -> World:
    chosen = SETS[name]
    return world_of(chosen.seed, Recordings(str(recordings), chosen.folds, LICENSES), chosen.kinds)


def render(
    name: str, work: Path, recordings: Path, settings: FeatureSettings, workers: int, clips: int | None
) -> Store:
    """Opens the set's store in `work`; creates or completes it if necessary. clips: number of clips, for trial runs."""
    chosen, started = SETS[name], time.monotonic()
    count = min(chosen.clips, clips) if clips else chosen.clips

    def progress(done: int, total: int) -> None:
        if done % 2000 == 0 or done == total:
            print(f"{name}: {done}/{total} clips, {time.monotonic() - started:.0f} s", flush=True)

    given = Recordings(str(recordings), chosen.folds, LICENSES)
    write_store(
        work / name,
        [Scene(number, chosen.seed) for number in range(count)],
        partial(make_sample, settings=settings, recordings=given, kinds=chosen.kinds),
        settings,
        frames_format="raw",
        made_with={"seed": chosen.seed, "folds": list(chosen.folds), "kinds": list(chosen.kinds)},
        workers=workers,
        progress=progress,
    )
    return Store(work / name)


def labels_of(store: Store, sounds: Sequence[str], things: Sequence[str]) -> Labels:
    """Multi-hot labels of audible sounds and visible objects."""
    truths = [store.extra(i) for i in range(len(store))]

    def table(key: str, names: list[str]) -> np.ndarray:
        rows = np.zeros((len(store), len(names)), np.float32)
        for row, truth in zip(rows, truths, strict=True):
            row[[names.index(label) for label in truth[key]]] = 1
        return rows

    together = np.array([truth["kind"] != "dubbed" for truth in truths])
    return Labels(table("sounds", list(sounds)), table("things", list(things)), together)
