"""Chunks of model-ready clips: whole or absent, in order, resumable."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.data.arrays import CHUNK, ClipArrays, Sample, build_arrays
from evacap_cli.errors import EvacapError, MediaError

SHAPE = (2, 3, 8, 8)


def make(item: int) -> Sample:
    if item % 10 == 7:
        raise MediaError(f"{item}: damaged")
    frames = None if item % 5 == 1 else np.full(SHAPE, item, np.uint8)
    return Sample(
        str(item), np.full((4, 2), item, np.float32), frames, [f"clip {item}"], {"sounds": [item % 3]}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("arrays")
    build_arrays(place, range(CHUNK + 20), make, "a", SHAPE, workers=2)
    return place


def test_every_clip_once_and_in_order(folder: Path) -> None:
    arrays = ClipArrays(folder)
    expected = [i for i in range(CHUNK + 20) if i % 10 != 7]
    assert [clip["key"] for clip in arrays.clips] == [str(i) for i in expected]
    rows = [0, 5, len(arrays) - 1]
    assert arrays.fbank(rows)[:, 0, 0].tolist() == [expected[r] for r in rows]
    assert arrays.fbank(rows).dtype == np.float16
    assert arrays.captions(5) == [f"clip {expected[5]}"]


def test_failures_are_listed_with_their_cause(folder: Path) -> None:
    failed = ClipArrays(folder).failed
    assert [f["item"] for f in failed] == [str(i) for i in range(CHUNK + 20) if i % 10 == 7]
    assert failed[0]["error"] == "7: damaged"


def test_a_clip_without_a_picture_says_so(folder: Path) -> None:
    arrays = ClipArrays(folder)
    assert arrays.has_picture([0, 1, 2]).tolist() == [True, False, True]
    assert not arrays.frames([1]).any()


def test_goes_on_where_it_was_stopped(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "chunk-00001").rename(copy / "chunk-00001.tmp")  # a torn chunk
    assert len(ClipArrays(copy)) < len(ClipArrays(folder))
    stamp = (copy / "chunk-00000" / "fbank.npy").stat().st_mtime_ns
    arrays = build_arrays(copy, range(CHUNK + 20), make, "a", SHAPE, workers=1)
    assert [c["key"] for c in arrays.clips] == [c["key"] for c in ClipArrays(folder).clips]
    assert (copy / "chunk-00000" / "fbank.npy").stat().st_mtime_ns == stamp


def test_other_contents_are_refused(folder: Path) -> None:
    with pytest.raises(EvacapError, match="made with"):
        build_arrays(folder, range(CHUNK + 20), make, "b", SHAPE)
