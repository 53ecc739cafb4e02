"""Plots the benchmark: CIDEr by share of wrong pictures, mismatch detection, and reliability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from scores import Scored

LINES = {
    "audio-only": ("audio only", "0.4", ":"), "concat": ("AVCap (concat)", "tab:orange", "-"),
    "cross-attention": ("cross-attention", "tab:brown", "-"),
    "entropy-sms-0.05": ("EVACap, as printed", "tab:red", "-"),
    "evidence": ("evidence (ours)", "tab:blue", "-"),
}  # fmt: skip
SHARES = (0.0, 0.05, 0.5, 1.0)


def draw(found: dict[str, Any], scored: Scored, fitting: np.ndarray, path: Path) -> None:
    """Draws the parts of the figure that were measured."""
    shown = [
        (arm, name, title)
        for arm, name, title in (
            ("entropy-sms-0.05", "entropy", "Attention entropy"),
            ("evidence", "evidence", "Evidence: P(match)"),
        )
        if (arm, scored.seeds[0]) in scored.said
    ]
    reliable = found["reliability"].get("evidence")
    panels = 1 + len(shown) + (reliable is not None)
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(figsize=(3.25 * panels, 3.6), dpi=120, layout="constrained")
        left, *others = figure.subplots(1, panels, squeeze=False)[0]
        for arm, (label, colour, style) in LINES.items():
            if arm in found["values"]:
                points = [found["values"][arm][f"shuffled {share:g}"]["CIDEr"] for share in SHARES]
                mean, low, high = map(np.array, zip(*points, strict=True))
                left.plot(SHARES, mean, color=colour, linestyle=style, label=label, marker="o", markersize=3)
                left.fill_between(SHARES, low, high, color=colour, alpha=0.1, linewidth=0)
        left.set(title="CIDEr by share of wrong pictures", xlabel="clips with another's picture", xlim=(0, 1))
        left.legend(frameon=False, fontsize=8)
        for axes, (arm, name, title) in zip(others, shown, strict=False):
            told = scored.said[arm, scored.seeds[0]]
            own, other = np.array(told["own"][name])[fitting], np.array(told["unlike"][name])
            bins = np.linspace(min(own.min(), other.min()), max(own.max(), other.max()), 31).tolist()
            axes.hist(own, bins, color="tab:blue", alpha=0.6, label="own picture")
            axes.hist(other, bins, color="tab:red", alpha=0.6, label="unlike donor's")
            area = found["auroc"][arm][name]["unlike"][0]
            axes.set(title=f"{title}, AUROC {area:.3f}", xlabel=name, ylabel="clips")
            axes.legend(frameon=False, fontsize=8)
        if reliable is not None:
            right, curve = others[-1], reliable["curve"]
            right.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
            right.plot(
                [c[0] for c in curve], [c[1] for c in curve], color="tab:blue", marker="o", markersize=4
            )
            right.set(title=f"Reliability, Brier {reliable['brier']:.3f}", xlabel="said P(match)",
                      ylabel="true share", xlim=(0, 1), ylim=(0, 1))  # fmt: skip
        figure.savefig(path)
