"""Runs that are ended from outside at any moment, as processes of their own."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evacap_cli import Captioner
from evacap_cli import __main__ as entry
from evacap_cli.tasks.captioning import engine
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.journal import Journal
from evacap_cli.tasks.captioning.outputs.options import OutputOptions
from evacap_cli.tasks.captioning.run import caption_files

from ..conftest import Evacap
from ..data.bulk.shards import write_parquet, write_tar
from ..media.clips import write

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")
ROOT = Path(__file__).parents[2]
CLIPS = 12
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(
    folder: Path, out: Path, tiny: Path, *more: object, script: str = "evacap_cli"
) -> subprocess.Popen[bytes]:
    """`evacap caption` of a folder; `script` may be one that reads in another way."""
    command = [
        sys.executable,
        "-m",
        script,
        "caption",
        folder,
        "-o",
        out,
        "--model",
        tiny,
        "--workers",
        1,
        *more,
    ]
    return subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=ENVIRONMENT,
    )


def lines(journal: Path) -> list[bytes]:
    """Its whole lines but for the header."""
    return (
        [line for line in journal.read_bytes().splitlines(True)[1:] if line.endswith(b"\n")]
        if journal.exists()
        else []
    )


def wait_for(process: subprocess.Popen[bytes], journal: Path, count: int) -> None:
    """Until so many inputs are done, or the process is."""
    while process.poll() is None and len(lines(journal)) < count:
        time.sleep(0.01)


def names(out: Path) -> list[str]:
    with out.open(encoding="utf-8", newline="") as file:
        return [Path(row["video"]).name for row in csv.DictReader(file, strict=True) if row["status"] == "ok"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Clips that differ in what is in them, if not in what is heard."""
    clip = write(tmp_path / "clip.mp4", 0.3).read_bytes()
    (tmp_path / "videos").mkdir()
    for i in range(CLIPS):
        (tmp_path / "videos" / f"{i:03d}.mp4").write_bytes(clip + bytes(4 * (i + 1)))
    return tmp_path / "videos"


@pytest.mark.slow
def test_repeated_kills_lose_and_repeat_nothing(folder: Path, tiny: Path, tmp_path: Path) -> None:
    out, kills = tmp_path / "o.csv", 6
    command = [sys.executable, "-m", "tests.tasks.captioning.kills", folder, out, tiny, 7, kills]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert len(seen) == kills
    for before, after in itertools.pairwise(seen):
        assert after[: len(before)] == before
    assert len({len(each) for each in seen}) > kills / 2  # they did not all die at the same place
    caption_files(
        Captioner.load(tiny, device="cpu"),
        find_sources([folder]),
        OutputOptions(out),
        CaptionOptions(workers=0, max_words=3),
    )
    assert names(out) == [f"{i:03d}.mp4" for i in range(CLIPS)]
    inputs = [line for line in lines(Path(f"{out}.journal")) if b'"rows"' in line]
    assert len(inputs) == CLIPS  # none was captioned twice


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_keeps_its_rows_and_resumes(
    folder: Path, tiny: Path, tmp_path: Path, sign: signal.Signals
) -> None:
    """Also while a worker hangs: one of two that read."""
    out, journal = tmp_path / "o.csv", tmp_path / "o.csv.journal"
    (folder / "000.mp4").rename(folder / "hang.mp4")
    hanging = ("--workers", 2, "--batch-size", 1, "--max-words", 2, "--timeout", 600)
    with start(folder, out, tiny, *hanging, script="tests.tasks.captioning.deeds") as process:
        wait_for(process, journal, 4)
        os.killpg(process.pid, sign)  # as Ctrl-C does: the workers get it, too
        _, stderr = process.communicate(timeout=60)  # of the 600 s that the worker would hang
    assert not out.exists()
    done = lines(journal)
    assert len(done) >= 4
    if sign != signal.SIGKILL:
        assert process.returncode == 130, stderr
        assert b"Traceback" not in stderr
        assert b"run the same command again to resume" in stderr
        return
    options = CaptionOptions(workers=0, max_words=2)
    caption_files(Captioner.load(tiny, device="cpu"), find_sources([folder]), OutputOptions(out), options)
    assert lines(journal)[: len(done)] == done
    assert names(out) == sorted([*(f"{i:03d}.mp4" for i in range(1, CLIPS)), "hang.mp4"])


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_sigterm_equals_ctrl_c(
    evacap: Evacap, folder: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, seen = engine.read_source, 0

    def read(*args: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 4:
            signal.raise_signal(signal.SIGTERM)
        return plain(*args, **named)

    monkeypatch.setattr(engine, "read_source", read)
    before = signal.signal(signal.SIGTERM, entry._interrupt)
    try:
        result = evacap("caption", folder, "-o", tmp_path / "o.csv", "--model", tiny, "--workers", 0,
                        "--batch-size", 1, "--max-words", 2)  # fmt: skip
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.exit_code == 130, result.output
    assert "run the same command again to resume" in result.stderr
    assert not (tmp_path / "o.csv").exists()
    assert lines(tmp_path / "o.csv.journal")


@pytest.mark.slow
def test_a_kill_within_shards_loses_nothing(folder: Path, tiny: Path, tmp_path: Path) -> None:
    """Killed once inside a tar file and once inside a Parquet file, it captions every clip once, in order."""
    out, journal = tmp_path / "o.csv", tmp_path / "o.csv.journal"
    clips = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    first, second = (
        dict(list(clips.items())[part]) for part in (slice(0, CLIPS // 2), slice(CLIPS // 2, None))
    )
    tar = write_tar(tmp_path / "a.tar", first)
    parquet = write_parquet(tmp_path / "b.parquet", {"key": list(second), "mp4": list(second.values())})
    done: list[bytes] = []
    for wanted in (2, CLIPS // 2 + 2):
        with start(tar, out, tiny, parquet, "--batch-size", 2) as process:
            wait_for(process, journal, wanted)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=60)
        assert not out.exists()
        before, done = done, lines(journal)
        assert wanted <= len(done) < CLIPS
        assert done[: len(before)] == before
    sources = find_sources([tar, parquet])
    report = caption_files(Captioner.load(tiny, device="cpu"), sources, OutputOptions(out),
                           CaptionOptions(workers=0, batch_size=2))  # fmt: skip
    assert (report.new, report.reused) == (CLIPS - len(done), len(done))
    assert names(out) == list(clips)


def test_two_on_the_same_output(evacap: Evacap, folder: Path, tiny: Path, tmp_path: Path) -> None:
    out, journal = tmp_path / "o.csv", tmp_path / "o.csv.journal"
    with Journal(journal, out, {}):
        before = journal.read_bytes()
        second = evacap("caption", folder, "-o", out, "--model", tiny, "--workers", 0, "--overwrite")
        assert journal.read_bytes() == before
    assert second.exit_code == 1
    assert "another run is writing it" in second.stderr
    assert not out.exists()
