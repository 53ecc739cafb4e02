"""Equal contents are captioned once, and found with little reading."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.tasks.captioning.inputs import duplicates
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.inputs.duplicates import EDGE_BYTES, find_duplicates
from evacap_cli.tasks.captioning.inputs.sources import Source


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes read by file name while inputs are listed."""
    counts: Counter[str] = Counter()
    original = builtins.open

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(-1 if size is None else size)
            counts[os.path.basename(str(self.name))] += len(data)
            return data

    def counting(path: str, mode: str = "r", *args: object, **kwargs: object) -> object:
        return Counted(path, mode) if mode == "rb" else original(path, mode, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "open", counting)
    return counts


Noise = Callable[[int], bytearray]


@pytest.fixture
def noise() -> Noise:
    generator = np.random.default_rng(0)
    return lambda size: bytearray(generator.bytes(size))


def same(*inputs: str | Path) -> list[int | None]:
    return [source.same_as for source in find_sources(inputs)]


def test_equal_contents_are_found_under_any_name(tmp_path: Path, noise: Noise) -> None:
    big, small = noise(5 * EDGE_BYTES), noise(100)
    for name, content in [
        ("a.mp4", big),
        ("b.mkv", small),
        ("c.mp4", big),
        ("d/e.wav", small),
        ("f.mp4", big),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert same(tmp_path) == [None, None, 0, 1, 0]
    assert same(tmp_path / "f.mp4", tmp_path / "b.mkv", tmp_path / "a.mp4", tmp_path / "f.mp4") == [
        None,
        None,
        0,
        0,
    ]


@pytest.mark.parametrize("at", [0, EDGE_BYTES - 1, EDGE_BYTES, 2 * EDGE_BYTES, -EDGE_BYTES - 1, -1])
def test_one_different_byte_is_detected(tmp_path: Path, noise: Noise, at: int) -> None:
    content = noise(5 * EDGE_BYTES + 7)
    for name in ("a.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(content)
    content[at] ^= 1
    (tmp_path / "b.mp4").write_bytes(content)
    assert same(tmp_path) == [None, None, 0]


def test_few_bytes_are_read(tmp_path: Path, noise: Noise, reads: Counter[str]) -> None:
    size = 10 * EDGE_BYTES
    whole, other = noise(size), noise(size)
    middle = whole[:]
    middle[size // 2] ^= 1
    for name, content in [
        ("alone.mp4", noise(size + 1)), ("a.mp4", whole), ("edges.mp4", other), ("middle.mp4", middle),
    ]:  # fmt: skip
        (tmp_path / name).write_bytes(content)
    os.link(tmp_path / "alone.mp4", tmp_path / "hard.mp4")
    (tmp_path / "soft.mp4").symlink_to("alone.mp4")
    assert same(tmp_path) == [None, None, None, 1, None, 1]  # a, alone, edges, hard, middle, soft
    assert reads == {
        "a.mp4": 2 * EDGE_BYTES + size,
        "edges.mp4": 2 * EDGE_BYTES,
        "middle.mp4": 2 * EDGE_BYTES + size,
    }


def test_segments_are_equal_only_with_equal_times(tmp_path: Path, reads: Counter[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"content")
    (tmp_path / "b.mp4").write_bytes(b"content")
    table = tmp_path / "list.csv"
    table.write_text("video,start,end\na.mp4,0,1\na.mp4,1,2\nb.mp4,1,2\nb.mp4,2,3\nb.mp4,0,\n")
    assert same(table) == [None, None, 1, None, None]
    reads.clear()
    table.write_text("video,start,end\na.mp4,0,1\nb.mp4,1,2\n")
    assert same(table) == [None, None]
    assert not reads


def test_failed_inputs_are_not_duplicates(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    assert same(tmp_path) == [None] * 3


@pytest.mark.slow
def test_many_links_to_few_files(tmp_path: Path, reads: Counter[str]) -> None:
    for i in range(5):
        (tmp_path / f"{i}.mp4").write_bytes(bytes([i]) * 100)
    for i in range(2000):
        (tmp_path / f"link{i:04}.mp4").symlink_to(f"{i % 5}.mp4")
    found = find_sources([tmp_path])
    assert [source.same_as for source in found] == [None] * 5 + [i % 5 for i in range(2000)]
    assert sum(reads.values()) == 500


def test_urls_are_compared_by_name() -> None:
    pytest.importorskip("fsspec")
    assert same("memory://a.mp4", "memory://b.mp4", "memory://a.mp4") == [None, None, 0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe without a writer stands in for a stalled drive")
def test_a_stalled_drive_is_abandoned_after_one_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "STALL_SECONDS", 0.5)
    sources: list[Source] = []
    for name in ("stalled0.mp4", "stalled1.mp4", "stalled2.mp4", "a.mp4", "b.mp4"):
        path = tmp_path / name
        if name.startswith("stalled"):
            os.mkfifo(path)
        else:
            path.write_bytes(b"content")
        mtime = path.stat().st_mtime_ns
        sources.append(Source(name, str(path), None, None, 7, mtime))
    drives = [1, 1, 1, 2, 2]
    assert find_duplicates(sources, [(drive, i) for i, drive in enumerate(drives)]) == {4: 3}
    # Opening a pipe for writing succeeds if a reader waits, and fails with ENXIO otherwise.
    os.close(os.open(sources[0].path, os.O_WRONLY | os.O_NONBLOCK))
    for source in sources[1:3]:
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            os.open(source.path, os.O_WRONLY | os.O_NONBLOCK)


def test_a_slow_drive_is_read_to_the_end(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for one chunk, not for a file."""
    content = noise(5 * EDGE_BYTES)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(content)
    waits: list[float] = []

    class Slow(duplicates.SimpleQueue[bytes | None]):
        def get(self, block: bool = True, timeout: float | None = None) -> bytes | None:
            assert timeout is not None
            waits.append(timeout)
            return super().get(block, timeout)

    monkeypatch.setattr(duplicates, "_CHUNK", EDGE_BYTES)
    monkeypatch.setattr(duplicates, "SimpleQueue", Slow)
    assert same(tmp_path) == [None, 0]
    assert waits == [duplicates.STALL_SECONDS] * 2 * (
        2 + 6
    )  # both files: edges, then five chunks and the digest
