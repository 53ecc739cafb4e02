"""Runs in real processes: several that train together, and one that is killed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from evacap_cli.errors import EvacapError
from evacap_cli.model import load_checkpoint
from evacap_cli.tasks.training import fit
from evacap_cli.tasks.training.distributed import process_group
from evacap_cli.tasks.training.log import read_log

from .colours import SETTINGS, Colours, make_tokenizer, settings, small_model

ROOT = Path(__file__).parents[3]
MODULE = "tests.tasks.training.process"
Job = tuple[int, dict[str, object]]
"""How many clips a run has, and its settings."""
TIMES = ("clips_per_second",)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(folder: Path, jobs: dict[str, Job], processes: int = 1, kills: Sequence[int] = ()) -> Path:
    """A folder with what the runs made, each in a folder of its name. The first one is killed."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    slow = ["0.02"] if kills else []  # a step, so that a kill comes soon after the one it is meant for
    told = json.dumps([(str(folder / name), clips, settings) for name, (clips, settings) in jobs.items()])
    done = subprocess.run([*start, "-m", MODULE, told, *slow], cwd=ROOT,
                          env={**ENVIRONMENT, "KILLS": ",".join(map(str, kills))},
                          capture_output=True, text=True, timeout=250, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def run_here(out: Path, stop: int | None = None, **overrides: object) -> None:
    """A run of 43 clips in this process, which saves and stops after step `stop`."""
    steps: list[int] = []
    tokenizer = make_tokenizer()
    fit(small_model(tokenizer, dropout=0.0), tokenizer, Colours(43, wordy=True), settings(**overrides), out,
        Colours(9), progress=lambda now: steps.append(now.step), stop=lambda: steps[-1] == stop)  # fmt: skip


def curve(out: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_log(out / "metrics.jsonl")]


SHARED = {"sms": 0.0, "stop_on": "cider", "epochs": 2, "ema": 0.5}
SHARDED = {**SHARED, "accumulate": 2, "shard": True}
AVERAGED = {"ema": 0.9, "epochs": 5}
BLIND = {"fusion": "evidence", "sms": 0.0, "match": 0.0, "modality_dropout": 0.9, "epochs": 1}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one process, of which `parts` was killed four times."""
    jobs: dict[str, Job] = {"parts": (40, AVERAGED), "whole": (40, AVERAGED), "shared": (43, SHARED)}
    return run(tmp_path_factory.mktemp("one"), jobs, kills=(3, 8, 14, 21))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two processes. One of them, `sharded`, continues what a single process began."""
    folder = tmp_path_factory.mktemp("two")
    run_here(folder / "sharded", stop=3, **SHARDED)
    jobs: dict[str, Job] = {
        "shared-1": (43, SHARED),
        "shared-2": (43, {**SHARED, "accumulate": 2}),
        "shuffled": (40, {"sms": 0.5}),
        "blind": (40, BLIND),
        "blind-decoder": (40, {**BLIND, "freeze": ["decoder"]}),
        "sharded": (43, {**SHARDED, "stop": 7}),
        "sharded-shuffled": (40, {"sms": 0.5, "shard": True}),
        "sharded-blind-decoder": (40, {**BLIND, "freeze": ["decoder"], "shard": True}),
    }
    return run(folder, jobs, processes=2)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_learn_as_one_with_the_same_batch(one: Path, two: Path, accumulate: int) -> None:
    """Captions of unequal length, 43 clips (no multiple of anything), 9 for validation: sharing out changes nothing."""
    assert_same(one / "shared", two / f"shared-{accumulate}")


@pytest.mark.slow
def test_sharded_run_resumes_in_another_number_of_processes(one: Path, two: Path) -> None:
    """One process until step 3, two until step 7, one until the end: as if there had always been one."""
    out = two / "sharded"
    state = torch.load(out / "training.pt", weights_only=True)
    assert state["step"] == 7
    assert all(type(value) is torch.Tensor for value in state["model"].values())
    run_here(out, **SHARDED)
    assert_same(one / "shared", out)


def assert_same(*folders: Path) -> None:
    """The same log and weights but for the rounding of sums."""
    alone, shared = map(curve, folders)
    assert len(alone) == len(shared) == 10
    for a, b in zip(alone, shared, strict=True):
        assert a.keys() == b.keys()
        samples = [[sample["clip"] for sample in line.pop("samples", [])] for line in (a, b)]
        assert samples[0] == samples[1]
        assert b == pytest.approx(a, rel=2e-4, abs=2e-5)
    assert [line["step"] for line in shared if "validation_cider" in line] == [5, 10]
    for kept in ("last", "best"):
        first, second = (load_checkpoint(folder / kept).model for folder in folders)
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_shuffling_in_two_processes(two: Path) -> None:
    log = curve(two / "shuffled")
    assert all(line["clips"] == 8 for line in log)
    assert sum(line["shuffled"] for line in log) > 0
    assert all("consistency" in line for line in log if line["shuffled"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shuffled", "blind-decoder"])
def test_sharded_processes_can_use_different_parts_of_the_model(two: Path, name: str) -> None:
    """Of two that share the weights, one may shuffle or see nothing. They learn as two with a copy each."""
    for a, b in zip(curve(two / name), curve(two / f"sharded-{name}"), strict=True):
        assert a.keys() == b.keys()
        assert b["caption"] == pytest.approx(a["caption"], rel=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blind", "blind-decoder"])
def test_two_processes_one_without_pictures(two: Path, name: str) -> None:
    """The decoder that sees has a gradient in each, though only from clips that show something."""
    assert [line["clips"] for line in curve(two / name)] == [8] * 5


@pytest.mark.slow
def test_after_kills_it_ends_with_the_same_curve_and_weights(one: Path) -> None:
    assert curve(one / "parts") == curve(one / "whole")
    for kept in ("last", "best"):
        first, second = (load_checkpoint(one / name / kept).model for name in ("whole", "parts"))
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_lost_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    for name, value in {**address, "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    for message, expected in (("[gloo/transport/tcp/pair.cc:545] Connection reset by peer", EvacapError),
                              ("a shape is wrong", RuntimeError)):  # fmt: skip
        with pytest.raises(expected, match=re.escape(message)), process_group(torch.device("cpu")):
            raise RuntimeError(message)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    (tmp_path / "training.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(EvacapError, match=r"training\.pt: damaged"):
        fit(small_model(tokenizer), tokenizer, Colours(), SETTINGS, tmp_path)
