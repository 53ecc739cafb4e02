"""What the gate did in one clip, in one picture: frames, gate and entropy over time, spectrogram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from PIL import Image

from evacap_cli.features.audio import LOW_HZ
from evacap_cli.features.settings import HOP_SECONDS, WINDOW_SECONDS

WIDE, HIGH, DPI = 8.0, 4.3, 100  # inches, dots an inch
LEFT, RIGHT = 0.065, 0.885  # where time begins and ends, as shares of the width
TITLE_SIZE, NAME_SIZE = 11.0, 7.5  # points
KILOHERTZ = (0.25, 0.5, 1, 2, 4, 8)
SLACK, MOST = 0.98, 1000  # of a line's room, as letters are fitted to pixels; characters that are looked at
FAMILY = "DejaVu Sans"  # comes with matplotlib
FURTHER = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS",
    "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI",
)  # fmt: skip
"""Asked, where they are installed, for what the first one has not."""


@dataclass(frozen=True, eq=False)
class GateView:
    """What is drawn of a clip. Times in seconds on the clock of its file.

    gate, entropy: (columns,) at `times`, NaN or None where there is none. fbank: (T, F) from `start` on; low,
    high: Hz that its bins span, evenly in mel. frames: uint8 (N, 3, S, S) seen at `frame_times`, or None,
    and then `note` may say why.
    """

    title: str
    name: str
    start: float
    end: float
    times: np.ndarray
    gate: np.ndarray
    entropy: np.ndarray | None
    fbank: np.ndarray
    frames: np.ndarray | None
    frame_times: np.ndarray
    note: str = ""
    low: float = LOW_HZ
    high: float = 8000.0


def draw_gates(view: GateView, path: Path) -> None:
    """Writes the picture as a PNG, of 256 colours: a quarter of the bytes, in half the time."""
    figure = gate_figure(view)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    colours = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    colours.quantize(256, Image.Quantize.FASTOCTREE).save(path, "png")
    figure.clear()  # a figure is a knot of references; what is heavy in it goes now, not at the next collection


def gate_figure(view: GateView) -> Figure:
    """Three axes, from the top: `frames`, `gate`, `spectrogram` (their labels), over the same seconds."""
    figure = Figure(figsize=(WIDE, HIGH), dpi=DPI, facecolor="white")
    title = drawable(view.title, TITLE_SIZE, "bold", lines=2)
    figure.text(LEFT, 0.905, title, family=_families(title), size=TITLE_SIZE, weight="bold", va="bottom",
                linespacing=1.1, parse_math=False, usetex=False)  # fmt: skip
    name = drawable(view.name, NAME_SIZE)
    figure.text(LEFT, 0.892, name, family=_families(name), size=NAME_SIZE, color="0.35", va="top", parse_math=False,
                usetex=False)  # fmt: skip
    width = RIGHT - LEFT
    frames = figure.add_axes((LEFT, 0.575, width, 0.265), label="frames")
    gate = figure.add_axes((LEFT, 0.38, width, 0.165), label="gate")
    heard = figure.add_axes((LEFT, 0.10, width, 0.255), label="spectrogram")
    _draw_frames(frames, view)
    _draw_gate(gate, view)
    _draw_spectrogram(heard, view)
    for axes in (frames, gate, heard):
        axes.set_xlim(view.start, max(view.end, view.start + 1e-3))
    return figure


def _draw_frames(axes: Axes, view: GateView) -> None:
    axes.set_axis_off()
    axes.set_ylim(0, 1)
    if view.frames is None or not len(view.frames):
        words = drawable(f"no picture{f': {view.note}' if view.note else ''}", NAME_SIZE)
        axes.text(0.5, 0.5, words, family=_families(words), size=NAME_SIZE, color="0.4", ha="center", va="center",
                  transform=axes.transAxes, parse_math=False, usetex=False)  # fmt: skip
        return
    box = axes.get_position()
    seconds = max(view.end - view.start, 1e-3)
    side = seconds * (box.height * HIGH) / (box.width * WIDE)  # seconds under a square as high as the axes
    times = view.frame_times
    early, late = view.start + side / 2, view.end - side / 2
    whole = [i for i, t in enumerate(times) if early - 1e-6 <= t <= late + 1e-6] or [len(times) // 2]
    stride = math.ceil(side / (times[1] - times[0]) - 1e-6) if len(times) > 1 and times[1] > times[0] else 1
    shown = whole[(len(whole) - 1) % stride // 2 :: stride]  # evenly spaced, none over another
    for i in shown:
        centre = min(max(times[i], early), late)
        axes.imshow(
            view.frames[i].transpose(1, 2, 0),
            extent=(centre - side / 2, centre + side / 2, 0, 1),
            aspect="auto",
            interpolation="antialiased",
        )
        axes.plot((times[i], times[i]), (0, -0.06), color="0.5", linewidth=0.8, clip_on=False)


def _draw_gate(axes: Axes, view: GateView) -> None:
    axes.set_ylim(0, 1)
    axes.set_yticks((0, 0.5, 1), ("0", "0.5", "1"), size=7)
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    lines = [("gate", view.gate, "tab:blue", 1.8)]
    if view.entropy is not None:
        lines.append(("entropy", view.entropy, "0.6", 1.0))
    lines = sorted(
        (line for line in lines if np.isfinite(line[1]).any()), key=lambda line: np.nanmean(line[1])
    )
    at = -1.0
    for label, values, color, width in lines:
        axes.plot(view.times, values, color=color, linewidth=width, label=label,
                  marker="o" if len(values) < 3 else "", markersize=3)  # fmt: skip
        at = max(float(np.nanmean(values)), at + 0.36)  # so that the words of one stand above the other's
        words = f"{label} {np.nanmean(values):.3f}\n{np.nanmin(values):.3f}-{np.nanmax(values):.3f}"
        axes.annotate(words, (1, at), (6, 0), "axes fraction", "offset points", size=7, color=color, family=FAMILY,
                      va="center", annotation_clip=False)  # fmt: skip
    axes.set_ylabel("gate", size=8, family=FAMILY)


def _draw_spectrogram(axes: Axes, view: GateView) -> None:
    # windows that begin in the clip and end in it; what follows is padding
    inside = max(
        1, min(len(view.fbank), int((view.end - view.start - WINDOW_SECONDS) / HOP_SECONDS + 1e-6) + 1)
    )
    heard = np.nan_to_num(np.asarray(view.fbank[:inside], np.float32).T)
    low, high = np.quantile(heard[:, ::4], (0.02, 0.998))
    axes.imshow(
        heard,
        origin="lower",
        extent=(view.start, view.start + inside * HOP_SECONDS, 0, len(heard)),
        aspect="auto",
        cmap="magma",
        vmin=low,
        vmax=max(high, low + 1e-6),
        interpolation="antialiased",
    )
    ticks = [hertz for hertz in KILOHERTZ if view.low < hertz * 1000 <= view.high]
    bottom, top = _mel(view.low), _mel(view.high)
    places = [len(heard) * (_mel(hertz * 1000) - bottom) / (top - bottom) for hertz in ticks]
    axes.set_yticks(places, [f"{hertz:g}" for hertz in ticks], size=7)
    axes.set_ylabel("kHz", size=8, family=FAMILY)
    axes.set_xlabel("seconds", size=8, family=FAMILY, labelpad=1)
    axes.tick_params(axis="x", labelsize=7)
    axes.ticklabel_format(axis="x", useOffset=False, style="plain")


def _mel(hertz: float) -> float:
    """Kaldi's scale, as the fbank's."""
    return 1127.0 * math.log1p(hertz / 700.0)


def drawable(text: str, size: float, weight: str = "normal", lines: int = 1) -> str:
    """`text` in letters of `size` points on at most `lines` lines of the picture; the rest is cut. What no font here
    has, and what would not be drawn but obeyed, stands there as an escape."""
    room = (1 - LEFT) * WIDE * 72 / size * SLACK
    text = "".join(
        c if c.isprintable() and _font_of(ord(c)) else c.encode("unicode_escape").decode()
        for c in " ".join(text[:MOST].split())
    )
    rows: list[str] = []
    while text:
        fits = _fitting(text, room, weight)
        if fits == len(text):
            return "\n".join([*rows, text])
        if len(rows) == lines - 1:
            fits = _fitting(text, room - _ems("…", weight), weight)
            return "\n".join([*rows, text[:fits].rstrip() + "…"])
        space = text.rfind(" ", 1, fits + 1)
        cut = space if space > fits // 2 else fits
        rows.append(text[:cut])
        text = text[cut:].lstrip()
    return "\n".join(rows)


def _fitting(text: str, room: float, weight: str) -> int:
    """How many of its characters fit into so many ems."""
    for i, c in enumerate(text):
        room -= _ems(c, weight)
        if room < 0:
            return i
    return len(text)


@lru_cache(maxsize=4096)
def _ems(character: str, weight: str) -> float:
    """How wide a character is, of its own height."""
    font = _font(_font_of(ord(character)) or FAMILY, weight)
    font.set_size(72, 72)
    return float(font.load_char(ord(character)).linearHoriAdvance / 65536 / 72)


def _families(text: str) -> list[str]:
    """The fonts that a text needs, as matplotlib looks for them."""
    return list(dict.fromkeys([FAMILY, *(_font_of(ord(c)) or FAMILY for c in text if c != "\n")]))


@lru_cache(maxsize=4096)
def _font_of(code: int) -> str | None:
    return next((family for family in (FAMILY, *_installed()) if code in _characters(family)), None)


@cache
def _installed() -> tuple[str, ...]:
    known = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(family for family in FURTHER if family in known)


@cache
def _characters(family: str) -> frozenset[int]:
    return frozenset(_font(family, "normal").get_charmap())


@cache
def _font(family: str, weight: str) -> FT2Font:
    """One of our own: those that matplotlib draws with have its sizes."""
    return FT2Font(font_manager.findfont(font_manager.FontProperties(family=[family], weight=weight)))
