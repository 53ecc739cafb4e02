"""Captions on a Ray cluster of three nodes on this machine: the very bytes of one machine, also if parts of it die.

The clips are in an S3-compatible store.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evacap_cli import Captioner
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.options import OutputOptions
from evacap_cli.tasks.captioning.run import caption_files
from evacap_cli.tasks.cluster.pipeline import ClusterOptions, connected, parse_workers

from ...media.clips import write

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
from ray.cluster_utils import Cluster  # noqa: E402

CLIPS = 24
FOLDER = "s3://bucket/videos"
STORE = 100 * 2**20  # bytes of each node's object store
OPTIONS = CaptionOptions(batch_size=2, workers=1)
NICENESS = "RAY_worker_niceness"  # of Ray's processes, by default 15: they would wait for other tests
MARK = "EVACAP_TEST_CLUSTER"  # in the environment of this cluster's processes


@pytest.fixture(scope="module")
def captioner(tiny: Path) -> Captioner:
    return Captioner.load(tiny, device="cpu")


@pytest.fixture(scope="module")
def cluster(s3_environment: dict[str, str]) -> Iterator[Cluster]:
    changes = {MARK: str(os.getpid()), NICENESS: "0", **s3_environment}
    os.environ |= changes
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=STORE)
        yield cluster
    finally:
        cluster.shutdown()
        for name in changes:
            os.environ.pop(name)


@pytest.fixture
def urls(s3: Any, tmp_path: Path) -> list[str]:
    """The clips of a folder of the store. One is damaged, some have no picture."""
    s3.mkdir("bucket")
    for i in range(CLIPS):
        content = b"damaged"
        if i != 4:
            path = write(tmp_path / "clip.mp4", 0.3 + 0.02 * i, video=None if i % 3 == 2 else "libx264")
            content = path.read_bytes()
        s3.pipe(f"bucket/videos/{i:02d}.mp4", content)
    return [f"{FOLDER}/{i:02d}.mp4" for i in range(CLIPS)]


def journaled(out: Path) -> list[str]:
    """The inputs of whole lines of a journal."""
    path = out.with_name(f"{out.name}.journal")
    lines = path.read_text("ascii").splitlines(True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record["input"][0] for record in records if "input" in record]


def kill_actors(name: str) -> int:
    """Kills the processes of this test's cluster that run an actor of the class `name`."""
    killed = 0
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and name in (process / "cmdline").read_text("utf-8", "replace"):
                wanted = f"{MARK}={os.getpid()}".encode()
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
                    killed += 1
    return killed


@pytest.mark.slow
@pytest.mark.timeout(1500)  # seconds; processes of the cluster start slowly on a machine with other work
def test_a_driver_a_node_and_an_actor_die(
    captioner: Captioner, tiny: Path, urls: list[str], tmp_path: Path, cluster: Cluster
) -> None:
    """One command is killed; the next one resumes, and meets the death of a node and of an actor."""
    one, out = tmp_path / "one.csv", tmp_path / "ray.csv"
    caption_files(captioner, find_sources([FOLDER]), OutputOptions(one), OPTIONS)
    command = [sys.executable, "-m", "evacap_cli", "caption", FOLDER, "-o", str(out), "--model", str(tiny),
               "--device", "cpu", "--batch-size", "2", "--ray", cluster.address, "--workers", "1",
               "--cpus-per-worker", ".5", "--quiet"]  # fmt: skip
    options = ClusterOptions(cluster.address, cpus=0.5, decoders=1)
    driver = subprocess.Popen(command, start_new_session=True)
    try:
        while len(journaled(out)) < 3 and driver.poll() is None:
            time.sleep(0.01)
        driver.send_signal(signal.SIGSTOP)  # so that it is not done before the second one has started
        with pytest.raises(EvacapError, match="another run is writing it"):
            caption_files(captioner, find_sources([FOLDER]), OutputOptions(out), OPTIONS, cluster=options)
    finally:
        driver.kill()
        driver.wait()
    before = journaled(out)
    assert 3 <= len(before) < CLIPS
    assert not out.exists()

    died = []

    def show(done: int, clips: int, rows: Sequence[object]) -> None:
        if clips and not died:
            died.append(kill_actors("(_Model)"))
        elif done >= len(before) + 4 and len(died) == 1:
            cluster.remove_node(sorted(cluster.worker_nodes, key=str)[0], allow_graceful=False)
            died.append(1)

    caption_files(captioner, find_sources([FOLDER]), OutputOptions(out), OPTIONS, show, cluster=options)
    assert died == [1, 1]
    assert out.read_bytes() == one.read_bytes()
    assert journaled(out)[: len(before)] == before
    assert sorted(journaled(out)) == urls


def test_wrong_options() -> None:
    assert parse_workers("3") == (3, 3)
    assert parse_workers("2-64") == (2, 64)
    with pytest.raises(UsageError, match="2-64"):
        parse_workers("many")
    with pytest.raises(UsageError, match=r"--cpus-per-worker 0 .*--ray-workers 3-2"):
        ClusterOptions(cpus=0, workers=(3, 2))


@pytest.mark.slow
def test_no_cluster_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    with (
        pytest.raises(EvacapError, match="no connection"),
        connected(ClusterOptions("127.0.0.1:1")),
    ):
        pass
