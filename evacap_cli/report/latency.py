"""Inference times by number of frames: a table, and a figure like the paper's Figure 2."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from evacap_cli.atomic import written_whole

_COLUMNS = ("decode", "encode audio", "encode video", "fuse", "generate", "all")
MANY_LINES = 8
"""More have their legend beside the figure: it would cover them."""


@dataclass
class TimingRow:
    """The times of one model at one number of frames.

    seconds: the median of each stage and of their sum, `all`. p95 and spread ((max - min) / median) are of `all`.
    outliers: the number of runs that took more than 1.5 times the median. raw: the seconds of every run. peak_bytes:
    peak memory of the GPU, or of the process on a CPU; None if unknown. to_audio_only and paper: the time divided by
    that of the audio-only model, measured and in the paper. note: why there are no times.
    """

    model: str
    fusion: str
    preset: str
    frames: int
    decoding: str
    seconds: dict[str, float] = field(default_factory=dict)
    p95: float = 0.0
    spread: float = 0.0
    outliers: int = 0
    clips_per_second: float = 0.0
    peak_bytes: int | None = None
    to_audio_only: float | None = None
    paper: float | None = None
    raw: list[dict[str, float]] = field(default_factory=list)
    note: str = ""


@dataclass
class Timings:
    """All rows with the options of the benchmark and its environment (device, versions, date)."""

    options: dict[str, Any]
    environment: dict[str, Any]
    rows: list[TimingRow]


def times_table(timed: Timings) -> tuple[list[str], list[list[str]], list[str]]:
    """The header, the rows and the notes of the table. Times are medians in seconds."""
    stages = [stage for stage in _COLUMNS if any(stage in row.seconds for row in timed.rows)]
    shares = "decode" in stages
    header = [
        "model",
        "frames",
        "decoding",
        *stages,
        "p95",
        "spread",
        "clips/s",
        "peak GB",
        "to audio-only",
        "paper's",
    ]
    rows = []
    for row in timed.rows:
        rows.append([row.model, str(row.frames), row.decoding, *(_number(row.seconds.get(s)) for s in stages),
                     *_rest(row)])  # fmt: skip
        if shares and row.seconds:
            parts = (row.seconds.get(stage) for stage in stages)
            rows.append(["  share", "", "", *("" if p is None else f"{p / row.seconds['all']:.0%}" for p in parts),
                         *[""] * 6])  # fmt: skip
    about, options = timed.environment, timed.options
    runs = max((len(row.raw) for row in timed.rows), default=0)
    notes = [f"{row.model}, {row.frames} frames: {row.note}" for row in timed.rows if row.note]
    notes += [
        f"{row.model}, {row.frames} frames, {row.decoding}: {row.outliers} of {len(row.raw)} runs took over 1.5 times "
        "the median: the machine was busy or its speed varies"
        for row in timed.rows
        if row.outliers
    ]
    threads = f"{about['threads']} thread" + "s" * (about["threads"] != 1)
    notes.append(
        f"median of {runs} runs, batch {options['batch_size']}, beam {options['beam']}, {options['words']} words; "
        f"{about['device']} ({about['processor']}, {threads}), {about['precision']}, "
        f"torch {about['torch']}, {about['date']}"
    )
    return header, rows, notes


def _rest(row: TimingRow) -> list[str]:
    if not row.seconds:
        return ["n/a", *[""] * 5]
    return [
        _number(row.p95),
        f"{row.spread:.0%}",
        f"{row.clips_per_second:.3g}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f}",
        "" if row.to_audio_only is None else f"{row.to_audio_only:.2f}",
        "" if row.paper is None else f"{row.paper:.2f}",
    ]


def _number(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.3f}"


def draw_times(timed: Timings, path: Path) -> None:
    """Plots the time relative to the audio-only model against the number of frames and writes it to `path`, as PNG or
    SVG by its suffix.

    There is one line per model and decoding, and a dotted one for the values that the paper gives. Without a time of
    the audio-only model, no file is written. An existing file is replaced once the new one is complete.
    """
    lines: dict[tuple[str, str], list[TimingRow]] = {}
    for row in timed.rows:
        if row.to_audio_only is not None:
            lines.setdefault((row.model, row.decoding), []).append(row)
    if not lines:
        return
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        many = len(lines) > MANY_LINES
        figure = Figure(figsize=(8.0, 4.4) if many else (5.5, 3.6), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        colors = {model: f"C{i}" for i, model in enumerate(dict.fromkeys(model for model, _ in lines))}
        for (model, decoding), rows in lines.items():
            style = "o-" if decoding == "cached" else "s--"
            axes.plot([row.frames for row in rows], [row.to_audio_only or 0 for row in rows], style, ms=4,
                      color=colors[model], label=f"{model}, {decoding}")  # fmt: skip
        for model in colors:
            rows = next(rows for (name, _), rows in lines.items() if name == model)
            paper = [(row.frames, row.paper) for row in rows if row.paper is not None]
            if len(paper) > 1:
                axes.plot(*zip(*paper, strict=True), ":", color=colors[model], label=f"{model}, paper")
        axes.set_xlabel("frames")
        axes.set_ylabel("time relative to audio-only")
        axes.set_xticks(sorted({row.frames for rows in lines.values() for row in rows}))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        if many:
            figure.legend(fontsize=7, loc="outside right center")
        else:
            axes.legend(fontsize=7)
        with written_whole(path, sync=False) as temporary:
            figure.savefig(temporary, format=path.suffix.removeprefix("."))
