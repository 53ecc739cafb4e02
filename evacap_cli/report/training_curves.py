"""A figure of a training run: its losses, learning rate and other logged numbers over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evacap_cli.atomic import written_whole

PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("loss per word", {"caption": "training", "validation": "validation"}),
    ("CIDEr", {"validation_cider": "validation"}),
    ("learning rate", {"lr": ""}),
    ("mean gate", {"gate_matched": "own picture", "gate_shuffled": "another clip's picture"}),
    ("own pair or not", {"match": "cross-entropy"}),
    ("regularisers", {"gate_stability": "gate stability", "consistency": "consistency"}),
)
"""The panels: title -> names in the log and their labels. A panel without any number in the log is left out."""


def draw_curves(log: Sequence[dict[str, Any]], path: Path) -> None:
    """Plots the log of a run and writes a PNG to `path`.

    log: the rows of `metrics.jsonl`. If they contain no number of a panel, no file is written. An existing file is
    replaced once the new one is complete.
    """
    panels = [(title, lines) for title, lines in PANELS if any(name in row for row in log for name in lines)]
    if not panels:
        return
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(figsize=(4.2 * len(panels), 3.2), dpi=120, layout="constrained")
        for place, (title, lines) in enumerate(panels):
            _draw_panel(figure.add_subplot(1, len(panels), place + 1), title, lines, log)
        with written_whole(path, sync=False) as temporary:
            figure.savefig(temporary, format="png")


def _draw_panel(axes: Axes, title: str, lines: dict[str, str], log: Sequence[dict[str, Any]]) -> None:
    for name, label in lines.items():
        points = [(row["step"], row[name]) for row in log if name in row]
        if points:
            few = len(points) < 30
            axes.plot(
                *zip(*points, strict=True),
                marker="o" if few else "",
                markersize=3,
                linewidth=1.2,
                label=label,
            )
    skipped = [row["step"] for row in log if "skipped" in row]
    for place, step in enumerate(skipped):
        axes.axvline(step, color="tab:red", linewidth=0.6, label="skipped" if place == 0 else "_")
    axes.set_title(title, loc="left")
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    if title == "mean gate":
        axes.set_ylim(0, 1)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8)
