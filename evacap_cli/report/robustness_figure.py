"""A shuffle sweep as a picture and as a page: what the metrics keep as pictures are taken from other clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from evacap_cli.metrics.mixture_scores import ModelSweep
from evacap_cli.report.tables import number

NUMBERS = ("gate", "entropy", "evidence", "score")
SHOWN = ("BLEU_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE", "SPIDEr")


def axis_label(perturb: str) -> str:
    """What the sweep goes over, with its unit."""
    if perturb == "noise-audio":
        return "signal to noise, dB"
    if perturb == "shift":
        return "sound late by, s"
    return f"share of clips ({perturb}), %"


def draw_sweep(models: Sequence[ModelSweep], perturb: str, graded: bool, path: Path) -> None:
    """Draws every metric over the sweep's points, a line a model with its interval; the paper's, where it has one,
    dotted. A PNG that replaces an older one when whole."""
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
                own_size = model.preset.endswith(
                    "-base"
                )  # beside a small model the paper's would only stretch the axis
                paper = [
                    (point.at * scale, point.paper[name])
                    for point in points
                    if own_size and name in point.paper
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
        aside = path.with_name(path.name + ".tmp")
        figure.savefig(aside, format="png")
    aside.replace(path)


def tables(
    models: Sequence[ModelSweep], perturb: str, graded: bool
) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, header, rows) of all that a sweep found, for people."""
    names = list(dict.fromkeys(name for model in models for point in model.points for name in point.values))
    what = {"noise-audio": "signal to noise", "shift": "sound late by"}.get(perturb, "share changed")
    unit = {"noise-audio": " dB", "shift": " s"}.get(perturb, "")

    def place(at: float) -> str:
        return f"{at:g}{unit}" if unit else f"{at * 100:.4g} %"

    values, kept = [], []
    for model in models:
        for point in model.points:
            values.append([model.name, place(point.at), *(number(point.values.get(n), 3) for n in names)])
            between = (point.intervals.get(n) for n in names)
            values.append(["  95 %", "", *("" if b is None else f"{b[0]:.3f}-{b[1]:.3f}" for b in between)])
            if point.paper:
                cells = (number(point.paper[n], 3) if n in point.paper else "" for n in names)
                values.append(["  paper (AudioCaps)", "", *cells])
            if point.at or graded:
                kept.append(
                    [
                        model.name,
                        place(point.at),
                        *(f"{point.kept[n]:.1%}" if n in point.kept else "" for n in names),
                    ]
                )
                ends = (point.kept_intervals.get(n) for n in names)
                kept.append(
                    [
                        "  95 %",
                        "",
                        *("" if e is None else f"{e[0] * 100:.0f}-{e[1] * 100:.0f}%" for e in ends),
                    ]
                )
    found = [
        (f"Perturbation: {perturb}", ["model", what, *names], values),
        ("Kept of the value at 0, with 95 % of draws of seeds and clips", ["model", what, *names], kept),
    ]
    followed = [
        [model.name, whose, *(number(row.get(n), 3) for n in names)]
        for model in models
        for whose, row in model.followed.items()
    ]
    if followed:
        title = "Whom captions of mismatched pairs follow: the sound's references or the picture donor's"
        found.append((title, ["model", "references", *names], followed))
    told = [
        [model.name, *(number(model.told_apart.get(n), 3) for n in NUMBERS)]
        for model in models
        if model.told_apart
    ]
    if told:
        found.append(
            ("Clips as they are told from changed ones, AUROC (0.5 is chance)", ["model", *NUMBERS], told)
        )
    kinds = [
        [model.name, kind, f"{row['clips']:.0f}", *(number(row.get(n), 3) for n in (*NUMBERS, *names))]
        for model in models
        for kind, row in model.by_kind.items()
    ]
    if kinds:
        found.append(("As they are, by kind of clip", ["model", "kind", "clips", *NUMBERS, *names], kinds))
    return found
