"""The picture of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from evacap_cli.report.training_curves import draw_curves


@pytest.mark.slow
def test_draws_available_curves(tmp_path: Path) -> None:
    log = [{"step": i, "caption": 1 / i, "lr": i} for i in range(1, 50)]
    sizes = []
    for more in ({}, {"gate_matched": 0.3, "gate_shuffled": 0.2, "skipped": "the loss is nan"}):
        draw_curves([{**line, **more} for line in log], tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as picture:
            sizes.append(picture.size)
            assert len(picture.convert("L").getcolors() or []) > 20
    assert sizes[1][0] == sizes[0][0] * 3 // 2
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_without_values_there_is_no_plot(tmp_path: Path) -> None:
    draw_curves([], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())
