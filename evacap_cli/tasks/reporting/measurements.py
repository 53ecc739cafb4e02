"""Pages of what evaluate, robustness, speed and train left in their folders; of several, side by side."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evacap_cli.metrics.mixture_scores import ModelSweep, SweepPoint
from evacap_cli.report.latency import TimingRow, Timings, times_table
from evacap_cli.report.pages import Clip, ClipList, Column, Figure, Page, Table
from evacap_cli.report.pages.figures import COLOURS, Line, line_chart, stacked_bars
from evacap_cli.report.robustness_figure import SHOWN, axis_label, tables
from evacap_cli.report.tables import number
from evacap_cli.report.training_curves import PANELS
from evacap_cli.tasks.reporting.pages import setting_facts, version_facts
from evacap_cli.tasks.reporting.tables import number as number_in

NAN = math.nan
GRADED = ("noise-audio", "shift")
PREDICTIONS = "predictions-"
Facts = Sequence[tuple[str, str]]


def robustness_page(folders: Sequence[Path], facts: Facts = ()) -> Page:
    """Table 3 beside the paper's, each metric by share of changed clips, and every clip's captions."""
    read = [json.loads((folder / "robustness.json").read_text("utf-8")) for folder in folders]
    perturb = read[0]["perturb"]
    graded = perturb in GRADED
    models = []
    for each, values in zip(_prefixes(folders), read, strict=True):
        for model in values["models"]:
            points = [SweepPoint(**point) for point in model["points"]]
            models.append(ModelSweep(**{**model, "name": each + model["name"], "points": points}))
    found = [Table(title, header, rows) for title, header, rows in tables(models, perturb, graded)]
    metrics = [
        name for name in SHOWN if any(name in point.values for model in models for point in model.points)
    ]
    scale, label = (1 if graded else 100), axis_label(perturb)
    figures = []
    for kept in (False, True):
        for name in metrics:
            lines = [
                line for i, model in enumerate(models) for line in _sweep_lines(model, name, kept, scale, i)
            ]
            title = f"{name}, kept of the value at 0, %" if kept else name
            figures.append(line_chart(title, label, "kept, %" if kept else name, lines))
    described = [("clips", str(read[0]["clips"])), ("clip names", read[0]["id_hash"]), ("store", read[0]["store"]),
                 ("perturbation", perturb)]  # fmt: skip
    return Page(
        title="Robustness",
        lead=f"What is left of captions: {label}, {read[0]['clips']} clips, {len(read[0]['pairings'])} seeds",
        counts=[("models", str(len(models))), ("clips", str(read[0]["clips"]))],
        facts=[*facts, *described, *version_facts()],
        figures=[figure for figure in figures if figure is not None],
        tables=found,
        clips=_changed_clips(folders),
    )


def _sweep_lines(model: ModelSweep, name: str, kept: bool, scale: float, colour: int) -> Iterator[Line]:
    points = [
        (
            point.at * scale,
            *((value * 100 if kept else value) for value in _value_and_interval(point, name, kept)),
        )
        for point in model.points
        if name in (point.kept if kept else point.values)
    ]
    yield Line(model.name, [(x, y, low, high) for x, y, low, high in points], colour=colour)
    if not kept and model.preset.endswith(
        "-base"
    ):  # beside a small model the paper's would only stretch the axis
        paper = [
            (point.at * scale, point.paper[name], NAN, NAN) for point in model.points if name in point.paper
        ]
        yield Line(f"{model.name}, paper", paper, dashed=True, colour=colour)


def _value_and_interval(point: SweepPoint, name: str, kept: bool) -> tuple[float, float, float]:
    values, intervals = (point.kept, point.kept_intervals) if kept else (point.values, point.intervals)
    low, high = intervals.get(name, (NAN, NAN))
    return values[name], low, high


def _changed_clips(folders: Sequence[Path]) -> ClipList | None:
    """Captions of each clip as it is and changed, those first whose words changed most."""
    before = _prefixes(folders)
    paths = {
        prefix: path
        for prefix, folder in zip(before, folders, strict=True)
        if (path := folder / "clips.csv").is_file()
    }
    if not paths:
        return None

    def clips() -> Iterator[Clip]:
        for prefix, path in paths.items():
            for row in _csv(path):
                captions = (row["own"], row["changed"], row["references"])
                numbers = (word_change(row["own"], row["changed"]), *(number_in(row, name) for name in names))
                yield Clip(f"{prefix}{row['model']}: {row['key']}", captions, numbers)

    texts = ("model", "key", "donor", "own", "changed", "references")
    first = (next(iter(_csv(path)), {}) for path in paths.values())
    names = list(dict.fromkeys(name for row in first for name in row if name not in texts))
    change = Column("changed words", 2, "share of the words of both captions that only one of them has")
    return ClipList(clips, (change, *map(Column, names)), ("as it is", "changed", "references"), change.name)


def evaluation_page(folders: Sequence[Path], facts: Facts = ()) -> Page:
    """Table 1 beside the paper's, and each clip's captions by every model."""
    models: list[dict[str, Any]] = []
    predictions: dict[str, Path] = {}
    for prefix, folder in zip(_prefixes(folders), folders, strict=True):
        models += [
            {**model, "model": prefix + model["model"]}
            for model in json.loads((folder / "metrics.json").read_text("utf-8"))["models"]
        ]
        for path in sorted(folder.glob(f"{PREDICTIONS}*.csv")):
            predictions[prefix + path.stem.removeprefix(PREDICTIONS)] = path
    names = list(dict.fromkeys(name for model in models for name in model["metrics"]))
    rows = []
    for model in models:
        between = model["intervals"]
        count = model["parameters"]
        rows.append([model["model"], "" if count is None else f"{count / 1e6:.1f} M",
                     *(number(model["metrics"].get(name), 3) for name in names)])  # fmt: skip
        rows.append(
            [
                "  95 %",
                "",
                *(f"{between[n][0]:.3f}-{between[n][1]:.3f}" if n in between else "" for n in names),
            ]
        )
        if paper := model.get("paper"):
            cells = (number(paper["metrics"][n], 3) if n in paper["metrics"] else "" for n in names)
            rows.append([f"  paper's {paper['method']} (AudioCaps)", "", *cells])
    return Page(
        title="Evaluation",
        lead=f"{len(models)} models, {models[0]['clips']} clips",
        counts=[("models", str(len(models))), ("clips", str(models[0]["clips"]))],
        facts=[*facts, ("clip names", models[0]["id_hash"]), *version_facts()],
        tables=[Table("Metrics", ("model", "parameters", *names), rows)],
        clips=_predicted_clips(predictions),
    )


def _predicted_clips(predictions: Mapping[str, Path]) -> ClipList | None:
    """Clips with the captions of all models, those first on which they differ most."""
    if not predictions:
        return None
    predicted = {name: {row["key"]: row for row in _csv(path)} for name, path in predictions.items()}
    keys = list(dict.fromkeys(key for rows in predicted.values() for key in rows))
    first = next(iter(next(iter(predicted.values())).values()), {})
    numbers = [name for name in first if name not in ("key", "caption", "references")]
    many = len(predicted) > 1
    columns = [Column(f"{name} ({model})" if many else name) for model in predicted for name in numbers]
    referenced = "references" in first

    def clips() -> Iterator[Clip]:
        for key in keys:
            rows = [found.get(key, {}) for found in predicted.values()]
            said = tuple(row.get("caption", "") for row in rows)
            values = [number_in(row, name) for row in rows for name in numbers]
            change = [max(word_change(said[0], other) for other in said[1:])] if many else []
            references = (
                (next((row["references"] for row in rows if row.get("references")), ""),)
                if referenced
                else ()
            )
            yield Clip(key, said + references, (*change, *values))

    change = (
        [Column("different words", 2, "largest share of words that only one of two captions has")]
        if many
        else []
    )
    titles = (*predicted, *(["references"] if referenced else []))
    return ClipList(clips, (*change, *columns), titles, change[0].name if change else "")


def speed_page(folders: Sequence[Path], facts: Facts = ()) -> Page:
    """Figure 2: seconds by number of frames and stage."""
    read = [json.loads((folder / "speed.json").read_text("utf-8")) for folder in folders]
    rows = [
        TimingRow(**{**row, "model": prefix + row["model"]})
        for prefix, values in zip(_prefixes(folders), read, strict=True)
        for row in values["rows"]
    ]
    timed = Timings(read[0]["options"], read[0]["environment"], rows)
    header, cells, notes = times_table(timed)
    models = list(dict.fromkeys(row.model for row in rows))
    lines, ratios = [], []
    for model, decoding in dict.fromkeys((row.model, row.decoding) for row in rows):
        own = [row for row in rows if (row.model, row.decoding) == (model, decoding) and row.seconds]
        colour = models.index(model) % COLOURS
        lines.append(Line(f"{model}, {decoding}", [_run_range(row) for row in own], colour=colour))
        ratios.append(Line(f"{model}, {decoding}", [(row.frames, row.to_audio_only, NAN, NAN) for row in own
                           if row.to_audio_only is not None], colour=colour))  # fmt: skip
    for model in models:
        paper = {row.frames: row.paper for row in rows if row.model == model and row.paper is not None}
        ratios.append(Line(f"{model}, paper", [(x, y, NAN, NAN) for x, y in sorted(paper.items())], dashed=True,
                           colour=models.index(model) % COLOURS))  # fmt: skip
    bars = [
        (
            f"{row.model}, {row.frames} frames, {row.decoding}",
            [(s, t) for s, t in row.seconds.items() if s != "all"],
        )
        for row in rows
    ]
    figures = [
        line_chart("Time over audio-only's", "frames", "ratio", ratios, top=1.0),
        line_chart("Seconds, from the shortest to the longest run", "frames", "seconds", lines),
        stacked_bars("Seconds by stage", "s", bars),
    ]
    return Page(
        title="Speed",
        lead=notes[-1],
        notes=notes[:-1],
        facts=[*facts, *setting_facts(read[0]["options"]), *setting_facts(read[0]["environment"])],
        figures=[figure for figure in figures if figure is not None],
        tables=[Table("Seconds", header, cells)],
    )


def _run_range(row: TimingRow) -> tuple[float, float, float, float]:
    runs = [run["all"] for run in row.raw if "all" in run] or [row.seconds["all"]]
    return row.frames, row.seconds["all"], min(runs), max(runs)


def training_page(folders: Sequence[Path], facts: Facts = ()) -> Page:
    """The curves of runs and their settings."""
    logs = {prefix: _log(folder) for prefix, folder in zip(_prefixes(folders), folders, strict=True)}
    figures: list[Figure | None] = []
    for title, names in PANELS:
        lines = [
            Line(
                f"{prefix}{label or title}",
                [(row["step"], row[name], NAN, NAN) for row in log if name in row],
            )
            for prefix, log in logs.items()
            for name, label in names.items()
        ]
        figures.append(line_chart(title, "step", title, lines))
    last = [log[-1] for log in logs.values() if log]
    settings: list[tuple[str, str]] = []
    for prefix, folder in zip(_prefixes(folders), folders, strict=True):
        config = folder / "last" / "config.yaml"
        if config.is_file():
            settings += setting_facts(yaml.safe_load(config.read_text("utf-8")), prefix)
    checked = [
        row for log in logs.values() for row in log if any(name.startswith("validation") for name in row)
    ]
    columns = list(dict.fromkeys(name for row in checked for name in row if name != "step"))
    rows = [[str(row["step"]), *(f"{row[n]:.4g}" if isinstance(row.get(n), int | float) else "" for n in columns)]
            for row in checked]  # fmt: skip
    return Page(
        title="Training: " + ", ".join(folder.absolute().name for folder in folders),
        lead=f"step {last[0]['step']}" if last else "no step yet",
        facts=[*facts, *settings, *version_facts()],
        figures=[figure for figure in figures if figure is not None],
        tables=[Table("Evaluations", ("step", *columns), rows)] if rows else [],
    )


def word_change(one: str, other: str) -> float:
    """Of the different words of two captions, the share that only one of them has: 0 for the same words, 1 for none
    in common."""
    a, b = set(one.lower().split()), set(other.lower().split())
    return 1 - len(a & b) / len(a | b) if a | b else 0.0


def _log(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _prefixes(folders: Sequence[Path]) -> list[str]:
    """What stands before names of each folder's models: nothing for one folder."""
    if len(folders) == 1:
        return [""]
    names = [folder.absolute().name for folder in folders]
    return [
        f"{name if names.count(name) == 1 else folder}: " for name, folder in zip(names, folders, strict=True)
    ]


def _csv(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
