"""Table 3: what is left of a model's captions when pictures belong to other clips, or are spoilt.

A model says two things of each clip and seed: with its own picture, and with its donor's. The captions at every share
of shuffled clips are a mixture of the two.
"""

from __future__ import annotations

import csv
import json
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
from evacap_cli.tasks.evaluation import EvaluateOptions, Show, open_models, references_of, score
from evacap_cli.tasks.pairing import Pairing
from evacap_cli.tasks.perturbations import Perturbation
from evacap_cli.tasks.sample import sample_store
from evacap_cli.tasks.store_captioner import Captions, StoreCaptioner

PAIRED = ("shuffle", "swap-audio")  # another clip's picture, another clip's sound
SPOILT = ("black", "noise", "freeze", "drop-video")  # a share of the clips, by their order
GRADED = {
    "noise-audio": (40.0, 30.0, 20.0, 10.0, 0.0),
    "shift": (0.5, 1.0, 2.0, 4.0),
}  # all clips, in dB and seconds
PERTURBATIONS = (*PAIRED, *SPOILT, *GRADED)


@dataclass(frozen=True)
class SweepOptions:
    """probs: shares of clips that are changed, 0 to 1. perturb: one of PERTURBATIONS; those of GRADED have levels
    instead of shares (`levels`: their own). seeds: each draws donors, order and noise anew."""

    probs: tuple[float, ...] = (0.0, 0.05, 0.5, 1.0)
    perturb: str = "shuffle"
    levels: tuple[float, ...] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)

    def __post_init__(self) -> None:
        wrong = [f"--probs {p:g}: a share of the clips is from 0 to 1" for p in self.probs if not 0 <= p <= 1]
        if not self.probs:
            wrong.append("--probs: give at least one")
        if self.perturb not in PERTURBATIONS:
            wrong.append(f"--perturb {self.perturb}: is none of {', '.join(PERTURBATIONS)}")
        if self.levels is not None and self.perturb not in GRADED:
            wrong.append(f"--levels: {self.perturb} has none; {' and '.join(GRADED)} have")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            wrong.append("--seeds: give different numbers, 0 or more")
        if wrong:
            raise UsageError("; ".join(wrong))

    @property
    def graded(self) -> bool:
        return self.perturb in GRADED

    @property
    def points(self) -> tuple[float, ...]:
        """What the sweep goes over: shares, or levels after 0 (nothing)."""
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
    """Every model at every point. Raises EvacapError."""
    references = references_of(store)
    models = open_models(names)
    how = options.evaluate.inference_options()
    captioners = [StoreCaptioner(model, store, how) for model in models]  # all are checked before any works
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
    own, changed = _describe(model, captioner, pairings, options, show)
    captioning = time.monotonic() - began

    def scored(texts: list[list[str]], against: list[list[list[str]]]) -> list[Scores]:
        """Many sets of captions of the same clips in one go: the metrics' programs start slowly."""
        many = [f"{key} {i}" for i in range(len(texts)) for key in keys]
        flat, said = list(chain.from_iterable(texts)), list(chain.from_iterable(against))
        whole = score(many, flat, said, scoring, show, len(texts))
        return [
            select_clips(whole, keys, slice(i * len(keys), (i + 1) * len(keys))) for i in range(len(texts))
        ]

    (plain,) = scored([own.captions], [references])
    flat = [said.captions for row in changed for said in row if said is not own]
    against = [references] * len(flat)
    follows = options.perturb == "shuffle" and captioner.model.has_picture
    if follows:
        flat += [row[0].captions for row in changed]
        against += [[references[donor] for donor in pairing.donor] for pairing in pairings]
    rest = scored(flat, against) if flat else []
    each = iter(rest)
    marks = [[plain if said is own else next(each) for said in row] for row in changed]  # [seed][level]
    followed: dict[str, dict[str, float]] = {}
    if follows:
        heard, looked = [row[0] for row in marks], list(each)
        followed = {
            "sound": mean_values(heard),
            "picture": mean_values(looked),
            "share nearer the picture": share_following(heard, looked),
        }
    points = sweep_points(plain, marks, _places(options, pairings))
    if options.perturb == "shuffle":
        for point in points:
            point.paper = printed_shuffled(preset, point.at)
    made = [row[0] for row in changed if row[0] is not own]
    told = {
        name: float(np.mean([auroc(numbers(own), numbers(said)) for said in made]))
        for name, numbers in NUMBERS.items()
        if made and all(np.isfinite(numbers(said)).any() for said in (own, *made))
    }
    return ModelSweep(
        model.name,
        preset,
        points,
        followed,
        told,
        _by_kind(captioner.store, own, plain),
        plain.unavailable,
        {"captioning": captioning, "scoring": time.monotonic() - began - captioning},
        _clips(keys, references, pairings[0], (own, changed[0][-1]), (plain, marks[0][-1])),
    )


def _clips(
    keys: Sequence[str],
    references: list[list[str]],
    pairing: Pairing,
    said: tuple[Captions, Captions],
    scores: tuple[Scores, Scores],
) -> list[dict[str, str]]:
    """The rows of `clips.csv`."""
    numbers = {}
    for when, captions, found in zip(("as it is", "changed"), said, scores, strict=True):
        for name in ("gate", "score"):
            if (values := getattr(captions, name)) is not None:
                numbers[f"{name}, {when}"] = values
        if "CIDEr" in found.per_clip:
            numbers[f"CIDEr, {when}"] = found.per_clip["CIDEr"]
    return [
        {
            "key": key,
            "donor": keys[pairing.donor[i]],
            "own": said[0].captions[i],
            "changed": said[1].captions[i],
            "references": " | ".join(references[i]),
            **{name: "" if np.isnan(values[i]) else f"{values[i]:.6f}" for name, values in numbers.items()},
        }
        for i, key in enumerate(keys)
    ]


def _describe(
    model: Checkpoint,
    captioner: StoreCaptioner,
    pairings: list[Pairing],
    options: SweepOptions,
    show: Show | None,
) -> tuple[Captions, list[list[Captions]]]:
    """What the model says of the clips as they are, and for each seed and level of them changed."""

    def progress(label: str) -> Any:
        return None if show is None else lambda done, total: show(label, done, total)

    if options.perturb in PAIRED:
        own, mixed = captioner.caption_paired(pairings, progress(model.name))
        if options.perturb == "swap-audio":  # the same pairs, told by the picture's clip
            swaps = [np.argsort(pairing.donor) for pairing in pairings]
            mixed = [said.reordered(swap) for said, swap in zip(mixed, swaps, strict=True)]
        return own, [[said] for said in mixed]
    if options.perturb in SPOILT and not captioner.model.has_picture:
        own = captioner.caption(progress(model.name))
        return own, [[own] for _ in pairings]
    made = [_changes(options, pairing.seed) for pairing in pairings]
    own, *said_of = captioner.caption_perturbed(
        [change for row in made for change in row], progress(model.name)
    )
    each = iter(said_of)
    return own, [[next(each) for _ in row] for row in made]


def _changes(options: SweepOptions, seed: int) -> list[Perturbation]:
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


def _places(options: SweepOptions, pairings: list[Pairing]) -> list[tuple[float, int, list[np.ndarray]]]:
    """(at, level, who is changed by seed) of every point."""
    if not options.graded:
        return [(at, 0, [pairing.touched(at) for pairing in pairings]) for at in options.points]
    everybody = [np.ones(len(pairing), bool) for pairing in pairings]
    return [(at, level, everybody) for level, at in enumerate(options.points)]


NUMBERS: dict[str, Callable[[Captions], np.ndarray]] = {  # the higher, the likelier that a clip is as it was
    "gate": lambda said: _or_nan(said.gate, said),
    "entropy": lambda said: -_or_nan(said.entropy, said),
    "evidence": lambda said: _or_nan(said.evidence, said),
    "transport": lambda said: _or_nan(said.cues.get("transport"), said),
    "score": lambda said: said.score,
}


def _or_nan(values: np.ndarray | None, said: Captions) -> np.ndarray:
    return np.full(len(said.captions), np.nan) if values is None else values


def _by_kind(store: Store, own: Captions, plain: Scores) -> dict[str, dict[str, float]]:
    """Of clips whose kind is known (plain, mixed, dubbed, ...): how many, mean numbers and metrics."""
    kinds = np.array([store.extra(i).get("kind", "") for i in range(len(store))])
    found: dict[str, dict[str, float]] = {}
    for kind in sorted(set(kinds) - {""}):
        rows = kinds == kind
        found[kind] = {"clips": float(rows.sum())}
        told = {"gate": own.gate, "entropy": own.entropy, "evidence": own.evidence, "score": own.score}
        for name, values in told.items():
            if values is not None:
                found[kind][name] = float(np.nanmean(values[rows]))
        values_of = select_clips(plain, [store.keys[i] for i in np.flatnonzero(rows)], rows).values
        found[kind] |= {name: value for name, value in values_of.items() if value is not None}
    return found


def open_data(
    data: Path | None, names: Sequence[str], workers: int, progress: Callable[[int, int], None] | None
) -> Store:
    """The store of `data`, or the built-in benchmark, with the features of the first model of `names`."""
    if data is not None:
        return Store(data)
    return sample_store(FeatureSettings.from_dict(read_features(names[0])), workers, progress)


def write_sweep(made: Sweep, folder: Path, page: str) -> None:
    """`robustness.csv` (method x share x metrics, with intervals), `.json` with every pairing, `.md` (`page`), and
    `clips.csv` with every clip's captions."""
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
                    for n in ("name", "preset", "followed", "told_apart", "by_kind", "unavailable", "seconds")
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
