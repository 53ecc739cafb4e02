"""The page of `evacap evaluate`: Table 1, metrics with intervals, and the captions of each clip by all models."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evacap_cli.report.pages import Clip, ClipList, Column, Page, Table
from evacap_cli.report.pages.figures import Interval, interval_chart
from evacap_cli.report.tables import number as cell
from evacap_cli.tasks.evaluation import file_name
from evacap_cli.tasks.reporting.folders import Facts, counted, csv_rows, prefixes, word_change
from evacap_cli.tasks.reporting.pages import version_facts
from evacap_cli.tasks.reporting.robustness import HELP
from evacap_cli.tasks.reporting.stored_clips import PageTarget, Result, StoredClips
from evacap_cli.tasks.reporting.tables import number

NAN = math.nan
TEXTS = ("key", "caption", "references")  # columns of predictions that are not numbers
DIFFERENT = Column("different words", 2, "largest share of words that only one of two captions has")
Rows = Mapping[str, Mapping[str, str]]


def evaluation_page(folders: Sequence[Path], facts: Facts, target: PageTarget) -> Page:
    """Table 1 next to the values of the paper, figures, and the captions of each clip."""
    models: list[dict[str, Any]] = []
    predictions: dict[str, Path] = {}
    results = []
    for prefix, folder in zip(prefixes(folders), folders, strict=True):
        content = json.loads((folder / "metrics.json").read_text("utf-8"))
        results.append(Result(content.get("store", ""), folder))
        for model in content["models"]:
            name = prefix + model["model"]
            models.append({**model, "model": name})
            path = folder / f"predictions-{file_name(model['model'])}.csv"
            if path.is_file():
                predictions[name] = path
    metrics = list(dict.fromkeys(name for model in models for name in model["metrics"]))
    figures = [
        interval_chart(
            name, name, [each for i, model in enumerate(models) for each in _interval(model, name, i)]
        )
        for name in metrics
    ]
    clips, notes = _clip_list(predictions, results, target)
    count = models[0]["clips"]
    return Page(
        title="Evaluation"
        if len(folders) == 1
        else "Evaluation: " + " and ".join(p.rstrip(": ") for p in prefixes(folders)),
        lead=f"{counted(len(models), 'model')}, {counted(count, 'clip')}; "
        "the values of the paper are for the AudioCaps test set",
        facts=[
            *facts,
            ("clip names", models[0]["id_hash"]),
            *(("store", each.store) for each in results),
            *version_facts(),
        ],
        figures=[figure for figure in figures if figure is not None],
        tables=[_metrics_table(models, metrics)],
        clips=clips,
        notes=notes,
        clips_title="Clips, those with the most different captions first"
        if len(predictions) > 1
        else "Clips",
    )


def _interval(model: Mapping[str, Any], metric: str, colour: int) -> Iterator[Interval]:
    value = model["metrics"].get(metric)
    if value is not None:
        paper = (model.get("paper") or {}).get("metrics", {}).get(metric, NAN)
        low, high = model["intervals"].get(metric, (NAN, NAN))
        yield Interval(model["model"], value, low, high, paper, colour)


def _metrics_table(models: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Table:
    rows = []
    for model in models:
        between = model["intervals"]
        parameters = model["parameters"]
        size = "" if parameters is None else f"{parameters / 1e6:.1f} M"
        rows.append([model["model"], size, *(cell(model["metrics"].get(name), 3) for name in metrics)])
        ends = (f"{between[n][0]:.3f}-{between[n][1]:.3f}" if n in between else "" for n in metrics)
        rows.append(["  95 %", "", *ends])
        if paper := model.get("paper"):
            values = (cell(paper["metrics"][n], 3) if n in paper["metrics"] else "" for n in metrics)
            rows.append([f"  paper's {paper['method']} (AudioCaps)", "", *values])
    return Table("Metrics", ("model", "parameters", *metrics), rows)


def _clip_list(
    predictions: Mapping[str, Path], results: Sequence[Result], target: PageTarget
) -> tuple[ClipList | None, list[str]]:
    """Each clip with the captions of all models; those whose captions differ most first. And notes."""
    if not predictions:
        return None, []
    rows = {model: {row["key"]: row for row in csv_rows(path)} for model, path in predictions.items()}
    keys = list(dict.fromkeys(key for each in rows.values() for key in each))
    stored = StoredClips(keys, results, target)
    many = len(rows) > 1
    columns, taken = [], []
    for i, (model, found) in enumerate(rows.items()):
        for name in next(iter(found.values()), {}):
            if name not in TEXTS:
                columns.append(Column(f"{name} ({model})" if many else name, 3, HELP.get(name, ""), i, name))
                taken.append((model, name))

    def every() -> Iterator[Clip]:
        for key in keys:
            captioned = [found.get(key, {}).get("caption", "") for found in rows.values()]
            values = [number(rows[model].get(key, {}), name) for model, name in taken]
            change = [max(word_change(captioned[0], other) for other in captioned[1:])] if many else []
            yield stored.describe(
                Clip(key, (*captioned, " | ".join(stored.references(key))), (*change, *values))
            )

    numbers = (*([DIFFERENT] if many else []), *columns)
    return ClipList(every, numbers, (*rows, "references"), DIFFERENT.name if many else ""), stored.notes
