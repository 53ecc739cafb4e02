"""`evacap train` in a real process that gets a signal: it saves, reports it, and the same command resumes it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from evacap_cli.tasks.preparing import prepare
from evacap_cli.tasks.training import loop
from evacap_cli.tasks.training.config import read_config

from ..conftest import Evacap
from ..media.clips import write

ROOT = Path(__file__).parents[2]
STEPS = 6
SMALL = (
    "training.epochs=1", "training.batch_size=2", "training.save_minutes=60", "training.log_every=1",
    "model.encoder.depth=1", "model.encoder.picture_depth=1", "model.decoder.layers=1",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
SAVING = "interrupted; saving after this step; interrupt again to exit immediately"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips for six steps."""
    folder = tmp_path_factory.mktemp("world")
    clip = write(folder / "0.mp4", 1.0)
    rows = ["video,caption", "0.mp4,a tone"]
    for i in range(1, 2 * STEPS):
        shutil.copy(clip, folder / f"{i}.mp4")
        rows.append(f"{i}.mp4,a tone")
    (folder / "captions.csv").write_text("\n".join(rows))
    prepare(folder / "captions.csv", folder / "store", read_config("evacap-tiny").features, workers=0)
    return folder / "store"


def steps_logged(out: Path) -> list[int]:
    path = out / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def interrupt(process: subprocess.Popen[Any], sent: signal.Signals, out: Path) -> None:
    """Sends the signal to a process of `waiting_training` and all that it started, after two steps."""
    while process.poll() is None and len(steps_logged(out)) < 2:
        time.sleep(0.05)
    os.killpg(process.pid, sent)


def saved(step: int) -> str:
    return f"interrupted; saved at step {step} of {STEPS}; run the same command again to resume"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent to a process group")
def test_interrupted_run_saves_and_resumes(evacap: Evacap, store: Path, tmp_path: Path) -> None:
    """Ctrl-C on a terminal reaches the reading processes, too; none prints a traceback."""
    out = tmp_path / "run"
    args = ("train", "evacap-tiny", *SMALL, "--data", store, "-o", out, "--workers", 1)
    process = subprocess.Popen([sys.executable, "-u", "-m", "tests.cli.waiting_training", *map(str, args)], cwd=ROOT,
                               env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
    interrupt(process, signal.SIGINT, out)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    step = torch.load(out / "training.pt", weights_only=True)["step"]
    assert 0 < step < STEPS
    assert stderr.splitlines()[-2:] == [SAVING, saved(step)]
    again = evacap(*args[:-1], 0)
    assert again.exit_code == 0, again.output
    assert steps_logged(out) == list(range(1, STEPS + 1))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent to a process group")
def test_sigterm_saves_where_interrupts_are_ignored(
    evacap: Evacap,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A shell starts what it runs in the background with SIGINT ignored."""
    out = tmp_path / "run"
    plain, steps = loop._Run.update, 0

    def update(*args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 2:
            signal.raise_signal(signal.SIGINT)
        if steps == 4:
            signal.raise_signal(signal.SIGTERM)
        return plain(*args)

    monkeypatch.setattr(loop._Run, "update", update)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = evacap("train", "evacap-tiny", *SMALL, "--data", store, "-o", out, "--workers", 0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130, result.output
    assert capfd.readouterr().err == f"{SAVING}\n"
    assert result.stderr.splitlines()[-1] == saved(4)
    assert torch.load(out / "training.pt", weights_only=True)["step"] == 4


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent to a process group")
def test_two_interrupted_processes_save_once(store: Path, tmp_path: Path) -> None:
    """Of a job's end every process hears, torchrun's own too, which passes it on. Only the first process speaks."""
    out = tmp_path / "run"

    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--log-dir",
         tmp_path / "logs", "--redirects", "3", "-m", "tests.cli.waiting_training", "train", "evacap-tiny", *SMALL,
         "--data", store, "-o", out, "--workers", "0"],
        cwd=ROOT, env=ENVIRONMENT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def stderr_of(rank: int) -> str:
        (path,) = (tmp_path / "logs").rglob(f"{rank}/stderr.log")
        return path.read_text()

    interrupt(process, signal.SIGTERM, out)
    process.wait()
    step = torch.load(out / "training.pt", weights_only=True)["step"]
    assert 0 < step < STEPS
    assert [line for line in stderr_of(0).splitlines() if "interrupted" in line] == [
        SAVING, saved(step)
    ]  # fmt: skip
    assert "interrupted" not in stderr_of(1)
    assert all("Traceback" not in stderr_of(rank) for rank in (0, 1))
