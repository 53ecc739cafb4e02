"""Compares measured numbers with those of the paper: values over seeds with intervals, changes, and whether both change
in the same direction."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evacap_cli.metrics.bootstrap import DRAWS
from evacap_cli.model import build_model, load_preset, parameter_counts
from evacap_cli.model.meta import without_weights
from evacap_cli.report.paper_results import (
    PARAMETERS,
    SECONDS,
    printed_ratio,
    printed_row,
    printed_shuffled,
    printed_trained,
)
from evacap_cli.tasks.reproducing.plan import ROWS, SHARES, SHUFFLED, SYSTEMS, TIMED, Scale

Array = npt.NDArray[np.float64]
NAN = math.nan
BASES = {"table1": "audio", "table2": "evacap-no-sms", "table4": "evacap"}
"""The row that the other rows are compared with."""
SAME, OPPOSITE, UNCLEAR, EQUAL, DIFFERS = "same", "opposite", "unclear", "equal", "differs"
DETECTORS = ("gate", "entropy", "evidence", "transport", "score")
"""Numbers that may detect a wrong picture."""


@dataclass(frozen=True)
class Comparison:
    """One number. at: the condition, such as a share of shuffled clips. low, high: its 95 % interval. base: the row
    that changes are computed from. NaN if there is no number. verdict: `same` or `opposite` direction, `unclear` if the
    interval of our change contains 0, `equal` or `differs` for counts, empty if the paper or the base has no number."""

    table: str
    system: str
    at: str
    metric: str
    paper: float
    ours: float
    low: float
    high: float
    seeds: int
    base: str = ""
    paper_change: float = NAN
    change: float = NAN
    change_low: float = NAN
    change_high: float = NAN
    verdict: str = ""


def verdict(paper_change: float, low: float, high: float) -> str:
    """low, high: the interval of our change. A change of 0 in the paper counts as a direction."""
    if math.isnan(paper_change) or math.isnan(low) or math.isnan(high):
        return ""
    if paper_change == 0:
        return SAME if low <= 0 <= high else OPPOSITE
    if low <= 0 <= high:
        return UNCLEAR
    return SAME if (low > 0) == (paper_change > 0) else OPPOSITE


def compare(table: str, scale: Scale, seeds: Sequence[int], steps: Path) -> list[Comparison]:
    """All numbers of a table whose steps are done. steps: the folder of the steps."""
    if table == "table3":
        return list(_shuffled(seeds, steps))
    if table == "figure2":
        return list(_timed(scale, json.loads((steps / "speed" / "speed.json").read_text("utf-8"))))
    found = list(_evaluated(table, seeds, steps))
    return [*_counted(), *found] if table == "table1" else found


def _counted() -> Iterator[Comparison]:
    """Parameters of the full-size presets, in millions. They need no training."""
    for key in ROWS["table1"]:
        with without_weights():
            count = (
                parameter_counts(build_model(load_preset(f"{SYSTEMS[key].method}-base").model))["total"] / 1e6
            )
        paper = PARAMETERS.get(key)
        same = (
            "" if paper is None else EQUAL if math.floor(count) == paper or round(count) == paper else DIFFERS
        )
        yield Comparison("table1", SYSTEMS[key].name, "", "parameters (full size), M",
                         NAN if paper is None else paper, count, NAN, NAN, 1, verdict=same)  # fmt: skip


def _evaluated(table: str, seeds: Sequence[int], steps: Path) -> Iterator[Comparison]:
    """Tables 1, 2 and 4. All systems have the same draws of clips, so changes are paired."""
    base = BASES[table]
    values = {key: [_values(steps / f"evaluate-{key}-{seed}") for seed in seeds] for key in ROWS[table]}
    printed = {key: _printed(table, key) for key in ROWS[table]}

    def mean(key: str, metric: str) -> tuple[float, Array]:
        """The mean over seeds, and the means (DRAWS,) of draws of seeds and clips."""
        drawn = np.stack([found[1][metric] for found in values[key]])
        order = np.random.default_rng(1).integers(len(seeds), size=(len(seeds), DRAWS))
        return (
            float(np.mean([found[0][metric] for found in values[key]])),
            np.take_along_axis(drawn, order, axis=0).mean(axis=0),
        )

    for key in ROWS[table]:
        for metric in values[key][0][1]:
            ours, drawn = mean(key, metric)
            low, high = _middle(drawn)
            paper = printed[key].get(metric, NAN)
            changes: tuple[Any, ...] = ()
            if key != base:
                start, start_drawn = mean(base, metric)
                ends = _middle(drawn - start_drawn)
                paper_change = round(paper - printed[base].get(metric, NAN), 6)
                changes = (
                    SYSTEMS[base].name,
                    paper_change,
                    ours - start,
                    *ends,
                    verdict(paper_change, *ends),
                )
            yield Comparison(
                table, SYSTEMS[key].name, "", metric, paper, ours, low, high, len(seeds), *changes
            )


def _values(folder: Path) -> tuple[dict[str, float], dict[str, Array]]:
    """Metrics of one evaluation, and their draws."""
    (model,) = json.loads((folder / "metrics.json").read_text("utf-8"))["models"]
    with np.load(folder / "draws.npz", allow_pickle=False) as kept:
        return model["metrics"], dict(zip(map(str, kept["names"]), kept["values"], strict=True))


def _printed(table: str, key: str) -> dict[str, float]:
    if table == "table2":
        return printed_trained(next(share for share, system in SHUFFLED.items() if system == key))
    if table == "table1" and key not in PARAMETERS:
        return {}
    row = printed_row(SYSTEMS[key].in_paper)
    return {} if row is None else row[1]


def _middle(drawn: Array) -> tuple[float, float]:
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def _over_seeds(values: Sequence[float], ends: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The mean and its interval, over draws of clips, which all seeds share, and of seeds, which are independent."""
    clips = np.mean([((high - low) / 3.92) ** 2 for low, high in ends])
    seeds = np.var(values, ddof=1) / len(values) if len(values) > 1 else 0.0
    mean, half = float(np.mean(values)), 1.96 * math.sqrt(clips + seeds)
    return mean, mean - half, mean + half


def _sweeps(key: str, seeds: Sequence[int], steps: Path) -> list[dict[str, Any]]:
    return [
        json.loads((steps / f"robustness-{key}-{seed}" / "robustness.json").read_text("utf-8"))["models"][0]
        for seed in seeds
    ]


def _shuffled(seeds: Sequence[int], steps: Path) -> Iterator[Comparison]:
    """Table 3. Changes are relative to the same system without shuffled clips."""
    for key in ROWS["table3"]:
        system = SYSTEMS[key]
        models = _sweeps(key, seeds, steps)
        printed = {at: printed_shuffled(system.in_paper, at) for at in SHARES}
        for place, at in enumerate(SHARES):
            points = [model["points"][place] for model in models]
            for metric in points[0]["values"]:
                values = _over_seeds(
                    [p["values"][metric] for p in points], [p["intervals"][metric] for p in points]
                )
                paper = printed[at].get(metric, NAN)
                changes: tuple[Any, ...] = ()
                if at and all(metric in p["kept"] for p in points):
                    kept = _over_seeds(
                        [p["kept"][metric] for p in points], [p["kept_intervals"][metric] for p in points]
                    )
                    change, low, high = (value - 1 for value in kept)
                    paper_change = round(paper / printed[0.0].get(metric, NAN) - 1, 6)
                    changes = ("0 %", paper_change, change, low, high, verdict(paper_change, low, high))
                yield Comparison(
                    "table3", system.name, f"{at:.0%}", metric, paper, *values, len(seeds), *changes
                )


def detection_results(seeds: Sequence[int], steps: Path) -> Iterator[Comparison]:
    """In addition to Table 3: how well each number distinguishes a clip's own picture from another one (AUROC), and the
    share of CIDEr that remains if every clip has the picture of another clip."""
    for key in ROWS["table3"]:
        models = _sweeps(key, seeds, steps)
        for name in DETECTORS:
            found = [model["told_apart"][name] for model in models if name in model["told_apart"]]
            if len(found) == len(models):
                mean, low, high = _over_seeds(found, [(value, value) for value in found])
                ends = (low, high) if len(found) > 1 else (NAN, NAN)
                yield Comparison(
                    "mismatch", SYSTEMS[key].name, "", f"AUROC of {name}", NAN, mean, *ends, len(seeds)
                )
        last = [model["points"][-1] for model in models]
        if all("CIDEr" in point["kept"] for point in last):
            kept = _over_seeds(
                [p["kept"]["CIDEr"] for p in last], [p["kept_intervals"]["CIDEr"] for p in last]
            )
            yield Comparison("mismatch", SYSTEMS[key].name, "", "CIDEr kept at 100 %", NAN, *kept, len(seeds))


def _timed(scale: Scale, speed: Mapping[str, Any]) -> Iterator[Comparison]:
    """Figure 2: time relative to audio-only. The interval is from the shortest to the longest of several runs."""
    systems = {scale.preset(SYSTEMS[key]): SYSTEMS[key] for key in TIMED}
    base = "Audio Only, 0 frames"
    for row in speed["rows"]:
        if row["to_audio_only"] is None:
            continue
        runs, middle = [run["all"] for run in row["raw"]], row["seconds"]["all"] / row["to_audio_only"]
        low, high = (min(runs) / middle, max(runs) / middle) if len(runs) > 1 else (NAN, NAN)
        paper = printed_ratio(systems[row["preset"]].in_paper, row["frames"])
        changes: tuple[Any, ...] = ()
        if row["frames"] or row["fusion"] != "audio-only":
            paper_change = NAN if paper is None else round(paper - 1, 6)
            changes = (base, paper_change, row["to_audio_only"] - 1, low - 1, high - 1,
                       verdict(paper_change, low - 1, high - 1))  # fmt: skip
        yield Comparison("figure2", systems[row["preset"]].name, row["decoding"], f"{row['frames']} frames",
                         NAN if paper is None else paper, row["to_audio_only"], low, high, 1, *changes)  # fmt: skip


QUOTED_SECONDS = {SYSTEMS[key].name: times for key, times in SECONDS.items()}
"""Seconds in Section 3.5, on the machine of the paper."""
