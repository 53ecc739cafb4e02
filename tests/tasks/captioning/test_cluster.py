"""Captions on a Ray cluster: the very bytes of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evacap_cli import Captioner
from evacap_cli.tasks.captioning.cluster import ClusterOptions
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.options import OutputOptions
from evacap_cli.tasks.captioning.run import caption_files

from ...media.clips import write

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
pytestmark = pytest.mark.slow
CLUSTER = ClusterOptions(cpus=0.5)
OPTIONS = CaptionOptions(batch_size=2, workers=1)


@pytest.fixture(scope="module")
def captioner(tiny: Path) -> Captioner:
    return Captioner.load(tiny, device="cpu")


@pytest.fixture(scope="module")
def started() -> Iterator[None]:
    ray.init(num_cpus=3, object_store_memory=200 * 2**20, include_dashboard=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(10):
        if i == 4:
            (folder / f"{i:02d}.mp4").write_bytes(b"damaged")
        else:
            write(folder / f"{i:02d}.mp4", 0.3 + 0.05 * i, video=None if i % 3 == 2 else "libx264")
    return folder


@pytest.mark.parametrize("segment", [None, 0.2])
def test_bytes_equal_those_of_one_machine(
    captioner: Captioner, folder: Path, tmp_path: Path, started: None, segment: float | None
) -> None:
    options = CaptionOptions(batch_size=2, workers=1, segment=segment)
    sources = find_sources([folder])
    caption_files(captioner, sources, OutputOptions(tmp_path / "one.csv"), options)
    caption_files(captioner, sources, OutputOptions(tmp_path / "ray.csv"), options, cluster=CLUSTER)
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    again = caption_files(captioner, sources, OutputOptions(tmp_path / "ray.csv"), options, cluster=CLUSTER)
    assert again.new == 0
