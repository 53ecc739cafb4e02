"""`kill -9`: of the process that writes a store, at any moment, and of those that make clips for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evacap_cli.data.store import Store, write_store

from . import toys as toys_file
from .toys import Toy, deeds, make, members, names, sample_of, toys, write

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9")


def run(script: str, *args: object) -> dict[str, object]:
    """The JSON that a process prints which forks others: this one may hold threads, which forks do not survive."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", script, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_kill_at_a_disk_operation_loses_nothing(tmp_path: Path) -> None:
    """Kills before every third rename, removal or sync of a first run, a resumed run and an overwriting run."""
    counts = run("tests.data.kills", tmp_path, "steps", 3)
    assert min(counts["steps"]) > 3
    write(tmp_path / "whole", toys(4), shard_clips=3)
    whole = members(tmp_path / "whole")
    killed = sorted(path for path in tmp_path.iterdir() if path.name.startswith("step-"))
    assert len(killed) == sum(counts["steps"])
    for folder in killed:
        report = write(folder, toys(4), shard_clips=3)
        gone = report.damaged if folder.name.startswith("step-added") else []
        assert (report.clips, report.damaged) == (4, gone), folder.name
        assert members(folder) == whole, folder.name
        assert Store(folder).keys == [f"t{i}" for i in range(4)]
        rest = [name for name in names(folder) if not name.startswith("shard-")]
        assert rest == ["index.parquet", "store.lock", "store.yaml"], folder.name


@pytest.mark.slow
def test_clips_that_harm_their_worker_fail_alone(tmp_path: Path) -> None:
    items = deeds(8, t1="kill", t3="hang", t5="eat", t6="die")
    report = write_store(
        tmp_path / "s", items, make, toys_file.SETTINGS, workers=2, timeout=4.0, memory=2**30, shard_clips=3
    )
    assert report.counts == {"ok": 3, "audio-only": 1, "missing": 0, "failed": 4}
    assert {row["key"]: row["error"] for row in report.failed} == {
        "t1": "decoding ended its process (SIGKILL)",
        "t3": "decoding took more than 4 s",
        "t5": "decoding took more than 1 GiB of memory",
        "t6": "decoding ended its process (exit code 3)",
    }
    store = Store(tmp_path / "s")
    assert store.keys == ["t0", "t2", "t4", "t7"]
    for i, key in enumerate(store.keys):
        assert (store.fbank([i])[0] == sample_of(Toy(key)).fbank.astype("float16")).all()


@pytest.mark.slow
def test_the_rescue_prepares_clips_that_killed_a_worker(tmp_path: Path) -> None:
    items = deeds(3, t1="kill")
    report = write_store(tmp_path / "s", items, make, toys_file.SETTINGS, rescue=sample_of, workers=1)
    assert (report.clips, report.failed) == (3, [])
