"""The page of `evacap robustness`: Table 3, metrics by share of changed clips, detection, and captions of each clip."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evacap_cli.errors import UsageError
from evacap_cli.metrics.mixture_scores import ModelSweep, SweepPoint
from evacap_cli.report.pages import Clip, ClipList, Column, Figure, Page, Table
from evacap_cli.report.pages.figures import COLOURS, Interval, Line, interval_chart, line_chart
from evacap_cli.report.robustness_figure import SHOWN, axis_label, tables
from evacap_cli.tasks.reporting.folders import Facts, counted, csv_rows, prefixes, word_change
from evacap_cli.tasks.reporting.pages import version_facts
from evacap_cli.tasks.reporting.stored_clips import PageTarget, Result, StoredClips
from evacap_cli.tasks.reporting.tables import number

NAN = math.nan
GRADED = ("noise-audio", "shift")
TEXTS = ("model", "key", "donor", "own", "changed", "references")  # columns of clips.csv that are not numbers
STATES = {"as it is": 0, "changed": 1}  # what the name of a number ends with, and which caption it describes
TITLES = {
    "shuffle": ("own picture", "other picture"),
    "swap-audio": ("own sound", "other sound"),
    "black": ("own picture", "black picture"),
    "noise": ("own picture", "noise as picture"),
    "freeze": ("own picture", "one frame as picture"),
    "drop-video": ("own picture", "no picture"),
    "noise-audio": ("own sound", "noisy sound, {at:g} dB"),
    "shift": ("own sound", "sound {at:g} s late"),
}
"""Titles of the captions of a clip as it is and changed."""
HELP = {
    "gate": "how much of the picture the model uses, 0 to 1",
    "entropy": "how widely the attention is spread over the picture, 0 to 1",
    "score": "mean log-probability of a word; 0 is certain",
    "mismatch": "probability that picture and sound do not belong together",
    "CIDEr": "of the caption against the references of the clip",
}
OTHER = {"shuffle": "frames", "swap-audio": "spectrogram"}
"""What a changed clip has from another clip."""


def robustness_page(folders: Sequence[Path], facts: Facts, target: PageTarget) -> Page:
    """Table 3 next to the values of the paper, figures, and the captions of each clip. Raises UsageError."""
    read = [json.loads((folder / "robustness.json").read_text("utf-8")) for folder in folders]
    perturb = read[0]["perturb"]
    if other := [each["perturb"] for each in read if each["perturb"] != perturb]:
        raise UsageError(
            f"{', '.join(map(str, folders))}: have different perturbations ({perturb}, {other[0]})",
            "compare results of the same perturbation",
        )
    graded = perturb in GRADED
    models = []
    for prefix, values in zip(prefixes(folders), read, strict=True):
        for model in values["models"]:
            points = [SweepPoint(**point) for point in model["points"]]
            models.append(ModelSweep(**{**model, "name": prefix + model["name"], "points": points}))
    label = axis_label(perturb)
    figures = [
        *_metric_figures(models, 1 if graded else 100, label),
        _detection_figure(models),
        _calibration_figure(models),
    ]
    clips, notes = _clip_list(folders, read, target)
    first = read[0]
    described = [("clips", str(first["clips"])), ("clip names", first["id_hash"]),
                 ("seeds", ", ".join(str(pairing.get("seed", "?")) for pairing in first["pairings"])),
                 *((f"{prefix}store", each["store"]) for prefix, each in zip(prefixes(folders), read, strict=True)),
                 ("perturbation", perturb)]  # fmt: skip
    return Page(
        title="Robustness"
        if len(folders) == 1
        else "Robustness: " + " and ".join(p.rstrip(": ") for p in prefixes(folders)),
        lead=f"{counted(len(models), 'model')}, {counted(first['clips'], 'clip')}, perturbation {perturb}, "
        f"{counted(len(first['pairings']), 'seed')}",
        facts=[*facts, *described, *version_facts()],
        figures=[figure for figure in figures if figure is not None],
        tables=[Table(title, header, rows) for title, header, rows in tables(models, perturb, graded)],
        clips=clips,
        notes=notes,
        clips_title="Clips, those with the most changed captions first",
    )


def _metric_figures(models: Sequence[ModelSweep], scale: float, label: str) -> Iterator[Figure | None]:
    """Each metric and what is kept of it, by share or level."""
    metrics = [
        name for name in SHOWN if any(name in point.values for model in models for point in model.points)
    ]
    for kept in (False, True):
        for name in metrics:
            lines = [
                line for i, model in enumerate(models) for line in _sweep_lines(model, name, kept, scale, i)
            ]
            title = f"{name}, % kept of the value at 0" if kept else name
            yield line_chart(title, label, "kept, %" if kept else name, lines)


def _sweep_lines(model: ModelSweep, name: str, kept: bool, scale: float, colour: int) -> Iterator[Line]:
    points = []
    for point in model.points:
        values, intervals = (point.kept, point.kept_intervals) if kept else (point.values, point.intervals)
        if name in values:
            ends = intervals.get(name, (NAN, NAN))
            value, low, high = (number * (100 if kept else 1) for number in (values[name], *ends))
            points.append((point.at * scale, value, low, high))
        elif kept and point.at == 0:  # the value that the others are a share of
            points.append((0.0, 100.0, NAN, NAN))
    yield Line(model.name, points, colour=colour)
    if model.preset.endswith("-base"):  # the values of the paper would only stretch the axis of a small model
        paper = [(point.at, point.paper[name]) for point in model.points if name in point.paper]
        whole = dict(paper).get(0.0, NAN)
        yield Line(
            f"{model.name}, paper",
            [(at * scale, value / whole * 100 if kept else value, NAN, NAN) for at, value in paper],
            dashed=True,
            colour=colour,
        )


def _detection_figure(models: Sequence[ModelSweep]) -> Figure | None:
    """AUROC of unchanged clips over changed ones."""
    intervals = [
        Interval(
            f"{model.name}, {name}",
            value,
            *model.told_apart_intervals.get(name, (NAN, NAN)),
            colour=i % COLOURS,
        )
        for i, model in enumerate(models)
        for name, value in model.told_apart.items()
    ]
    return interval_chart("Detection of changed clips", "AUROC (0.5 is chance)", intervals, mark=0.5)


def _calibration_figure(models: Sequence[ModelSweep]) -> Figure | None:
    """The mismatch probability and how often it is right."""
    lines = [
        Line(model.name, [(x, y, low, high) for x, y, low, high in model.reliability], colour=i)
        for i, model in enumerate(models)
        if model.reliability
    ]
    if not lines:
        return None
    ideal = Line("perfect calibration", [(0.0, 0.0, NAN, NAN), (1.0, 1.0, NAN, NAN)], dashed=True, colour=5)
    return line_chart(
        "Calibration of mismatch", "predicted probability of mismatch", "share mismatched", [*lines, ideal]
    )


def _clip_list(
    folders: Sequence[Path], read: Sequence[Mapping[str, Any]], target: PageTarget
) -> tuple[ClipList | None, list[str]]:
    """Each clip once, with the captions of all models; those with the most changed captions first. And notes."""
    paths = [
        (prefix, folder / "clips.csv") for prefix, folder in zip(prefixes(folders), folders, strict=True)
    ]
    clips: dict[str, dict[str, dict[str, str]]] = {}
    names: dict[str, list[str]] = {}  # model: columns with numbers
    for prefix, path in paths:
        for row in csv_rows(path) if path.is_file() else ():
            model = prefix + row["model"]
            clips.setdefault(row["key"], {})[model] = row
            if model not in names:
                names[model] = [name for name in row if name not in TEXTS and row[name] is not None]
    if not clips:
        return None, []
    models = list(names)
    index = {key: i for i, key in enumerate(clips)}
    results = [
        Result(each["store"], folder, each.get("store_fingerprint", ""))
        for folder, each in zip(folders, read, strict=True)
    ]
    stored = StoredClips(list(clips), results, target)
    columns, taken = _columns(models, names)
    perturb = read[0]["perturb"]
    titles = [
        title.format(at=read[0]["points"][-1]) for title in TITLES.get(perturb, ("as it is", "changed"))
    ]
    captions = [f"{model}, {title}" if len(models) > 1 else title for model in models for title in titles]

    def every() -> Iterator[Clip]:
        for key, rows in clips.items():
            captioned = [rows.get(model, {}).get(name, "") for model in models for name in ("own", "changed")]
            changes = [word_change(row["own"], row["changed"]) for row in rows.values()]
            some = next(iter(rows.values()))
            yield stored.describe(
                Clip(
                    key,
                    (*captioned, some["references"]),
                    (max(changes), *(number(rows.get(model, {}), name) for model, name in taken)),
                    other=index.get(some["donor"]) if perturb in OTHER else None,
                )
            )

    change = Column("changed words", 2, "share of the words of both captions that only one of them has"
                    + (", the largest of all models" if len(models) > 1 else ""))  # fmt: skip
    found = ClipList(
        every, (change, *columns), (*captions, "references"), change.name, OTHER.get(perturb, "")
    )
    return found, stored.notes


def _columns(
    models: Sequence[str], names: Mapping[str, Sequence[str]]
) -> tuple[list[Column], list[tuple[str, str]]]:
    """The columns of the models' numbers, and the (model, column of clips.csv) of each."""
    columns, taken = [], []
    for i, model in enumerate(models):
        for name in names[model]:
            label, _, state = name.rpartition(", ")
            caption = STATES.get(state)
            title = f"{name} ({model})" if len(models) > 1 else name
            columns.append(
                Column(
                    title, 3, HELP.get(label, ""), None if caption is None else 2 * i + caption, label or name
                )
            )
            taken.append((model, name))
    return columns, taken
