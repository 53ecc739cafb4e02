"""A figure of one clip: its frames, the gate and entropy over time, and the spectrogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
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

WIDTH, HEIGHT, DPI = 8.0, 4.3, 100  # inches, inches, pixels per inch
LEFT, RIGHT = 0.065, 0.885  # edges of the time axis, as fractions of the width
TITLE_SIZE, NAME_SIZE = 11.0, 7.5  # points
KILOHERTZ = (0.25, 0.5, 1, 2, 4, 8)
LINE_FILL = 0.98  # used fraction of a line's width: rendering rounds the width of each glyph to pixels
MAX_CHARACTERS = 1000  # longer text is cut before it is measured
FAMILY = "DejaVu Sans"  # part of matplotlib
FALLBACK_FAMILIES = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS",
    "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI",
)  # fmt: skip
"""Used, if installed, for characters that `FAMILY` lacks."""


@dataclass(frozen=True, eq=False)
class GateView:
    """The data of a figure. Times are in seconds from the start of the file.

    title, name: the two lines of text above the figure. start, end: the clip. gate, entropy: float (columns,) at
    `times`; NaN where the model has no value, entropy None if the model has none. fbank: (T, F), its first frame at
    `start`. low, high: the range of its bins in Hz; the bins are equally spaced in mel. frames: uint8 (N, 3, S, S) at
    `frame_times`, or None without a picture; `note` gives the reason. words: of a model that decides word by word,
    words with how much of each comes from the picture; they are then drawn instead of the gate.
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
    words: Sequence[tuple[str, float]] = ()


def draw_gates(view: GateView, path: Path) -> None:
    """Writes the figure to `path` as a PNG with a palette of 256 colours, which is four times smaller than RGB."""
    figure = gate_figure(view)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    colours = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    colours.quantize(256, Image.Quantize.FASTOCTREE).save(path, "png")
    figure.clear()  # a figure holds reference cycles: this frees its arrays before the next garbage collection


def gate_figure(view: GateView) -> Figure:
    """Builds the figure. Its axes are labelled `frames`, `gate` and `spectrogram`, top to bottom, and share time."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    title = drawable(view.title, TITLE_SIZE, "bold", lines=2)
    figure.text(LEFT, 0.905, title, family=_families(title), size=TITLE_SIZE, weight="bold", va="bottom",
                linespacing=1.1, parse_math=False, usetex=False)  # fmt: skip
    name = drawable(view.name, NAME_SIZE)
    figure.text(LEFT, 0.892, name, family=_families(name), size=NAME_SIZE, color="0.35", va="top", parse_math=False,
                usetex=False)  # fmt: skip
    width = RIGHT - LEFT
    frames = figure.add_axes((LEFT, 0.575, width, 0.265), label="frames")
    gate = figure.add_axes((LEFT, 0.38, width, 0.165), label="gate")
    spectrogram = figure.add_axes((LEFT, 0.10, width, 0.255), label="spectrogram")
    _draw_frames(frames, view)
    _draw_gate(gate, view)
    _draw_spectrogram(spectrogram, view)
    for axes in (frames, gate, spectrogram):
        axes.set_xlim(view.start, max(view.end, view.start + 1e-3))
    return figure


def _draw_frames(axes: Axes, view: GateView) -> None:
    axes.set_axis_off()
    axes.set_ylim(0, 1)
    if view.frames is None or not len(view.frames):
        text = drawable(f"no picture{f': {view.note}' if view.note else ''}", NAME_SIZE)
        axes.text(0.5, 0.5, text, family=_families(text), size=NAME_SIZE, color="0.4", ha="center", va="center",
                  transform=axes.transAxes, parse_math=False, usetex=False)  # fmt: skip
        return
    box = axes.get_position()
    seconds = max(view.end - view.start, 1e-3)
    side = seconds * (box.height * HEIGHT) / (box.width * WIDTH)  # seconds covered by one square frame
    times = view.frame_times
    first, last = view.start + side / 2, view.end - side / 2
    inside = [i for i, t in enumerate(times) if first - 1e-6 <= t <= last + 1e-6] or [len(times) // 2]
    stride = math.ceil(side / (times[1] - times[0]) - 1e-6) if len(times) > 1 and times[1] > times[0] else 1
    shown = inside[(len(inside) - 1) % stride // 2 :: stride]  # equally spaced, without overlap
    for i in shown:
        centre = min(max(times[i], first), last)
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
    if view.words:
        _draw_words(axes, view)
        return
    lines = [("gate", view.gate, "tab:blue", 1.8)]
    if view.entropy is not None:
        lines.append(("entropy", view.entropy, "0.6", 1.0))
    lines = sorted(
        (line for line in lines if np.isfinite(line[1]).any()), key=lambda line: np.nanmean(line[1])
    )
    label_height = -1.0
    for label, values, color, width in lines:
        axes.plot(view.times, values, color=color, linewidth=width, label=label,
                  marker="o" if len(values) < 3 else "", markersize=3)  # fmt: skip
        label_height = max(float(np.nanmean(values)), label_height + 0.36)  # the two labels must not overlap
        text = f"{label} {np.nanmean(values):.3f}\n{np.nanmin(values):.3f}-{np.nanmax(values):.3f}"
        axes.annotate(text, (1, label_height), (6, 0), "axes fraction", "offset points", size=7, color=color,
                      family=FAMILY, va="center", annotation_clip=False)  # fmt: skip
    axes.set_ylabel("gate", size=8, family=FAMILY)


def _draw_words(axes: Axes, view: GateView) -> None:
    """A bar a word, as wide as all others: words have no place in time."""
    width = max(view.end - view.start, 1e-3) / len(view.words)
    points = (RIGHT - LEFT) * WIDTH * 72 / len(view.words)
    size = min(
        7.0, points / (0.6 * max(len(word) for word, _ in view.words))
    )  # a letter is about 0.6 em wide
    for place, (word, value) in enumerate(view.words):
        middle = view.start + (place + 0.5) * width
        axes.bar(middle, value, 0.9 * width, color="tab:blue", alpha=0.35)
        text = drawable(word, size)
        axes.text(middle, 0.04, text, family=_families(text), size=size, ha="center", parse_math=False,
                  usetex=False)  # fmt: skip
    mean = sum(value for _, value in view.words) / len(view.words)
    axes.annotate(f"words\n{mean:.3f}", (1, 0.5), (6, 0), "axes fraction", "offset points", size=7,
                  color="tab:blue", family=FAMILY, va="center", annotation_clip=False)  # fmt: skip
    axes.set_ylabel("picture", size=8, family=FAMILY)


def _draw_spectrogram(axes: Axes, view: GateView) -> None:
    # number of windows that lie inside the clip; the later ones contain padding
    inside = max(
        1, min(len(view.fbank), int((view.end - view.start - WINDOW_SECONDS) / HOP_SECONDS + 1e-6) + 1)
    )
    bins = np.nan_to_num(np.asarray(view.fbank[:inside], np.float32).T)
    low, high = np.quantile(bins[:, ::4], (0.02, 0.998))
    axes.imshow(
        bins,
        origin="lower",
        extent=(view.start, view.start + inside * HOP_SECONDS, 0, len(bins)),
        aspect="auto",
        cmap="magma",
        vmin=low,
        vmax=max(high, low + 1e-6),
        interpolation="antialiased",
    )
    ticks = [hertz for hertz in KILOHERTZ if view.low < hertz * 1000 <= view.high]
    bottom, top = _mel(view.low), _mel(view.high)
    places = [len(bins) * (_mel(hertz * 1000) - bottom) / (top - bottom) for hertz in ticks]
    axes.set_yticks(places, [f"{hertz:g}" for hertz in ticks], size=7)
    axes.set_ylabel("kHz", size=8, family=FAMILY)
    axes.set_xlabel("seconds", size=8, family=FAMILY, labelpad=1)
    axes.tick_params(axis="x", labelsize=7)
    axes.ticklabel_format(axis="x", useOffset=False, style="plain")


def _mel(hertz: float) -> float:
    """Hz to mel by Kaldi's formula, which the fbank uses."""
    return 1127.0 * math.log1p(hertz / 700.0)


def drawable(text: str, size: float, weight: str = "normal", lines: int = 1) -> str:
    """Wraps `text` in `size` points to at most `lines` lines of the figure's width and cuts the rest.

    Control characters, and characters that no installed font has, become Python escapes such as `\\u200b`.
    """
    width = (1 - LEFT) * WIDTH * 72 / size * LINE_FILL  # in em
    text = "".join(
        c if c.isprintable() and _font_of(ord(c)) else c.encode("unicode_escape").decode()
        for c in " ".join(text[:MAX_CHARACTERS].split())
    )
    rows: list[str] = []
    while text:
        fits = _fitting(text, width, weight)
        if fits == len(text):
            return "\n".join([*rows, text])
        if len(rows) == lines - 1:
            fits = _fitting(text, width - _character_width("…", weight), weight)
            return "\n".join([*rows, text[:fits].rstrip() + "…"])
        space = text.rfind(" ", 1, fits + 1)
        cut = space if space > fits // 2 else fits
        rows.append(text[:cut])
        text = text[cut:].lstrip()
    return "\n".join(rows)


def _fitting(text: str, width: float, weight: str) -> int:
    """The number of leading characters that fit into `width` em."""
    for i, c in enumerate(text):
        width -= _character_width(c, weight)
        if width < 0:
            return i
    return len(text)


@lru_cache(maxsize=4096)
def _character_width(character: str, weight: str) -> float:
    """The advance width of a character in em."""
    font = _font(_font_of(ord(character)) or FAMILY, weight)
    font.set_size(72, 72)
    return float(font.load_char(ord(character)).linearHoriAdvance / 65536 / 72)


def _families(text: str) -> list[str]:
    """The font families that a text needs, in matplotlib's order of search."""
    return list(dict.fromkeys([FAMILY, *(_font_of(ord(c)) or FAMILY for c in text if c != "\n")]))


@lru_cache(maxsize=4096)
def _font_of(code: int) -> str | None:
    """The first family that has a character, None if no installed one has it."""
    return next((family for family in (FAMILY, *_installed()) if code in _characters(family)), None)


@cache
def _installed() -> tuple[str, ...]:
    known = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(family for family in FALLBACK_FAMILIES if family in known)


@cache
def _characters(family: str) -> frozenset[int]:
    return frozenset(_font(family, "normal").get_charmap())


@cache
def _font(family: str, weight: str) -> FT2Font:
    """A font object of this module: setting a size on matplotlib's own objects would change its drawings."""

    return FT2Font(font_manager.findfont(font_manager.FontProperties(family=[family], weight=weight)))
