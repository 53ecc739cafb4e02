"""`evacap train` in a real process that gets a signal: it saves, reports it, and the same command resumes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ..conftest import Evacap
from ..media.clips import write

ROOT = Path(__file__).parents[2]
STEPS = 20
SMALL = (
    f"training.epochs={STEPS // 2}", "training.batch_size=2", "training.save_minutes=60", "training.log_every=1",
    "model.encoder.depth=1", "model.encoder.picture_depth=1", "model.decoder.layers=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    rows = ["video,caption"]
    for i in range(4):
        rows.append(f"{write(folder / f'{i}.mp4', 1.0).name},a tone")
    (folder / "captions.csv").write_text("\n".join(rows))
    return folder / "captions.csv"


def ignore_interrupts() -> None:
    """As a shell starts what it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent to a process group")
@pytest.mark.parametrize(
    ("sent", "prepare"), [(signal.SIGTERM, ignore_interrupts), (signal.SIGINT, None)], ids=["term", "int"]
)
def test_interrupted_run_saves_and_resumes(
    evacap: Evacap, manifest: Path, tmp_path: Path, sent: signal.Signals, prepare: Callable[[], None] | None
) -> None:
    """The signal goes to the reading processes, too, as from a terminal or a job's end; none prints a traceback."""
    out = tmp_path / "run"
    args = ("train", "evacap-tiny", *SMALL, "--data", manifest, "-o", out, "--workers", 1)
    process = subprocess.Popen([sys.executable, "-u", "-m", "evacap_cli", *map(str, args)], cwd=ROOT,
                               env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                               stderr=subprocess.PIPE, text=True, start_new_session=True,
                               preexec_fn=prepare)  # fmt: skip
    assert process.stderr is not None
    log = out / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 2):
        time.sleep(0.05)
    if prepare is not None:
        os.killpg(process.pid, signal.SIGINT)  # which goes unheard
    os.killpg(process.pid, sent)
    stderr_lines = process.stderr.readlines()
    assert process.wait() == 130
    assert "Traceback" not in "".join(stderr_lines)
    state = torch.load(out / "training.pt", weights_only=True)
    assert 0 < state["step"] < STEPS
    assert stderr_lines[-2] == "interrupted; saving after this step; interrupt again to exit immediately\n"
    assert (
        stderr_lines[-1]
        == f"interrupted; saved at step {state['step']} of {STEPS}; run the same command again to resume\n"
    )
    again = evacap(*args[:-1], 0)
    assert again.exit_code == 0, again.output
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent to a process group")
def test_two_interrupted_processes_save_once_and_resume(manifest: Path, tmp_path: Path) -> None:
    """Of a job's end every process hears, torchrun's own too, which passes it on. Only the first process speaks."""
    out, log = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--log-dir",
             tmp_path / name, "--redirects", "3", "-m", "evacap_cli", "train", "evacap-tiny", *SMALL,
             "--data", manifest, "-o", out, "--workers", "0"],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def stderr_lines(name: str, rank: int) -> str:
        (path,) = (tmp_path / name).rglob(f"{rank}/stderr.log")
        return path.read_text()

    process = start("stopped")
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 2):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    step = torch.load(out / "training.pt", weights_only=True)["step"]
    assert 0 < step < STEPS
    assert [line for line in stderr_lines("stopped", 0).splitlines() if "interrupted" in line] == [
        "interrupted; saving after this step; interrupt again to exit immediately",
        f"interrupted; saved at step {step} of {STEPS}; run the same command again to resume",
    ]
    assert "interrupted" not in stderr_lines("stopped", 1)
    assert all("Traceback" not in stderr_lines("stopped", rank) for rank in (0, 1))
    assert start("again").wait() == 0
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, STEPS + 1))
    assert f"{STEPS} steps in " in stderr_lines("again", 0)
    assert "steps in " not in stderr_lines("again", 1)
