"""The figure of times, as PNG and SVG, with few and many lines."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from evacap_cli.report.latency import MANY_LINES, TimingRow, Timings, draw_times


def timings(models: int) -> Timings:
    rows = []
    for i in range(models):
        for frames in (0, 4):
            row = TimingRow(f"model-{i}", "gate", "", frames, "cached")
            row.to_audio_only = 1.0 + i + frames
            rows.append(row)
    return Timings({}, {}, rows)


def test_the_suffix_selects_the_format(tmp_path: Path) -> None:
    draw_times(timings(2), tmp_path / "few.svg")
    assert ElementTree.parse(tmp_path / "few.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    draw_times(timings(2), tmp_path / "few.png")
    draw_times(timings(MANY_LINES + 1), tmp_path / "many.png")
    sizes = []
    for name in ("few.png", "many.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            sizes.append(picture.width)
    assert sizes[1] > sizes[0]  # many lines have their legend beside them
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.png", "few.svg", "many.png"]


def test_without_a_base_there_is_no_figure(tmp_path: Path) -> None:
    made = timings(2)
    for row in made.rows:
        row.to_audio_only = None
    draw_times(made, tmp_path / "none.png")
    assert not list(tmp_path.iterdir())
