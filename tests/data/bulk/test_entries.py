"""Shards as clips with captions."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from evacap_cli.data.bulk.entries import find_shards, read_shard_entries
from evacap_cli.data.store import Store
from evacap_cli.errors import UsageError
from evacap_cli.tasks.preparing import features_of, prepare

from ...media.clips import write
from .shards import write_parquet, write_tar


def test_captions(tmp_path: Path) -> None:
    files = {
        "a.mp4": b"1", "a.json": json.dumps({"caption": " a dog barks ", "url": "u"}).encode(), "a.txt": b"ignored",
        "b.mp4": b"2", "b.json": json.dumps({"text": ["one", "two", ""]}).encode(),
        "c.mp4": b"3", "c.json": b"[damaged", "c.txt": b"a bell rings\n", "d/e.mp4": b"4",
    }  # fmt: skip
    entries = read_shard_entries([str(write_tar(tmp_path / "s.tar", files))])
    assert {entry.key: entry.captions for entry in entries} == {
        "a": ("a dog barks",), "b": ("one", "two"), "c": ("a bell rings",), "d_e": (),
    }  # fmt: skip
    columns = {
        "id": ["x", "y"],
        "video": [b"1", b"2"],
        "caption": ["rain", None],
        "caption_2": ["wind", "sea"],
    }
    entries = read_shard_entries([str(write_parquet(tmp_path / "p.parquet", columns))])
    assert {entry.key: entry.captions for entry in entries} == {"x": ("rain", "wind"), "y": ("sea",)}


def test_names_of_shards(tmp_path: Path) -> None:
    for i in (8, 9, 10):
        write_tar(tmp_path / f"s-{i:03d}.tar", {"a.mp4": b"1"})
    names = [f"{tmp_path}/s-{i:03d}.tar" for i in (8, 9, 10)]
    assert find_shards(f"{tmp_path}/s-{{008..010}}.tar") == names
    assert find_shards(f"{tmp_path}/s-*.tar") == names
    assert find_shards(f"{tmp_path}/list.csv") == []
    write_parquet(tmp_path / "m.parquet", {"video": ["a.mp4"], "caption": ["a bell"]})
    assert find_shards(f"{tmp_path}/m.parquet") == []
    with pytest.raises(UsageError, match="1 shards do not exist"):
        find_shards(f"{tmp_path}/s-{{008..011}}.tar")
    entries = read_shard_entries(names)
    assert len({entry.key for entry in entries}) == 3  # the same key in three shards


def test_store_equals_that_of_files(tmp_path: Path) -> None:
    files, lines = {}, ["video,caption"]
    for i in range(2):
        write(tmp_path / f"{i}.mp4", 0.4 + 0.1 * i)
        files[f"{i}.mp4"] = (tmp_path / f"{i}.mp4").read_bytes()
        files[f"{i}.txt"] = f"sound {i}".encode()
        lines.append(f"{i}.mp4,sound {i}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    tar = write_tar(tmp_path / "s.tar", files)
    with tarfile.open(tar) as archive:
        archive.getmembers()
        end = archive.offset
    tar.write_bytes(tar.read_bytes()[:end])  # the end mark is lost
    features = features_of("evacap-tiny")
    reports = [
        prepare(tmp_path / name, tmp_path / f"{name}.store", features, workers=0)
        for name in ("m.csv", "s.tar")
    ]
    assert [report.counts["ok"] for report in reports] == [2, 2]
    assert "later clips may be missing" in reports[1].failed[0]["error"]
    ours, theirs = (Store(tmp_path / f"{name}.store") for name in ("s.tar", "m.csv"))
    assert list(ours.keys) == list(theirs.keys)
    assert [ours.captions(i) for i in range(2)] == [theirs.captions(i) for i in range(2)]
    assert (ours.fbank([0, 1]) == theirs.fbank([0, 1])).all()
    assert (ours.frames([0, 1]) == theirs.frames([0, 1])).all()
    assert prepare(tmp_path / "s.tar", tmp_path / "s.tar.store", features, workers=0).new == 0
