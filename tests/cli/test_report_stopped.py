"""Processes that are killed, or find the disk full, while they write a report page."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import Evacap

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
HANGING = """
from itertools import count
from time import sleep
from evacap_cli.__main__ import main
from evacap_cli.tasks.reporting import captions

plain, rows = captions._clip, count()

def clip(*args):
    if next(rows) == 2000:
        sleep(600)
    return plain(*args)

captions._clip = clip
main()
"""
"""`evacap`, which hangs in the middle of a page of many rows."""


def films(clip: Path, folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:02}.mp4" for number in range(count)]
    for path in paths:
        path.write_bytes(clip.read_bytes())
    return paths


def kill_when(begun: Callable[[], bool], *command: object) -> None:
    """Kills Python with this command, and its workers, as soon as `begun`. Fails if it ends before."""
    process = subprocess.Popen([sys.executable, *map(str, command)], stderr=subprocess.PIPE, start_new_session=True,
                               env=ENVIRONMENT)  # fmt: skip
    while process.poll() is None and not begun():
        time.sleep(0.002)
    ended = process.poll()
    if ended is None:
        os.killpg(process.pid, signal.SIGKILL)
    _, stderr = process.communicate()
    assert ended is None, f"ended with {ended} before the moment of the kill: {stderr.decode()}"


def whole(page: Path) -> bool:
    return page.read_text("utf-8").rstrip().endswith("</html>")


@pytest.mark.slow
def test_a_kill_while_pictures_are_drawn(evacap: Evacap, clip: Path, tmp_path: Path) -> None:
    """There is no page, and the same command writes it."""
    table, page, pictures = tmp_path / "o.csv", tmp_path / "p.html", tmp_path / "p_files"
    rows = "".join(f"{path},0,2,a caption,-0.5\n" for path in films(clip, tmp_path / "films", 24))
    table.write_text("video,start,end,caption,score\n" + rows)
    again = ("report", table, "-o", page, "--inline", 0, "--workers")
    kill_when(lambda: len(list(pictures.glob("*.webp"))) > 0, "-m", "evacap_cli", *again, 1)
    assert not page.exists()
    assert evacap(*again, 0).exit_code == 0
    assert whole(page)
    assert {path.suffix for path in pictures.iterdir()} == {".webp"}  # nothing temporary is left
    assert page.read_text("utf-8").count("a caption") >= 24


@pytest.mark.slow
def test_a_kill_while_the_page_is_written(evacap: Evacap, tmp_path: Path) -> None:
    """The older page stays, and never is there a part of one."""
    table, page = tmp_path / "o.csv", tmp_path / "p.html"
    rows = "".join(f"{number}.mp4,0,1,a caption of a clip,-0.5\n" for number in range(3000))
    table.write_text("video,start,end,caption,score\n" + rows)
    page.write_text("older")
    aside = tmp_path / "p.html.tmp"
    command = ("report", table, "-o", page, "--no-pictures")
    kill_when(lambda: aside.exists() and aside.stat().st_size > 0, "-c", HANGING, *command)
    assert aside.exists()  # the kill came in time
    assert not whole(aside)
    assert page.read_text() == "older"
    assert evacap(*command).exit_code == 0
    assert whole(page)
    assert not aside.exists()


def test_a_full_disk_leaves_the_table(evacap: Evacap, clip: Path, tiny: Path, tmp_path: Path) -> None:
    """No file may be larger than 24 kB: enough for the table, not for the page."""
    import resource

    table, folder = tmp_path / "o.csv", tmp_path / "films"
    films(clip, folder, 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, limits[1]))
    try:
        result = evacap("caption", folder, "-o", table, "--model", tiny, "--workers", 0, "--max-words", 2,
                        "--report", tmp_path / "p.html")  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1, result.output
    assert "error: no report" in result.stderr
    with table.open(newline="", encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file, strict=True)] == ["ok", "ok"]
    assert not list(tmp_path.glob("p.html*"))
