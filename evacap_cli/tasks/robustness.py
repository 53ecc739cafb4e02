"""Measures captions with pictures that belong to other clips or are degraded: Table 3.

For each clip and seed, a model generates two captions: with the clip's own picture and with its donor's. The captions
at every share of shuffled clips are a mixture of the two.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from evacap_cli.atomic import written_whole
from evacap_cli.data.store import Store
from evacap_cli.errors import UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.metrics.detection import Bin, auroc_interval, reliability
from evacap_cli.metrics.mixture_scores import (
    ModelSweep,
    auroc,
    mean_values,
    select_clips,
    share_following,
    sweep_points,
)
from evacap_cli.metrics.suite import Scores
from evacap_cli.model import Checkpoint
from evacap_cli.model.checkpoint import read_features
from evacap_cli.report.paper_results import printed_shuffled
from evacap_cli.tasks import perturbations
from evacap_cli.tasks.evaluation import EvaluateOptions, Show, open_models, read_references, score
from evacap_cli.tasks.mismatch import Calibration
from evacap_cli.tasks.pairing import Pairing
from evacap_cli.tasks.perturbations import Perturbation
from evacap_cli.tasks.sample import sample_store
from evacap_cli.tasks.store_captioner import Captions, StoreCaptioner

PAIRED = ("shuffle", "swap-audio")  # another clip's picture, another clip's sound
DEGRADED = ("black", "noise", "freeze", "drop-video")  # a share of the clips gets such a picture
GRADED = {
    "noise-audio": (40.0, 30.0, 20.0, 10.0, 0.0),
    "shift": (0.5, 1.0, 2.0, 4.0),
}  # all clips, in dB and seconds
PERTURBATIONS = (*PAIRED, *DEGRADED, *GRADED)


@dataclass(frozen=True)
class SweepOptions:
    """The settings of a sweep. probs: shares of perturbed clips, 0 to 1. perturb: one of PERTURBATIONS; those of GRADED
    have `levels` instead of shares (None: the defaults). seeds: each gives other donors, order and noise."""

    probs: tuple[float, ...] = (0.0, 0.05, 0.5, 1.0)
    perturb: str = "shuffle"
    levels: tuple[float, ...] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)

    def __post_init__(self) -> None:
        wrong = [f"--probs {p:g}: must be between 0 and 1" for p in self.probs if not 0 <= p <= 1]
        if not self.probs:
            wrong.append("--probs: give at least one")
        if self.perturb not in PERTURBATIONS:
            wrong.append(f"--perturb {self.perturb}: must be one of {', '.join(PERTURBATIONS)}")
        if self.levels is not None and self.perturb not in GRADED:
            wrong.append(f"--levels: {self.perturb} has no levels; only {' and '.join(GRADED)} have")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            wrong.append("--seeds: give different numbers, 0 or more")
        if wrong:
            raise UsageError("; ".join(wrong))

    @property
    def graded(self) -> bool:
        return self.perturb in GRADED

    @property
    def points(self) -> tuple[float, ...]:
        """The points of the sweep: shares or levels."""
        if not self.graded:
            return tuple(sorted(set(self.probs)))
        return self.levels or GRADED[self.perturb]


@dataclass
class Sweep:
    """All models' sweeps over the same clips and pairings."""

    options: SweepOptions
    store: Store
    id_hash: str
    pairings: list[Pairing]
    models: list[ModelSweep]


def sweep(names: Sequence[str], store: Store, options: SweepOptions, show: Show | None = None) -> Sweep:
    """Evaluates every model at every point. Raises EvacapError."""
    references = read_references(store)
    models = open_models(names)
    how = options.evaluate.inference_options()
    captioners = [
        StoreCaptioner(model, store, how) for model in models
    ]  # all are checked before the first one runs
    pairings = [Pairing.draw(len(store), seed) for seed in options.seeds]
    found = [
        _sweep_one(model, captioner, references, pairings, options, show)
        for model, captioner in zip(models, captioners, strict=True)
    ]
    return Sweep(options, store, Scores(tuple(store.keys)).id_hash, pairings, found)


def _sweep_one(
    model: Checkpoint,
    captioner: StoreCaptioner,
    references: list[list[str]],
    pairings: list[Pairing],
    options: SweepOptions,
    show: Show | None,
) -> ModelSweep:
    preset, keys = str(model.metadata.get("preset", "")), captioner.store.keys
    scoring = options.evaluate.scoring
    began = time.monotonic()
    own, changed = _caption(model, captioner, pairings, options, show)
    captioning = time.monotonic() - began

    def scored(texts: list[list[str]], against: list[list[list[str]]]) -> list[Scores]:
        """Scores many sets of captions of the same clips in one call, because the metrics' programs start slowly."""
        all_keys = [f"{key} {i}" for i in range(len(texts)) for key in keys]
        all_texts, all_references = list(chain.from_iterable(texts)), list(chain.from_iterable(against))
        whole = score(all_keys, all_texts, all_references, scoring, show, len(texts))
        return [
            select_clips(whole, keys, slice(i * len(keys), (i + 1) * len(keys))) for i in range(len(texts))
        ]

    (plain,) = scored([own.captions], [references])
    flat = [captions.captions for row in changed for captions in row if captions is not own]
    against = [references] * len(flat)
    follows = options.perturb == "shuffle" and captioner.model.has_picture
    if follows:
        flat += [row[0].captions for row in changed]
        against += [[references[donor] for donor in pairing.donor] for pairing in pairings]
    rest = scored(flat, against) if flat else []
    each = iter(rest)
    scores = [
        [plain if captions is own else next(each) for captions in row] for row in changed
    ]  # [seed][level]
    followed: dict[str, dict[str, float]] = {}
    if follows:
        sound_scores, picture_scores = [row[0] for row in scores], list(each)
        followed = {
            "sound": mean_values(sound_scores),
            "picture": mean_values(picture_scores),
            "share nearer the picture": share_following(sound_scores, picture_scores),
        }
    points = sweep_points(plain, scores, _changed_clips(options, pairings))
    if options.perturb == "shuffle":
        for point in points:
            point.paper = printed_shuffled(preset, point.at)
    others = [row[0] for row in changed if row[0] is not own]
    told_apart = {
        name: float(np.mean([auroc(numbers(own), numbers(other)) for other in others]))
        for name, numbers in NUMBERS.items()
        if others and all(np.isfinite(numbers(captions)).any() for captions in (own, *others))
    }
    between = {
        name: auroc_interval(NUMBERS[name](own), [NUMBERS[name](other) for other in others])
        for name in told_apart
    }
    calibration = Calibration.of(model)
    calibrated: list[Bin] = []
    if others and options.perturb in PAIRED:  # pairs that do not belong together
        before, *after = (_mismatch(calibration, captions) for captions in (own, *others))
        if before is not None:
            calibrated = reliability(before, [values for values in after if values is not None])
    donor = np.argsort(pairings[0].donor) if options.perturb == "swap-audio" else pairings[0].donor
    both = (own, changed[0][-1])
    return ModelSweep(
        model.name,
        preset,
        points,
        followed,
        told_apart,
        _by_kind(captioner.store, own, plain),
        plain.unavailable,
        {"captioning": captioning, "scoring": time.monotonic() - began - captioning},
        _clips(keys, references, donor, both, (plain, scores[0][-1]), calibration),
        between,
        calibrated,
    )


def _mismatch(calibration: Calibration | None, captions: Captions) -> np.ndarray | None:
    """The probability of each clip that picture and sound do not belong together: (N,), NaN without a picture. None for
    models that give none."""
    if captions.evidence is not None:  # the model compares picture and sound itself
        return np.asarray(1 - captions.evidence)
    if calibration is None or captions.gate is None or captions.entropy is None:
        return None
    pairs = zip(captions.gate.tolist(), captions.entropy.tolist(), strict=True)
    found = (
        calibration.probability({"gate": gate, "entropy": entropy}) if gate else None
        for gate, entropy in pairs
    )
    return np.array([math.nan if value is None else value for value in found])


def _clips(
    keys: Sequence[str],
    references: list[list[str]],
    donor: np.ndarray,
    both: tuple[Captions, Captions],
    scores: tuple[Scores, Scores],
    calibration: Calibration | None,
) -> list[dict[str, str]]:
    """Returns the rows of `clips.csv`. donor: (N,), the clip whose picture or sound replaced that of each clip. both:
    the captions of the unchanged and the changed clips."""
    numbers = {}
    for when, captions, found in zip(("as it is", "changed"), both, scores, strict=True):
        for name in ("gate", "entropy", "score"):
            if (values := getattr(captions, name)) is not None:
                numbers[f"{name}, {when}"] = values
        if (probabilities := _mismatch(calibration, captions)) is not None:
            numbers[f"mismatch, {when}"] = probabilities
        if "CIDEr" in found.per_clip:
            numbers[f"CIDEr, {when}"] = found.per_clip["CIDEr"]
    return [
        {
            "key": key,
            "donor": keys[donor[i]],
            "own": both[0].captions[i],
            "changed": both[1].captions[i],
            "references": " | ".join(references[i]),
            **{name: "" if np.isnan(values[i]) else f"{values[i]:.6f}" for name, values in numbers.items()},
        }
        for i, key in enumerate(keys)
    ]


def _caption(
    model: Checkpoint,
    captioner: StoreCaptioner,
    pairings: list[Pairing],
    options: SweepOptions,
    show: Show | None,
) -> tuple[Captions, list[list[Captions]]]:
    """Returns the captions of the unchanged clips, and those of the changed ones for each seed and level."""

    def progress(label: str) -> Any:
        return None if show is None else lambda done, total: show(label, done, total)

    if options.perturb in PAIRED:
        own, mixed = captioner.caption_paired(pairings, progress(model.name))
        if options.perturb == "swap-audio":  # the same pairs, listed by the clip of the picture
            swaps = [np.argsort(pairing.donor) for pairing in pairings]
            mixed = [captions.reordered(swap) for captions, swap in zip(mixed, swaps, strict=True)]
        return own, [[captions] for captions in mixed]
    if options.perturb in DEGRADED and not captioner.model.has_picture:
        own = captioner.caption(progress(model.name))
        return own, [[own] for _ in pairings]
    chosen = [_perturbations(options, pairing.seed) for pairing in pairings]
    own, *perturbed = captioner.caption_perturbed(list(chain.from_iterable(chosen)), progress(model.name))
    each = iter(perturbed)
    return own, [[next(each) for _ in row] for row in chosen]


def _perturbations(options: SweepOptions, seed: int) -> list[Perturbation]:
    if options.perturb == "noise-audio":
        return [perturbations.noise_audio(decibels, seed) for decibels in options.points]
    if options.perturb == "shift":
        return [perturbations.shift(seconds) for seconds in options.points]
    return [
        {
            "black": perturbations.black(),
            "freeze": perturbations.freeze(),
            "drop-video": perturbations.drop_video(),
            "noise": perturbations.noise(seed),
        }[options.perturb]
    ]


def _changed_clips(
    options: SweepOptions, pairings: list[Pairing]
) -> list[tuple[float, int, list[np.ndarray]]]:
    """Returns (point, index of its level, mask of the changed clips for each seed) of every point."""
    if not options.graded:
        return [(at, 0, [pairing.touched(at) for pairing in pairings]) for at in options.points]
    all_clips = [np.ones(len(pairing), bool) for pairing in pairings]
    return [(at, level, all_clips) for level, at in enumerate(options.points)]


NUMBERS: dict[str, Callable[[Captions], np.ndarray]] = {  # higher means more likely unchanged
    "gate": lambda captions: _or_nan(captions.gate, captions),
    "entropy": lambda captions: -_or_nan(captions.entropy, captions),
    "evidence": lambda captions: _or_nan(captions.evidence, captions),
    "transport": lambda captions: _or_nan(captions.cues.get("transport"), captions),
    "score": lambda captions: captions.score,
}


def _or_nan(values: np.ndarray | None, captions: Captions) -> np.ndarray:
    return np.full(len(captions.captions), np.nan) if values is None else values


def _by_kind(store: Store, own: Captions, plain: Scores) -> dict[str, dict[str, float]]:
    """Returns the number of clips, mean scores and metrics of each kind of clip (plain, mixed, dubbed, ...)."""
    kinds = np.array([store.extra(i).get("kind", "") for i in range(len(store))])
    found: dict[str, dict[str, float]] = {}
    for kind in sorted(set(kinds) - {""}):
        rows = kinds == kind
        found[kind] = {"clips": float(rows.sum())}
        for name in ("gate", "entropy", "evidence", "score"):
            if (numbers := getattr(own, name)) is not None:
                found[kind][name] = float(np.nanmean(numbers[rows]))
        values_of = select_clips(plain, [store.keys[i] for i in np.flatnonzero(rows)], rows).values
        found[kind] |= {name: value for name, value in values_of.items() if value is not None}
    return found


def open_data(
    data: Path | None, names: Sequence[str], workers: int, progress: Callable[[int, int], None] | None
) -> Store:
    """Opens the store `data`, or else the built-in benchmark with the features of the first model of `names`."""
    if data is not None:
        return Store(data)
    return sample_store(FeatureSettings.from_dict(read_features(names[0])), workers, progress)


def write_sweep(made: Sweep, folder: Path, page: str) -> None:
    """Writes `robustness.csv` (metrics and intervals of each model and point), `robustness.json` (with every pairing),
    `robustness.md` (`page`), and `clips.csv` with the captions of every clip."""
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "robustness.md") as aside:
        aside.write_text(page, "utf-8")
    with (
        written_whole(folder / "robustness.csv") as aside,
        aside.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(file)
        table.writerow(
            [
                "model",
                "perturb",
                "at",
                "metric",
                "value",
                "low",
                "high",
                "kept",
                "kept_low",
                "kept_high",
                "paper",
            ]
        )
        for model in made.models:
            for point in model.points:
                for name, value in point.values.items():
                    kept = point.kept_intervals.get(name, (None, None))
                    numbers = [
                        value,
                        *point.intervals[name],
                        point.kept.get(name),
                        *kept,
                        point.paper.get(name),
                    ]
                    cells = ["" if number is None else f"{number:.6f}" for number in numbers]
                    table.writerow([model.name, made.options.perturb, f"{point.at:g}", name, *cells])
    rows = [{"model": model.name, **row} for model in made.models for row in model.clips]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with written_whole(folder / "clips.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        clips = csv.DictWriter(file, columns, restval="")
        clips.writeheader()
        clips.writerows(rows)
    with written_whole(folder / "robustness.json") as aside:
        aside.write_text(json.dumps(as_dict(made), indent=1), "utf-8")


def as_dict(made: Sweep) -> dict[str, Any]:
    keys = made.store.keys
    return {
        "perturb": made.options.perturb,
        "points": list(made.options.points),
        "clips": len(keys),
        "id_hash": made.id_hash,
        "store": str(made.store.folder),
        "store_fingerprint": made.store.fingerprint(),
        "models": [
            {
                **{
                    n: getattr(m, n)
                    for n in (
                        "name",
                        "preset",
                        "followed",
                        "told_apart",
                        "told_apart_intervals",
                        "reliability",
                        "by_kind",
                        "unavailable",
                        "seconds",
                    )
                },
                "points": [vars(point) for point in m.points],
            }
            for m in made.models
        ],
        "pairings": [
            {
                "seed": pairing.seed,
                "donor": {keys[i]: keys[d] for i, d in enumerate(pairing.donor)},
                "order": [keys[i] for i in pairing.order],
            }
            for pairing in made.pairings
        ],
    }
