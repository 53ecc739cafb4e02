"""Results of `evacap robustness`: the metrics over the level of a perturbation, as a figure and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from evacap_cli.atomic import written_whole
from evacap_cli.metrics.mixture_scores import ModelSweep
from evacap_cli.report.tables import number

NUMBERS = ("gate", "entropy", "evidence", "transport", "score")
SHOWN = ("BLEU_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE", "SPIDEr")


def axis_label(perturb: str) -> str:
    """The label of the figure's x axis: the quantity that a perturbation changes, with its unit."""
    if perturb == "noise-audio":
        return "signal to noise, dB"
    if perturb == "shift":
        return "sound late by, s"
    return f"share of clips ({perturb}), %"


def draw_sweep(models: Sequence[ModelSweep], perturb: str, graded: bool, path: Path) -> None:
    """Plots each metric over the levels of a perturbation and writes a PNG to `path`.

    models: one line each, with 95 % intervals, and a dotted line for the paper's values (full-size presets only).
    perturb: the perturbation. graded: levels are strengths (dB or seconds); otherwise, they are fractions of the clips
    that are perturbed. An existing file is replaced once the new one is complete.
    """
    metrics = [
        name for name in SHOWN if any(name in point.values for model in models for point in model.points)
    ]
    scale = 1 if graded else 100
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(
            figsize=(3.6 * min(3, len(metrics)), 2.9 * -(-len(metrics) // 3)), dpi=120, layout="constrained"
        )
        for place, name in enumerate(metrics):
            axes = figure.add_subplot(-(-len(metrics) // 3), min(3, len(metrics)), place + 1)
            for color, model in enumerate(models):
                points = [point for point in model.points if name in point.values]
                at = [point.at * scale for point in points]
                low, high = zip(*(point.intervals[name] for point in points), strict=True)
                axes.plot(
                    at,
                    [point.values[name] for point in points],
                    "o-",
                    ms=3,
                    color=f"C{color}",
                    label=model.name,
                )
                axes.fill_between(at, low, high, color=f"C{color}", alpha=0.12, linewidth=0)
                # A small model scores far below the paper's: its line would be squeezed into the bottom of the axes.
                full_size = model.preset.endswith("-base")
                paper = [
                    (point.at * scale, point.paper[name])
                    for point in points
                    if full_size and name in point.paper
                ]
                if paper:
                    axes.plot(
                        *zip(*paper, strict=True), ":", color=f"C{color}", lw=1, label=f"{model.name}, paper"
                    )
            axes.set_title(name, loc="left")
            axes.set_xlabel(axis_label(perturb))
            axes.grid(alpha=0.25)
            if not place:
                axes.legend(fontsize=7)
        with written_whole(path, sync=False) as temporary:
            figure.savefig(temporary, format="png")


def tables(
    models: Sequence[ModelSweep], perturb: str, graded: bool
) -> list[tuple[str, list[str], list[list[str]]]]:
    """All results as tables for a terminal or a page: a list of (title, header, rows). Arguments as in `draw_sweep`."""
    names = list(dict.fromkeys(name for model in models for point in model.points for name in point.values))
    level = {"noise-audio": "signal to noise", "shift": "sound late by"}.get(perturb, "share changed")
    unit = {"noise-audio": " dB", "shift": " s"}.get(perturb, "")

    def format_level(at: float) -> str:
        return f"{at:g}{unit}" if unit else f"{at * 100:.4g} %"

    values, kept = [], []
    for model in models:
        for point in model.points:
            values.append(
                [model.name, format_level(point.at), *(number(point.values.get(n), 3) for n in names)]
            )
            ranges = (point.intervals.get(n) for n in names)
            values.append(["  95 %", "", *("" if r is None else f"{r[0]:.3f}-{r[1]:.3f}" for r in ranges)])
            if point.paper:
                cells = (number(point.paper[n], 3) if n in point.paper else "" for n in names)
                values.append(["  paper (AudioCaps)", "", *cells])
            if point.at or graded:
                kept.append(
                    [
                        model.name,
                        format_level(point.at),
                        *(f"{point.kept[n]:.1%}" if n in point.kept else "" for n in names),
                    ]
                )
                ranges = (point.kept_intervals.get(n) for n in names)
                kept.append(
                    [
                        "  95 %",
                        "",
                        *("" if r is None else f"{r[0] * 100:.0f}-{r[1] * 100:.0f}%" for r in ranges),
                    ]
                )
    result = [
        (f"Perturbation: {perturb}", ["model", level, *names], values),
        (
            "Share of the value at 0 that is kept (95 %: bootstrap over seeds and clips)",
            ["model", level, *names],
            kept,
        ),
    ]
    followed = [
        [model.name, source, *(number(row.get(n), 3) for n in names)]
        for model in models
        for source, row in model.followed.items()
    ]
    if followed:
        title = "Captions of mismatched pairs, scored against the references of the sound and of the picture"
        result.append((title, ["model", "references", *names], followed))
    detection = [
        [model.name, *(number(model.told_apart.get(n), 3) for n in NUMBERS)]
        for model in models
        if model.told_apart
    ]
    if detection:
        title = "Detection of perturbed clips by each number, AUROC (0.5 is chance)"
        result.append((title, ["model", *NUMBERS], detection))
    kinds = [
        [model.name, kind, f"{row['clips']:.0f}", *(number(row.get(n), 3) for n in (*NUMBERS, *names))]
        for model in models
        for kind, row in model.by_kind.items()
    ]
    if kinds:
        result.append(("Unperturbed clips, by kind", ["model", "kind", "clips", *NUMBERS, *names], kinds))
    return result
