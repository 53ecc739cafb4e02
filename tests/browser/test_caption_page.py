"""The page of real clips: pictures are shown, clips are played."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from evacap_cli.tasks.reporting.captions import report_captions
from evacap_cli.tasks.reporting.pictures import PictureOptions

from .conftest import Open

HEADER = "video,start,end,caption,score,gate,entropy,mismatch,heard,seen,status,error\n"


@pytest.fixture
def table(clip: Path, tmp_path: Path) -> Path:
    film = tmp_path / "a film #1 <b>%20.mp4"
    shutil.copy(clip, film)
    row = f"{film},0.000,2.000,a tone sounds,-0.5,0.9,,0.1,Tone .91,Screen .40,ok,\n"
    (tmp_path / "t.csv").write_text(HEADER + row + "gone.mp4,,,,,,,,,,failed,no such file\n")
    return tmp_path / "t.csv"


def plays(page: Any) -> None:
    page.wait_for_function("() => document.querySelector('video')?.currentTime > 0.1")


@pytest.mark.parametrize("inline", [10**7, pytest.param(10, marks=pytest.mark.slow)])
def test_shows_pictures_and_plays_the_file(open_page: Open, table: Path, inline: int) -> None:
    out = table.with_name("page.html")
    report_captions(table, out, PictureOptions(workers=0, inline=inline))
    assert out.with_name("page_files").exists() is (inline == 10)
    page = open_page(out)
    page.wait_for_function("() => [...document.images].every(i => i.complete && i.naturalWidth > 100)")
    assert page.locator("img").count() == 2
    page.click(".play")
    plays(page)
    assert page.inner_text(".play") == "Pause"
    page.keyboard.press("j")  # off the button
    page.keyboard.press("k")
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('video').paused")


@pytest.mark.slow
def test_a_copy_in_the_page_plays_without_the_file(open_page: Open, table: Path) -> None:
    out = table.with_name("page.html")
    report_captions(table, out, PictureOptions(workers=0, copies=True))
    for film in table.parent.glob("*.mp4"):
        film.unlink()
    page = open_page(out)
    page.keyboard.press("j")
    page.keyboard.press(" ")
    plays(page)
    assert page.evaluate("document.querySelector('video').src.startsWith('data:video/webm')")
