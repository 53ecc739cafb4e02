"""`evacap train` in processes of several machines, one of which is killed: torchrun starts all of them again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from evacap_cli.model import load_checkpoint

from ..conftest import Evacap
from ..media.clips import write

ROOT = Path(__file__).parents[2]
STEPS = 6
SMALL = (
    f"training.epochs={STEPS // 2}", "training.batch_size=2", "training.log_every=1", "training.save_every=1",
    "training.sms=0", "model.decoder.dropout=0", "training.shard=true", "model.encoder.depth=1",
    "model.encoder.picture_depth=1", "model.decoder.layers=1",
)  # fmt: skip


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = ["video,caption"]
    rows += [f"{write(tmp_path / f'{i}.mp4', 1.0).name},a tone" for i in range(4)]
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    return tmp_path / "captions.csv"


def process_of_rank(rank: int, agents: list[subprocess.Popen[bytes]]) -> int:
    """The process that one of torchrun's agents started for a rank, by its environment."""
    parents = {str(agent.pid) for agent in agents}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent in parents and f"\0RANK={rank}\0" in (folder / "environ").read_text():
                return int(folder.name)
        except OSError:  # ended meanwhile
            continue
    raise AssertionError("no such process")


@pytest.mark.slow
@pytest.mark.timeout(600)  # seven processes that import torch
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_killed_process_of_two_machines_is_restarted(
    evacap: Evacap, manifest: Path, tmp_path: Path
) -> None:
    """Two agents of torchrun, as on two machines, each with a process that has half of the sharded model. The first
    process, which saves, is killed; the run ends as one in a single process that nobody disturbed."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    args = ("train", "evacap-tiny", *SMALL, "--workers", 0)
    alone = evacap(*args, "--data", manifest, "-o", whole)
    assert alone.exit_code == 0, alone.output
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
             "--rdzv-backend", "c10d", "--rdzv-endpoint", address, "--rdzv-id", "run", "--max-restarts", "3",
             "--log-dir", tmp_path / f"machine{machine}", "--redirects", "3",
             "-m", "evacap_cli", *map(str, args), "--data", whole / "clips" / "train", "-o", out],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
                           "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for machine in (0, 1)
    ]  # fmt: skip
    log = out / "metrics.jsonl"
    try:
        while all(agent.poll() is None for agent in agents) and not (
            log.exists() and log.read_text().count("\n") >= 2
        ):
            time.sleep(0.05)
        os.kill(process_of_rank(0, agents), signal.SIGKILL)
        assert [agent.wait() for agent in agents] == [0, 0]
    finally:
        for agent in agents:
            agent.terminate()  # which ends its processes
    assert list(tmp_path.glob("machine*/*/attempt_1"))
    first, second = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, out)
    )
    assert [line["step"] for line in second] == list(range(1, STEPS + 1))
    for a, b in zip(first, second, strict=True):
        assert b["caption"] == pytest.approx(a["caption"], rel=2e-4)
    models = [load_checkpoint(folder / "last").model for folder in (whole, out)]
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
