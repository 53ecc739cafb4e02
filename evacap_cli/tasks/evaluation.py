"""Evaluates models on a store's clips against reference captions: Table 1."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evacap_cli.atomic import written_whole
from evacap_cli.cache import cache_folder
from evacap_cli.data.store import Store
from evacap_cli.errors import UsageError
from evacap_cli.metrics.bootstrap import intervals
from evacap_cli.metrics.caption_pairs import References, pair, read_candidates
from evacap_cli.metrics.clip_names import Named
from evacap_cli.metrics.spice import cache_file
from evacap_cli.metrics.spice_cache import TupleCache
from evacap_cli.metrics.suite import Scores, Settings, score_captions
from evacap_cli.model import Checkpoint, load_checkpoint, parameter_counts
from evacap_cli.report.paper_results import printed_row
from evacap_cli.report.tables import number
from evacap_cli.tasks.cluster.evaluating import caption_store_on_cluster
from evacap_cli.tasks.cluster.pipeline import ClusterOptions, connected
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.preparing import features_of, prepare_inside
from evacap_cli.tasks.store_captioner import Captions, InferenceOptions, StoreCaptioner

Show = Callable[[str, int, int], None]  # name of the step, number done, total
CLIPS_FOLDER = "clips"
"""The store inside the output folder, if the clips are given as a manifest or shards."""


@dataclass(frozen=True)
class EvaluateOptions:
    """How models are evaluated. batch_size: None for a size that suits the device. tags: see `InferenceOptions`."""

    beam: int = 4
    max_words: int = 20
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    scoring: Settings = field(default_factory=Settings)
    tags: Path | None = None

    def __post_init__(self) -> None:
        wrong = [
            f"--{name.replace('_', '-')} {value} must be 1 or more"
            for name in ("beam", "max_words", "batch_size")
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if wrong:
            raise UsageError("; ".join(wrong))

    def inference_options(self) -> InferenceOptions:
        device = pick_device(self.device)
        size = self.batch_size or (64 if device.type == "cuda" else 16)
        return InferenceOptions(
            self.beam, self.max_words, size, device, pick_precision(self.precision, device), self.tags
        )


@dataclass
class Evaluation:
    """The results of one model, or of captions from a file. intervals: 95 % by bootstrap over clips. seconds: of
    captioning all clips. store: the folder of the clips. Captions from a file have neither preset, fusion, parameters
    nor seconds."""

    name: str
    preset: str
    fusion: str
    parameters: int | None
    captions: Captions
    scores: Scores
    intervals: dict[str, tuple[float, float]]
    seconds: float | None
    store: Path | None = None

    def row(self) -> dict[str, Any]:
        """Returns the entry of `metrics.json`."""
        printed = printed_row(self.preset)
        return {
            "model": self.name,
            "preset": self.preset,
            "fusion": self.fusion,
            "parameters": self.parameters,
            "clips": len(self.scores.clips),
            "id_hash": self.scores.id_hash,
            "metrics": self.scores.values,
            "intervals": self.intervals,
            "unavailable": self.scores.unavailable,
            "tokenizer": self.scores.tokenizer,
            "seconds_per_clip": None if self.seconds is None else self.seconds / len(self.scores.clips),
            "paper": None if printed is None else {"method": printed[0], "metrics": printed[1]},
        }


def prepare_clips(
    data: str,
    out: Path | None,
    models: Sequence[str],
    *,
    media: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cluster: ClusterOptions | None = None,
) -> Store:
    """Returns the feature store of test clips: `data`, or a store in `out` of the clips of the manifest or shards
    `data`, with the features of the models. After an interruption, the same call resumes. Raises EvacapError."""
    if Path(data).is_dir():
        if media is not None:
            raise UsageError(f"--media {media}: {data} is a store, which contains its clips", "omit --media")
        return Store(Path(data))
    if out is None:
        raise UsageError(
            f"--data {data}: -o is missing", "name a folder for the features of the clips with -o"
        )
    if not models:
        raise UsageError(
            f"--data {data}: --model is missing, which defines the features of the clips",
            "give a model, or a store with --data",
        )
    features = [features_of(model=model) for model in models]
    for model, wanted in zip(models, features, strict=True):
        if wanted.fingerprint() != features[0].fingerprint():
            raise UsageError(
                f"--model {model}: needs other features than {models[0]}",
                "evaluate each in a separate command, or give a store that fits both with --data",
            )
    folder = out / CLIPS_FOLDER
    prepare_inside(
        data, folder, features[0], media=media, workers=workers, progress=progress, cluster=cluster
    )
    return Store(folder)


def open_models(names: Sequence[str]) -> list[Checkpoint]:
    """Loads checkpoints and gives them unique names. Raises UsageError if one is named twice."""
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise UsageError(f"--model {', '.join(double)}: given twice", "name each model once")
    models = [load_checkpoint(name) for name in names]
    short = [model.name for model in models]
    return [
        replace(model, name=str(name)) if short.count(model.name) > 1 else model
        for model, name in zip(models, names, strict=True)
    ]


def read_references(store: Store) -> list[list[str]]:
    """Returns the reference captions of all clips. Raises UsageError if clips have none."""
    references = [store.captions(i) for i in range(len(store))]
    missing = [store.keys[i] for i, texts in enumerate(references) if not texts]
    if missing:
        raise UsageError(
            f"{store.folder}: {len(missing)} clips have no reference captions, the first is {missing[0]}",
            "remove them from the manifest and prepare it again",
        )
    return references


def read_captions(path: Path, store: Store, references: Sequence[Sequence[str]]) -> list[str]:
    """The captions of another system for the clips of a store, in their order.

    A clip has the name of its key and that of its file in the manifest. Raises UsageError if a clip has no caption.
    """
    names = []
    for i, key in enumerate(store.keys):
        source, start, end = store.source(i)
        names.append(Named((key, source), start, end) if source else Named((key,)))
    clips = References(store.folder, names, [list(texts) for texts in references])
    pairs = pair(read_candidates(path), path, clips)
    if missing := [*pairs.missing, *pairs.failed]:
        raise UsageError(
            f"{path}: has no caption for {len(missing)} of {len(store)} clips, the first is {missing[0]}",
            "rows of one table must have the same clips; evacap score takes an incomplete file",
        )
    return pairs.candidates


def evaluate(
    names: Sequence[str],
    data: Path,
    options: EvaluateOptions | None = None,
    show: Show | None = None,
    files: Sequence[Path] = (),
    cluster: ClusterOptions | None = None,
) -> list[Evaluation]:
    """Captions every clip of `data` with every model and scores them, and the captions in `files`, of other systems.
    `cluster`: where the models run, None for this machine. Raises EvacapError."""
    options = options or EvaluateOptions()
    store = Store(data)
    references = read_references(store)
    others = {path: read_captions(path, store, references) for path in files}
    models = open_models(names)
    parameters = [
        parameter_counts(model.model)["total"] for model in models
    ]  # packed weights are no parameters
    captioners = [
        StoreCaptioner(model, store, options.inference_options()) for model in models
    ]  # all models are checked before the first one runs
    found = []
    for model, captioner, count in zip(models, captioners, parameters, strict=True):
        began = time.monotonic()
        progress = None if show is None else partial(show, model.name)
        captions = _caption(captioner, cluster, progress)
        seconds = time.monotonic() - began
        scores = score(store.keys, captions.captions, references, options.scoring, show)
        found.append(
            Evaluation(
                model.name,
                str(model.metadata.get("preset", "")),
                model.model.config.fusion,
                count,
                captions,
                scores,
                intervals(scores.statistics),
                seconds,
                store.folder,
            )
        )
    stems = [*(each.name for each in found), *(path.stem for path in others)]
    for path, texts in others.items():
        name = path.stem if stems.count(path.stem) == 1 else str(path)
        scores = score(store.keys, texts, references, options.scoring, show)
        unknown = Captions(texts, np.full(len(texts), np.nan), None, None)
        found.append(
            Evaluation(name, "", "", None, unknown, scores, intervals(scores.statistics), None, store.folder)
        )
    return found


def _caption(
    captioner: StoreCaptioner, cluster: ClusterOptions | None, progress: Callable[[int, int], None] | None
) -> Captions:
    if cluster is None:
        return captioner.caption(progress)
    with connected(cluster):
        return caption_store_on_cluster(captioner, cluster, progress)


def score(
    keys: Sequence[str],
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    settings: Settings,
    show: Show | None = None,
    sets: int = 1,
) -> Scores:
    """Calls `score_captions` with SPICE's parses cached in the cache folder."""
    cache = TupleCache(cache_file(cache_folder()))
    silent: Show = lambda what, done, total: None  # noqa: E731
    return score_captions(keys, captions, references, settings, cache, show or silent, sets)


def table(found: Sequence[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and rows of Table 1: the values of a model, their intervals, and the paper's row if any."""
    names = list(found[0].scores.values)
    header, rows = ["model", "parameters", *names], []
    for each in found:
        values, ends = each.scores.values, each.intervals
        rows.append([each.name, millions(each.parameters), *(number(values[name], 3) for name in names)])
        rows.append(
            [
                "  95 %",
                "",
                *(f"{ends[n][0]:.3f}-{ends[n][1]:.3f}" if n in ends else "" for n in names),
            ]
        )
        if printed := printed_row(each.preset):
            name, paper = printed
            cells = (number(paper[name], 3) if name in paper else "" for name in names)
            rows.append([f"  paper's {name} (AudioCaps)", "", *cells])
    return header, rows


def millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f} M"


def check_output(out: Path | None) -> None:
    """Raises UsageError if `out` is not a folder."""
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file", "name a folder")


def write_evaluation(found: Sequence[Evaluation], folder: Path, page: str) -> None:
    """Writes `metrics.json`, `table.md` (`page`), and for every model `predictions-NAME.csv` with the caption and
    scores of each clip."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"models": [each.row() for each in found], "store": str(found[0].store or "")}
    for name, text in (
        ("metrics.json", json.dumps(content, indent=1)),
        ("table.md", page),
    ):
        with written_whole(folder / name) as aside:
            aside.write_text(text, "utf-8")
    for each in found:
        captions = each.captions
        numbers = {name: getattr(captions, name) for name in ("score", "gate", "entropy", "evidence")}
        numbers |= each.scores.per_clip
        with (
            written_whole(folder / f"predictions-{file_name(each.name)}.csv") as aside,
            aside.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file)
            table.writerow(["key", "caption", *numbers])
            for i, key in enumerate(each.scores.clips):
                cells = (_digits(values, i) for values in numbers.values())
                table.writerow([key, captions.captions[i], *cells])


def _digits(values: np.ndarray | None, clip: int) -> str:
    return "" if values is None or np.isnan(values[clip]) else f"{values[clip]:.6f}"


def file_name(name: str) -> str:
    """Returns a model name that is safe in a file name."""
    return "".join(c if c.isalnum() or c in "-._" else "_" for c in name).strip("._") or "model"
