"""What must hold of every page: it fits every window, and axe finds nothing serious, in light and dark."""

from __future__ import annotations

import os
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe

from .conftest import Open

WIDTHS = (360, 1280, 1920)
WIDER = (
    "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .skip, [hidden]')"
    " && e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
)


def check_looks(open_page: Open, path: Path, schemes: tuple[str, ...] = ("light", "dark")) -> None:
    """Opens a page in these schemes at three widths. EVACAP_SCREENSHOTS names a folder for a picture of each."""
    page = open_page(path, viewport={"width": WIDTHS[0], "height": 800}, color_scheme="light")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            page.evaluate("() => new Promise(requestAnimationFrame)")
            assert page.evaluate(WIDER) == [], f"{path.name} at {width} pixels"
            if folder := os.environ.get("EVACAP_SCREENSHOTS"):
                page.evaluate("scrollTo(0, 1e6)")
                page.wait_for_timeout(300)
                page.evaluate("scrollTo(0, 0)")
                page.wait_for_timeout(300)
                page.screenshot(path=Path(folder) / f"{path.stem}-{width}-{scheme}.png", full_page=True)
        # only the colours depend on the scheme
        only = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
        found = Axe().run(page, options=only).response["violations"]
        assert [each for each in found if each["impact"] in ("serious", "critical")] == []
