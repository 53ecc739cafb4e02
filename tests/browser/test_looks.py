"""Pages at three widths, light and dark: nothing wider than the window, nothing that hides from a reader."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from evacap_cli.report.pages import Page

from .conftest import Open
from .samples import hostile, many, odd, write

PAGES = {**odd(), "usual": Page("Usual", "30 clips", [("clips", "30")], clips=many(30)), "hostile": hostile()}


@pytest.mark.parametrize("name", PAGES)
def test_fits_every_window(open_page: Open, tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, PAGES[name])
    for width in (360, 1280, 1920):
        for scheme in ("light", "dark"):
            page = open_page(path, viewport={"width": width, "height": 800}, color_scheme=scheme)
            wider = page.evaluate(
                "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .skip, [hidden]')"
                " && e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)"
                ".map(e => e.outerHTML.slice(0, 80))"
            )
            assert wider == []
            if folder := os.environ.get("EVACAP_SCREENSHOTS"):
                page.screenshot(path=Path(folder) / f"{name}-{width}-{scheme}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(open_page: Open, tmp_path: Path, name: str, scheme: str) -> None:
    page = open_page(write(tmp_path, name, PAGES[name]), color_scheme=scheme)
    found = Axe().run(page).response["violations"]
    assert [each for each in found if each["impact"] in ("serious", "critical")] == []
