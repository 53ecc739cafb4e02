"""What a store takes, refuses, and makes good when it is written again."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evacap_cli.data.store import Store
from evacap_cli.data.store import shards as shards_file
from evacap_cli.data.store.index import shard_path
from evacap_cli.errors import EvacapError, UsageError

from .toys import SETTINGS, Toy, deeds, make, members, names, sample_of, toys, write

WHOLE = ["index.parquet", "store.lock", "store.yaml"]


def shards(count: int) -> list[str]:
    return [f"shard-{i:06}.tar" for i in range(count)]


def test_one_run(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    items = deeds(10, t3="fail", t8="wrong")
    items.insert(2, Toy("gone", error="no such file"))
    report = write(tmp_path / "a" / "s", items, progress=lambda done, total: calls.append((done, total)))
    assert report.counts == {"ok": 6, "audio-only": 2, "missing": 1, "failed": 2}
    assert [(row["key"], row["status"]) for row in report.failed] == [
        ("gone", "missing"), ("t3", "failed"), ("t8", "failed"),
    ]  # fmt: skip
    assert "fbank has shape (3, 8), but the settings require (16, 8)" in report.failed[2]["error"]
    assert (report.new, report.clips, report.other, report.damaged) == (10, 8, 0, [])
    assert calls == [(i, 11) for i in range(1, 12)]
    assert names(tmp_path / "a" / "s") == [*WHOLE[:1], *shards(2), *WHOLE[1:]]
    assert report.bytes == sum(shard_path(tmp_path / "a" / "s", i).stat().st_size for i in range(2))
    assert len({name.split(".")[0] for name in members(tmp_path / "a" / "s")}) == 8


def test_a_second_run_adds_only_new_clips(tmp_path: Path) -> None:
    first = write(tmp_path / "s", toys(5))
    before = members(tmp_path / "s")
    again = write(tmp_path / "s", toys(5))
    assert (again.new, again.counts, again.bytes) == (0, first.counts, first.bytes)
    more = write(tmp_path / "s", [*toys(7)[::-1]])
    assert (more.new, more.clips, more.other) == (2, 7, 0)
    assert Store(tmp_path / "s").keys == [f"t{i}" for i in (6, 5, 4, 3, 2, 1, 0)]  # as the items are
    few = write(tmp_path / "s", toys(2))
    assert (few.new, few.clips, few.other, sum(few.counts.values())) == (0, 7, 5, 2)
    assert Store(tmp_path / "s").keys == [f"t{i}" for i in (0, 1, 6, 5, 4, 3, 2)]
    assert {name: data for name, data in members(tmp_path / "s").items() if name in before} == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"settings": replace(SETTINGS, mel_bins=9)}, "mel_bins = 8 in the store, 9 wanted"),
        ({"settings": replace(SETTINGS, image_mean=(0.5, 0.5, 0.5))}, r"image_mean = \[0.485, .* wanted"),
        ({"frames_format": "raw"}, "frames_format = jpeg in the store, raw wanted; jpeg_quality = 95 .* None"),
        ({"jpeg_quality": 50}, "jpeg_quality = 95 in the store, 50 wanted"),
        ({"made_with": {"window": "middle", "x": (1, 2)}}, r"window = start in the store, middle wanted"),
    ],
)  # fmt: skip
def test_another_setting_is_refused_with_both_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], named: str
) -> None:
    common: dict[str, Any] = {"made_with": {"window": "start", "x": (1, 2)}}
    write(tmp_path / "s", toys(3), **common)
    write(tmp_path / "s", toys(3), **common)
    before = {name: (tmp_path / "s" / name).read_bytes() for name in names(tmp_path / "s")}
    settings = options.pop("settings", SETTINGS)
    monkeypatch.setattr("tests.data.toys.SETTINGS", settings)
    with pytest.raises(UsageError, match=named) as caught:
        write(tmp_path / "s", toys(3), **{**common, **options})
    assert "--overwrite" in caught.value.cure
    assert {name: (tmp_path / "s" / name).read_bytes() for name in names(tmp_path / "s")} == before
    if settings == SETTINGS:
        report = write(tmp_path / "s", toys(2), overwrite=True, **{**common, **options})
        assert (report.clips, report.new, report.other) == (2, 2, 0)
        assert names(tmp_path / "s") == [WHOLE[0], *shards(1), *WHOLE[1:]]


def test_other_captions_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s", deeds(4, t3="fail"))
    other = {f"t{i}": Toy(f"t{i}", ("new words",)) for i in (0, 2, 3)}
    with pytest.raises(UsageError, match=r"captions or source of 2 clips changed .*: t0, t2"):
        write(tmp_path / "s", toys(4, **other))
    assert Store(tmp_path / "s").captions(0) == ["a dog barks", "rain"]
    write(tmp_path / "s", toys(4, t3=other["t3"]))  # of a clip that was never made nothing is kept
    assert Store(tmp_path / "s").captions(3) == ["new words"]
    write(tmp_path / "s", toys(4, **other), overwrite=True)
    assert Store(tmp_path / "s").captions(0) == ["new words"]


def test_failures_are_retried_on_request_and_missing_media_when_found(tmp_path: Path) -> None:
    broken = deeds(4, t1="fail")
    items = [Toy("t9", error="no file"), *broken]
    assert write(tmp_path / "s", items).counts == {"ok": 3, "audio-only": 0, "missing": 1, "failed": 1}
    assert write(tmp_path / "s", items).new == 0
    still = write(tmp_path / "s", items, retry_failed=True)
    assert (still.new, still.counts["failed"], still.counts["missing"]) == (1, 1, 1)
    found = write(tmp_path / "s", [Toy("t9"), *broken])
    assert (found.new, found.counts["failed"], found.counts["missing"]) == (1, 1, 0)
    assert write(tmp_path / "s", toys(4)).new == 0
    mended = write(tmp_path / "s", toys(4), retry_failed=True)
    assert (mended.new, mended.clips, mended.other, mended.failed) == (1, 5, 1, [])
    store = Store(tmp_path / "s")
    assert (store.keys, store.failed) == (["t0", "t1", "t2", "t3", "t9"], [])
    assert len({name.split(".")[0] for name in members(tmp_path / "s")}) == 5


@pytest.mark.parametrize("harm", ["cut", "gone", "empty"])
def test_a_truncated_or_missing_shard_is_rewritten(tmp_path: Path, harm: str) -> None:
    write(tmp_path / "s", toys(12))
    before = members(tmp_path / "s")
    path = shard_path(tmp_path / "s", 1)
    if harm == "gone":
        path.unlink()
    else:
        os.truncate(path, 0 if harm == "empty" else 3000)
    report = write(tmp_path / "s", toys(12))
    assert (report.damaged, report.new, report.clips) == (["shard-000001.tar"], 4, 12)
    assert members(tmp_path / "s") == before
    assert names(tmp_path / "s") == ["index.parquet", *(shards(4)[i] for i in (0, 2, 3)), *WHOLE[1:]]
    assert Store(tmp_path / "s").keys == [f"t{i}" for i in range(12)]


def test_shards_are_closed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_file, "SHARD_SECONDS", -1.0)
    write(tmp_path / "s", toys(3))
    assert names(tmp_path / "s") == ["index.parquet", *shards(3), *WHOLE[1:]]


@pytest.mark.parametrize("key", ["a.b", "a/b", "", "\u00e9", "a b", "a\n", "t0"])
def test_keys_that_archives_cannot_hold_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(key))):
        write(tmp_path / "s", [*toys(2), Toy(key)])
    assert not (tmp_path / "s").exists()


def test_odd_keys_and_captions(tmp_path: Path) -> None:
    items = [
        Toy(key, (key, "caf\u00e9 \u2028 \U0001f415", 'a "b", c'))
        for key in ("-x", "_", "A-1", "a-1", "k" * 150)
    ]
    write(tmp_path / "s", items)
    store = Store(tmp_path / "s")
    assert store.keys == [item.key for item in items]
    assert [tuple(store.captions(i)) for i in range(5)] == [item.captions for item in items]
    assert store.extra(4) == {"of": "k" * 150}
    assert {name.split(".")[0] for name in members(tmp_path / "s")} == set(store.keys)


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_folders_are_not_modified(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("all I have")
    with pytest.raises(UsageError, match=r"contains files that are not of a store \(thesis.tex\)"):
        write(tmp_path, toys(1), overwrite=overwrite)
    assert names(tmp_path) == ["thesis.tex"]
    with pytest.raises(EvacapError, match="cannot be written"):
        write(tmp_path / "thesis.tex", toys(1), overwrite=overwrite)


def test_foreign_files_in_a_store_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "s", toys(2))
    (tmp_path / "s" / "README.md").write_text("about it")
    write(tmp_path / "s", toys(3))
    write(tmp_path / "s", toys(3), overwrite=True)
    assert names(tmp_path / "s") == ["README.md", *WHOLE[:1], *shards(1), *WHOLE[1:]]


def test_shards_without_a_note_are_not_trusted(tmp_path: Path) -> None:
    write(tmp_path / "s", toys(2))
    (tmp_path / "s" / "store.yaml").unlink()
    with pytest.raises(EvacapError, match="not a feature store") as caught:
        write(tmp_path / "s", toys(2))
    assert "--overwrite" in caught.value.cure
    assert write(tmp_path / "s", toys(2), overwrite=True).new == 2


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    def second(done: int, total: int) -> None:
        with pytest.raises(EvacapError, match="another process is writing this store"):
            write(tmp_path / "s", toys(9), overwrite=True)

    assert write(tmp_path / "s", toys(5), progress=second).clips == 5
    assert write(tmp_path / "s", toys(6)).clips == 6


@pytest.mark.slow
@pytest.mark.parametrize("after", range(1_000, 71_000, 7_000))
def test_a_full_disk_loses_only_uncommitted_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The limit on a file's size stands for a disk; the shards of this store end at 71680 bytes."""
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    write(tmp_path / "s", toys(20), shard_clips=2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, limit[1]))
    try:
        with pytest.raises(EvacapError, match=os.strerror(errno.EFBIG)) as caught:
            write(tmp_path / "s", toys(60), shard_clips=40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert str(tmp_path / "s") in caught.value.message
    assert "free disk space" in caught.value.cure
    assert not [name for name in names(tmp_path / "s") if name.endswith(".tmp")]
    with pytest.raises(EvacapError, match="not finished"):
        Store(tmp_path / "s")
    assert write(tmp_path / "s", toys(60), shard_clips=40).clips == 60
    assert Store(tmp_path / "s").keys == [f"t{i}" for i in range(60)]
    assert len({name.split(".")[0] for name in members(tmp_path / "s")}) == 60


def test_an_interrupt_keeps_finished_clips(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "s", toys(10), progress=interrupt)
    assert names(tmp_path / "s") == ["index-000000.parquet", "index-000001.parquet", *shards(2), *WHOLE[1:]]
    report = write(tmp_path / "s", toys(10))
    assert (report.new, report.clips) == (3, 10)


@pytest.mark.parametrize("clip", [0, 4, 6])
def test_interrupted_in_the_middle_of_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: int
) -> None:
    append = shards_file.ShardWriter._append
    items = [Toy("gone", error="no file"), *toys(10)]

    def interrupted(self: shards_file.ShardWriter, name: str, data: bytes) -> int:
        offset = append(self, name, data)
        if name == f"t{clip}.fbank.npy":
            raise KeyboardInterrupt
        return offset

    monkeypatch.setattr(shards_file.ShardWriter, "_append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "s", items)
    monkeypatch.undo()
    assert {name.split(".")[0] for name in members(tmp_path / "s")} == {f"t{i}" for i in range(clip)}
    assert not [name for name in names(tmp_path / "s") if name.endswith(".tmp")]
    assert write(tmp_path / "s", items).new == 10 - clip
    assert {name.split(".")[0] for name in members(tmp_path / "s")} == {f"t{i}" for i in range(10)}


def test_programming_errors_are_not_clip_failures(tmp_path: Path) -> None:
    """What the caller's own progress raises ends the run, and what was made is kept."""

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise EvacapError("enough")

    with pytest.raises(EvacapError, match="enough"):
        write(tmp_path / "s", toys(6), progress=stop)
    assert write(tmp_path / "s", toys(6)).new == 1
    assert make(Toy("t0")).fbank.shape == sample_of(Toy("t0")).fbank.shape
