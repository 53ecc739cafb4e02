"""The page of `evacap speed`: Figure 2, seconds by number of frames and stage."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from evacap_cli.report.latency import TimingRow, Timings, times_table
from evacap_cli.report.pages import Page, Table
from evacap_cli.report.pages.figures import COLOURS, Line, line_chart, stacked_bars
from evacap_cli.tasks.reporting.folders import Facts, counted, prefixes
from evacap_cli.tasks.reporting.pages import setting_facts
from evacap_cli.tasks.reporting.stored_clips import PageTarget

NAN = math.nan


def speed_page(folders: Sequence[Path], facts: Facts, target: PageTarget) -> Page:
    """Times next to those of the paper. `target` is not used: the page has no clips."""
    read = [json.loads((folder / "speed.json").read_text("utf-8")) for folder in folders]
    rows = [
        TimingRow(**{**row, "model": prefix + row["model"]})
        for prefix, values in zip(prefixes(folders), read, strict=True)
        for row in values["rows"]
    ]
    header, cells, notes = times_table(Timings(read[0]["options"], read[0]["environment"], rows))
    described = [
        fact
        for prefix, values in zip(prefixes(folders), read, strict=True)
        for part in ("options", "environment")
        for fact in setting_facts(values[part], prefix)
    ]
    models = list(dict.fromkeys(row.model for row in rows))
    lines, ratios = [], []
    for model, decoding in dict.fromkeys((row.model, row.decoding) for row in rows):
        own = [row for row in rows if (row.model, row.decoding) == (model, decoding) and row.seconds]
        colour = models.index(model) % COLOURS
        lines.append(Line(f"{model}, {decoding}", [_range_of_runs(row) for row in own], colour=colour))
        ratios.append(Line(f"{model}, {decoding}", [(row.frames, row.to_audio_only, NAN, NAN) for row in own
                           if row.to_audio_only is not None], colour=colour))  # fmt: skip
    for model in models:
        paper = {row.frames: row.paper for row in rows if row.model == model and row.paper is not None}
        ratios.append(Line(f"{model}, paper", [(x, y, NAN, NAN) for x, y in sorted(paper.items())], dashed=True,
                           colour=models.index(model) % COLOURS))  # fmt: skip
    bars = [
        (f"{row.model}, {counted(row.frames, 'frame')}, {row.decoding}",
         [(stage, seconds) for stage, seconds in row.seconds.items() if stage != "all"])
        for row in rows
    ]  # fmt: skip
    figures = [
        line_chart("Time relative to audio-only", "frames", "ratio", ratios, top=1.0),
        line_chart("Seconds: median, shortest and longest run", "frames", "seconds", lines),
        stacked_bars("Seconds by stage", "s", bars),
    ]
    return Page(
        title="Speed"
        if len(folders) == 1
        else "Speed: " + " and ".join(p.rstrip(": ") for p in prefixes(folders)),
        lead=notes[-1],
        notes=notes[:-1],
        facts=[*facts, *described],
        figures=[figure for figure in figures if figure is not None],
        tables=[Table("Seconds", header, cells)],
    )


def _range_of_runs(row: TimingRow) -> tuple[float, float, float, float]:
    runs = [run["all"] for run in row.raw if "all" in run] or [row.seconds["all"]]
    return row.frames, row.seconds["all"], min(runs), max(runs)
