"""Listing of WebDataset tar files."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import webdataset

from evacap_cli.data.bulk.files import expand_range
from evacap_cli.data.bulk.tar import list_tar

from .shards import write_tar


def test_samples_are_those_of_webdataset(tmp_path: Path) -> None:
    files = {
        "b/001.mp4": b"one", "b/001.json": b"{}", "b/002.tags.webm": b"two", ".hidden.mp4": b"no",
        "003.flac": b"three", "003.txt": b"a bell", "b/004.jpg": b"no media", "b/005.MP4": b"five",
    }  # fmt: skip
    path = write_tar(tmp_path / "s.tar", files)
    listing = list_tar(str(path), texts=True)
    content = path.read_bytes()
    found = {
        sample.key: content[sample.media.position :][: sample.media.size]
        for sample in listing.samples
        if sample.media
    }
    assert found == {"b/001": b"one", "b/002": b"two", "003": b"three", "b/005": b"five"}
    assert [sample.texts for sample in listing.samples] == [{".json": b"{}"}, {}, {".txt": b"a bell"}, {}]
    assert listing.error == ""
    dataset = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    theirs = {sample["__key__"] for sample in dataset}
    assert found.keys() <= theirs


def test_sound_beside_its_picture(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"1.m4a": b"s", "1.mp4": b"pp", "2.mp4": b"ppp", "2.m4a": b"ssss"})
    first, second = list_tar(str(path)).samples
    files = [first.media, first.sound, second.media, second.sound]
    assert [file and file.size for file in files] == [2, 1, 3, 4]


@pytest.mark.parametrize("place", ["header", "member", "end"])
def test_a_damaged_shard_gives_the_clips_before_the_damage(tmp_path: Path, place: str) -> None:
    path = write_tar(tmp_path / "s.tar", {f"{i}.mp4": bytes([65 + i]) * 600 for i in range(4)})
    with tarfile.open(path) as archive:
        third = archive.getmembers()[2]
    content = bytearray(path.read_bytes())
    if place == "header":
        content[third.offset : third.offset + 512] = b"x" * 512
    elif place == "member":
        del content[third.offset_data + 100 :]
    else:
        del content[third.offset :]
    path.write_bytes(content)
    listing = list_tar(str(path))
    assert [sample.key for sample in listing.samples] == ["0", "1", "2"][: 3 if place == "member" else 2]
    assert "later clips may be missing" in listing.error


def test_compressed_and_empty_shards_are_reported(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "z.tar", "w:gz") as archive:
        archive.add(__file__, "1.mp4")
    assert "is compressed" in list_tar(str(tmp_path / "z.tar")).error
    assert "no video or audio" in list_tar(str(write_tar(tmp_path / "e.tar", {"1.npy": b"1"}))).error
    (tmp_path / "n.tar").write_bytes(b"not a tar file" * 99)
    assert list_tar(str(tmp_path / "n.tar")).error


def test_ranges() -> None:
    assert expand_range("s-{008..010}.tar") == ["s-008.tar", "s-009.tar", "s-010.tar"]
    assert expand_range("{1..0}/{0..1}") == ["1/0", "1/1", "0/0", "0/1"]
    assert expand_range("a{b}.tar") == ["a{b}.tar"]
