"""Clip lists at three widths, light and dark, with empty states, long names and hostile texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from evacap_cli.report.pages import Page

from .conftest import Open
from .looks import check_looks
from .samples import hostile, many, odd, write

PAGES = {**odd(), "usual": Page("Usual", "30 clips", [("clips", "30")], clips=many(30)), "hostile": hostile()}


@pytest.mark.parametrize(
    "name", [name if name == "usual" else pytest.param(name, marks=pytest.mark.slow) for name in PAGES]
)
def test_looks_right(open_page: Open, tmp_path: Path, name: str) -> None:
    """All colours of a list are in the pages that are looked at in the dark, too."""
    schemes = ("light", "dark") if name in ("usual", "failed") else ("light",)
    check_looks(open_page, write(tmp_path, name, PAGES[name]), schemes)
