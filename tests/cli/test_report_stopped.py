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

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
CLIPS = 24


@pytest.fixture
def films(clip: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(CLIPS):
        (folder / f"{number:02}.mp4").write_bytes(clip.read_bytes())
    return folder


def start(*args: object, limit: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "evacap_cli", *map(str, args)],
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=ENVIRONMENT,
        preexec_fn=limit,
    )


def kill_when(process: subprocess.Popen[bytes], begun: Callable[[], bool]) -> None:
    """Kills a process and its workers as soon as `begun`. Fails if the process ends before."""
    while process.poll() is None and not begun():
        time.sleep(0.002)
    ended = process.poll()
    if ended is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert ended is None, f"ended with {ended} before the moment of the kill"


def finished(table: Path) -> int:
    """Complete rows of a table of the tiny model, whose captions may be empty."""
    with table.open(newline="", encoding="utf-8") as file:
        return sum(
            row["status"] == "ok" and float(row["score"]) < 0 for row in csv.DictReader(file, strict=True)
        )


def whole(page: Path) -> bool:
    return page.read_text("utf-8").rstrip().endswith("</html>")


@pytest.mark.slow
def test_a_kill_after_the_table(films: Path, tiny: Path, tmp_path: Path) -> None:
    """The table is complete, there is no page, and the next command writes it. It may be killed, too."""
    table, page, pictures = tmp_path / "o.csv", tmp_path / "p.html", tmp_path / "p_files"
    command = ("caption", films, "-o", table, "--model", tiny, "--workers", 1, "--max-words", 2)
    kill_when(start(*command, "--report", page), table.exists)
    assert finished(table) == CLIPS
    assert not page.exists()
    again = ("report", table, "-o", page, "--inline", 0, "--workers", 1)
    kill_when(start(*again), lambda: len(list(pictures.glob("*.webp"))) > 0)
    assert finished(table) == CLIPS
    assert not page.exists()
    assert start(*again).wait() == 0
    assert whole(page)
    assert {path.suffix for path in pictures.iterdir()} == {".webp"}  # nothing temporary is left


@pytest.mark.slow
@pytest.mark.parametrize("older", [False, True])
def test_a_kill_while_the_page_is_written(tmp_path: Path, older: bool) -> None:
    """There is no page, or the older one, and never a part of one."""
    table, page = tmp_path / "o.csv", tmp_path / "p.html"
    rows = "".join(f"{number}.mp4,0,1,a caption of a clip,-0.5\n" for number in range(60_000))
    table.write_text("video,start,end,caption,score\n" + rows)
    before = table.read_bytes()
    if older:
        page.write_text("older")
    aside = tmp_path / "p.html.tmp"
    kill_when(
        start("report", table, "-o", page, "--no-pictures"),
        lambda: aside.exists() and aside.stat().st_size > 0,
    )
    assert aside.exists()  # the kill came in time
    assert not whole(aside)
    assert (page.read_text() == "older") if older else not page.exists()
    assert table.read_bytes() == before
    assert start("report", table, "-o", page, "--no-pictures").wait() == 0
    assert whole(page)
    assert not aside.exists()


@pytest.mark.slow
def test_a_full_disk_leaves_the_table(films: Path, tiny: Path, tmp_path: Path) -> None:
    """No file may be larger than 24 kB: enough for the table, not for the page."""
    import resource

    for number in range(4, CLIPS):
        (films / f"{number:02}.mp4").unlink()
    table, page = tmp_path / "o.csv", tmp_path / "p.html"
    process = start(
        "caption", films, "-o", table, "--model", tiny, "--workers", 0, "--max-words", 2, "--report", page,
        limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000)),
    )  # fmt: skip
    _, stderr = process.communicate()
    assert process.returncode == 1, stderr.decode()
    assert b"error: no report" in stderr
    assert finished(table) == 4
    assert not list(tmp_path.glob("p.html*"))
