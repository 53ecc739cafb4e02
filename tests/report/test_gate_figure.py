"""The picture of a clip's gate, read back from its figure."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from evacap_cli.report import gate_figure as module
from evacap_cli.report.gate_figure import GateView, draw_gates, drawable, gate_figure

START, END, COLUMN = 5.0, 15.0, 0.32
TIMES = START + (np.arange(32) + 0.5) * COLUMN
FRAMES = np.stack([np.full((3, 24, 24), 40 * i, np.uint8) for i in range(4)])


@pytest.fixture
def view() -> GateView:
    rng = np.random.default_rng(0)
    return GateView(
        "a dog barks",
        "dog.mp4, 5-15 s",
        START,
        END,
        TIMES,
        np.linspace(0.2, 0.4, 32),
        np.full(32, 0.8),
        rng.standard_normal((1024, 128)).astype(np.float32),
        FRAMES,
        START + (np.arange(4) + 0.5) * 2.5,
    )


def axes_of(figure: Figure) -> dict[str, mpl.axes.Axes]:
    return {str(axes.get_label()): axes for axes in figure.axes}


def words_of(figure: Figure) -> str:
    own = [text.get_text() for text in figure.texts]
    return "\n".join(own + [text.get_text() for axes in figure.axes for text in axes.texts])


def test_every_part_is_drawn_at_its_time(view: GateView) -> None:
    figure = gate_figure(view)
    axes = axes_of(figure)
    assert list(axes) == ["frames", "gate", "spectrogram"]
    assert {part.get_xlim() for part in axes.values()} == {(START, END)}
    tops = [part.get_position().y0 for part in axes.values()]
    assert tops == sorted(tops, reverse=True)
    assert [text.get_text() for text in figure.texts] == ["a dog barks", "dog.mp4, 5-15 s"]

    shown = axes["frames"].images
    centres = [np.mean(image.get_extent()[:2]) for image in shown]
    assert centres == pytest.approx(view.frame_times)
    assert [int(np.asarray(image.get_array()).max()) for image in shown] == [0, 40, 80, 120]

    assert axes["gate"].get_ylim() == (0, 1)
    lines = {str(line.get_label()): line for line in axes["gate"].lines}
    assert set(lines) == {"gate", "entropy"}
    assert np.array_equal(lines["gate"].get_xdata(), TIMES)
    assert np.array_equal(lines["gate"].get_ydata(), view.gate)
    assert lines["gate"].get_linewidth() > lines["entropy"].get_linewidth()

    (heard,) = axes["spectrogram"].images
    assert heard.get_array().shape == (128, 998)  # (10 s - 25 ms) / 10 ms + 1
    assert heard.get_extent() == pytest.approx((START, START + 9.98, 0, 128))
    assert np.array_equal(heard.get_array()[7], view.fbank[:998, 7])
    assert "seconds" in axes["spectrogram"].get_xlabel()


def test_many_frames_become_a_few_evenly_spaced_ones(view: GateView) -> None:
    times = START + (np.arange(50) + 0.5) * 0.2
    figure = gate_figure(replace(view, frames=np.repeat(FRAMES, 13, axis=0)[:50], frame_times=times))
    extents = [image.get_extent() for image in axes_of(figure)["frames"].images]
    assert 3 <= len(extents) <= 10
    assert all(left[1] <= right[0] + 1e-9 for left, right in pairwise(extents))
    assert extents[0][0] >= START
    assert extents[-1][1] <= END


def test_without_picture_and_without_entropy(view: GateView) -> None:
    nothing = np.full(32, np.nan)
    blind = replace(
        view, frames=None, gate=np.zeros(32), entropy=nothing, note="codec $x$ is\x1b[31m unknown"
    )
    figure = gate_figure(blind)
    axes = axes_of(figure)
    assert not axes["frames"].images
    assert "no picture: codec $x$ is\\x1b[31m unknown" in words_of(figure)
    assert [str(line.get_label()) for line in axes["gate"].lines] == ["gate"]
    assert [
        str(line.get_label()) for line in axes_of(gate_figure(replace(view, entropy=None)))["gate"].lines
    ] == ["gate"]


HOSTILE = [
    "costs $5 and $\\frac{1}{0}$ more",
    "a\x00b\x07c\x1b[2Jd\ne\rf\tg",
    "\u202egnp.exe \u200b\ufeff \udce9 \ud800",
    "犬が吠える 狗在叫 كلب ينبح собака лает 🐕 𓃥 \U0010ffff",
    "a^b_c {x} %s \\n \\usepackage{x}",
    "word " * 200,
    "w" * 3000,
    "字" * 500,
    "",
    "   ",
]


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_drawn_literally(text: str, view: GateView, tmp_path: Path) -> None:
    hostile = replace(view, title=text, name=text, note=text, frames=None)
    figure = gate_figure(hostile)
    texts = [*figure.texts, *axes_of(figure)["frames"].texts]
    for shown in texts:
        assert not shown.get_parse_math()
        assert all(c.isprintable() for c in shown.get_text().replace("\n", ""))
    draw_gates(hostile, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (800, 430)
    boxes = [shown.get_window_extent() for shown in texts if shown.get_text()]
    assert all(box.x0 >= 0 and box.x1 <= 800 and box.y0 >= 0 and box.y1 <= 430 for box in boxes)
    if len(text) > 500:  # and no more is cut than has to be
        assert min(box.x1 for box in boxes) > 700


def test_a_dollar_sign_is_not_markup() -> None:
    assert drawable("$a$ \\alpha", 9) == "$a$ \\alpha"
    assert drawable("a\nb\t c", 9) == "a b c"
    assert drawable("\x1b", 9) == "\\x1b"


def test_long_text_is_wrapped_and_then_truncated() -> None:
    first, second = drawable("wide " * 60, 20.0, lines=2).split("\n")
    assert set(first.split()) == {"wide"}
    assert second.startswith("wide wide")
    assert second.endswith("…")
    (only,) = drawable("x" * 500, 20.0).split("\n")
    assert set(only) == {"x", "…"}
    assert len(drawable("i" * 500, 20.0)) > 1.5 * len(only) > len(drawable("w" * 500, 20.0))
    whole = "x" * (len(only) - 2)
    assert drawable(whole, 20.0) == whole


def test_a_fallback_font_supplies_missing_glyphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_installed", lambda: ("Some CJK",))
    own = module._characters
    monkeypatch.setattr(module, "_character_width", lambda *_: 0.5)
    monkeypatch.setattr(
        module, "_characters", lambda f: frozenset(map(ord, "犬")) if f == "Some CJK" else own(f)
    )
    module._font_of.cache_clear()
    try:
        assert drawable("a 犬 狗", 9) == "a 犬 \\u72d7"
        assert module._families("a 犬") == ["DejaVu Sans", "Some CJK"]
        assert module._families("a") == ["DejaVu Sans"]
    finally:
        module._font_of.cache_clear()


def test_short_quiet_and_late_clips(view: GateView, tmp_path: Path) -> None:
    short = replace(
        view,
        start=7199.9,
        end=7199.93,
        times=np.array([7199.915]),
        gate=np.array([0.3]),
        entropy=np.array([0.31]),
        fbank=np.zeros((1024, 128), np.float32),
        frames=FRAMES[:1],
        frame_times=np.array([7199.91]),
    )
    draw_gates(short, tmp_path / "short.png")
    figure = gate_figure(replace(view, start=7190.0, end=7200.0, times=TIMES + 7185))
    axes = axes_of(figure)["spectrogram"]
    figure.canvas.draw()
    assert "7192" in [
        label.get_text() for label in axes.get_xticklabels()
    ]  # no offset aside, no power of ten


@pytest.mark.slow
def test_figures_are_closed(view: GateView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Figure]] = []

    def watched(view: GateView) -> Figure:
        figure = gate_figure(view)
        made.append(weakref.ref(figure))
        return figure

    before = dict(mpl.rcParams)
    monkeypatch.setattr(module, "gate_figure", watched)
    for _ in range(5):
        draw_gates(view, tmp_path / "x.png")
    gc.collect()
    assert [figure() for figure in made] == [None] * 5
    assert dict(mpl.rcParams) == before
    assert (tmp_path / "x.png").stat().st_size < 200_000
