"""A real browser: Debian's chromium, driven by playwright.

Without one, the tests are skipped, or fail where EVACAP_REQUIRE_BROWSER is set. EVACAP_SCREENSHOTS names a folder that
gets a picture of every page that is looked at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
LOCAL = ("file:", "data:", "blob:")
Open = Callable[..., Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    missing = f"none of {', '.join(NAMES)} is installed" if found is None else ""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "playwright is not installed"
    if missing:
        (pytest.fail if os.environ.get("EVACAP_REQUIRE_BROWSER") else pytest.skip)(missing)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """Opens a file and waits until its script is done; `context`: options of playwright's.

    In the end, no page may have asked for anything but local files, and no page may have logged an error.
    """
    requests: list[str] = []
    errors: list[str] = []
    contexts = []

    def open_file(path: Path, part: str = "", **context: Any) -> Any:
        context.setdefault("viewport", {"width": 1280, "height": 900})
        contexts.append(chromium.new_context(**context))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: (errors.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on(
            "console", lambda message: message.type in ("error", "warning") and errors.append(message.text)
        )
        page.goto(path.as_uri() + part)
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(LOCAL)] == []
