"""Ctrl-C in commands that write outputs: exit code 130, no traceback, and what is there is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evacap_cli.media import probe
from evacap_cli.tasks import robustness

from ..conftest import Evacap

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.name != "posix", reason="signals are sent to a process group")
def test_synth(tmp_path: Path) -> None:
    videos = tmp_path / "world" / "videos"
    process = subprocess.Popen(
        [sys.executable, "-m", "evacap_cli", "synth", "-o", str(videos.parent), "--clips", "5000"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not list(videos.glob("*.mp4")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    made = list(videos.glob("*.mp4"))
    assert made
    assert all(probe(path).has_audio and not probe(path).note for path in made)
    assert not (videos.parent / "captions.csv").exists()  # it lists all of them, or is not there


def test_robustness(evacap: Evacap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(robustness, "sweep", stop)
    monkeypatch.setattr(robustness, "open_data", lambda *_: [])
    result = evacap("robustness", "--model", "audio-demo", "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert not (tmp_path / "out").exists()
