"""The journal on its own: what it remembers, what it refuses, and what a stop at any byte leaves of it."""

from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.outputs.journal import Journal
from evacap_cli.tasks.captioning.outputs.rows import Row
from evacap_cli.tasks.captioning.outputs.tags import Tag

SETTINGS = {"model": {"name": "demo", "weights": "abc"}, "beam": 4, "min-rms": None}
ODD = os.fsdecode(b"/v/bad\xff \n\xc3\xa9.mp4")


def source(name: str, size: int | None = 10, mtime: int | None = 5, **more: object) -> Source:
    return Source(name, name, size=size, mtime_ns=mtime, **more)  # type: ignore[arg-type]


SOURCES = [
    source("/v/a.mp4"),
    source(ODD),
    source("/v/c.mp4", start=1.5, end=2.25),
    source("https://x/d", None, None),
]


def rows(i: int) -> list[Row]:
    heard = Tag("Dog", 0.9123, ((0.1, 4.13), (6.15, 8.16))), Tag("Bark", 1 / 3)
    seen = (Tag("beagle", 0.62),)
    one = Row(readable(i), 0.1, 10.1, f"caption {i}", -0.1 / 3, 1 / 7, None, None, "ok", "", heard, seen)
    return [one, Row(readable(i), error="cut off")] if i == 2 else [one]


def readable(i: int) -> str:
    return "/v/bad\\xff \né.mp4" if i == 1 else SOURCES[i].name


def filled(folder: Path, settings: dict[str, object] = SETTINGS) -> Path:
    with Journal(folder / "o.csv.journal", folder / "o.csv", settings) as journal:
        journal.match(SOURCES)
        for i in (2, 0, 1, 3):
            journal.append(i, SOURCES[i], rows(i))
    return folder / "o.csv.journal"


def again(folder: Path, sources: list[Source] = SOURCES, settings: dict[str, object] = SETTINGS,
          overwrite: bool = False) -> tuple[list[int], list[int], Journal]:  # fmt: skip
    """(done, failed) inputs, and the journal, which is closed."""
    with Journal(folder / "o.csv.journal", folder / "o.csv", settings, overwrite) as journal:
        journal.match(sources)
        done = [i for i in range(len(sources)) if journal.done(i)]
        for i in done:
            if sources is SOURCES:
                assert journal.rows(i, sources[i]) == rows(i)
        return done, [i for i in done if journal.failed(i)], journal


def test_appended_rows_are_read_again(tmp_path: Path) -> None:
    filled(tmp_path)
    assert again(tmp_path)[:2] == ([0, 1, 2, 3], [2])
    others = [source("/v/new.mp4"), SOURCES[1], source("/v/a.mp4", size=11), source("/v/a.mp4", mtime=6),
              source("/v/c.mp4"), source("/v/c.mp4", start=1.5, end=2.25)]  # fmt: skip
    done, failed, journal = again(tmp_path, others)
    assert (done, failed) == ([1, 5], [5])
    assert journal.unused == 1  # https://x/d; /v/a.mp4 is still named


def test_a_journal_without_tags_is_resumed(tmp_path: Path) -> None:
    """One that an earlier release began."""
    path = filled(tmp_path)
    head, *lines = map(json.loads, path.read_text("ascii").splitlines())
    kept = [i for i, name in enumerate(head["columns"]) if name not in ("heard", "seen")]
    head["columns"] = [head["columns"][i] for i in kept]
    for line in lines:
        line["rows"] = [[row[i] for i in kept] for row in line["rows"]]
    path.write_text("".join(json.dumps(line) + "\n" for line in (head, *lines)), "ascii")
    with Journal(path, tmp_path / "o.csv", SETTINGS) as journal:
        journal.match(SOURCES)
        journal.append(0, SOURCES[0], rows(0))
        for i in (0, 1):
            assert journal.rows(i, SOURCES[i]) == [replace(row, heard=(), seen=()) for row in rows(i)]


def test_the_last_of_two_rows_counts(tmp_path: Path) -> None:
    path = filled(tmp_path)
    with Journal(path, tmp_path / "o.csv", SETTINGS) as journal:
        journal.match(SOURCES)
        journal.append(2, SOURCES[2], [Row(SOURCES[2].name, caption="at last", status="ok")])
        assert journal.rows(2, SOURCES[2])[0].caption == "at last"
    with Journal(path, tmp_path / "o.csv", SETTINGS) as journal:
        journal.match(SOURCES)
        assert not journal.failed(2)
        assert [row.caption for row in journal.rows(2, SOURCES[2])] == ["at last"]


def test_errors_and_duplicates_are_not_looked_up(tmp_path: Path) -> None:
    filled(tmp_path)
    done, _, journal = again(tmp_path, [SOURCES[0], source("/v/a.mp4", same_as=0), source(ODD, error="no")])
    assert done == [0]
    assert journal.unused == 2


@pytest.mark.slow
def test_a_truncated_journal_keeps_all_complete_lines(tmp_path: Path) -> None:
    """At the ends of its lines and in between."""
    path = filled(tmp_path)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    assert len(ends) == 5
    for length in sorted({*range(0, len(whole), 9), *(end + step for end in ends for step in (-2, -1, 0))}):
        path.write_bytes(whole[:length])
        done, *_ = again(tmp_path)
        lines = sum(end <= length for end in ends)
        assert sorted(done) == sorted([2, 0, 1, 3][: max(0, lines - 1)]), length
        assert path.stat().st_size == (ends[lines - 1] if lines else ends[0])
    path.write_bytes(whole[: ends[1] + 7])
    with Journal(path, tmp_path / "o.csv", SETTINGS) as journal:
        journal.match(SOURCES)
        assert journal.cut == 7
        journal.append(1, SOURCES[1], rows(1))
        assert journal.rows(1, SOURCES[1]) == rows(1)
    assert again(tmp_path)[0] == [1, 2]


def test_a_damaged_line_loses_only_its_input(tmp_path: Path) -> None:
    path = filled(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\0" * 40 + b"\n", *lines[3:]]))
    assert again(tmp_path)[0] == [1, 2, 3]


def test_a_change_of_settings_is_named_with_both_values(tmp_path: Path) -> None:
    path = filled(tmp_path)
    before = path.read_bytes()
    now = {"model": {"name": "mine", "weights": "xyz"}, "beam": 2, "min-rms": -50.0}
    with pytest.raises(UsageError) as caught:
        again(tmp_path, settings=now)
    message = caught.value.message
    assert "--beam: 4 then, 2 now" in message
    assert "--model: demo (weights abc) then, mine (weights xyz) now" in message
    assert "--min-rms: not given then, -50.0 now" in message
    assert "--overwrite" in caught.value.cure
    assert path.read_bytes() == before
    assert again(tmp_path, settings={**SETTINGS, "model": {"name": "a copy", "weights": "abc"}})[0]
    assert again(tmp_path, settings=now, overwrite=True)[0] == []
    assert again(tmp_path, settings=now)[0] == []


def test_an_output_of_other_origin_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text("mine")
    with pytest.raises(UsageError, match="already exists") as caught:
        again(tmp_path)
    assert "--overwrite" in caught.value.cure
    assert os.listdir(tmp_path) == ["o.csv"]
    assert again(tmp_path, overwrite=True)[0] == []


@pytest.mark.parametrize("foreign", [b"my notes", b"my notes\n", b'{"a": 1}\n', b"\x89PNG\r\n"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_is_not_a_journal_is_kept(tmp_path: Path, foreign: bytes, overwrite: bool) -> None:
    (tmp_path / "o.csv.journal").write_bytes(foreign)
    with pytest.raises(EvacapError, match="is not an evacap journal"):
        again(tmp_path, overwrite=overwrite)
    assert (tmp_path / "o.csv.journal").read_bytes() == foreign


def test_two_writers_are_refused(tmp_path: Path) -> None:
    path = filled(tmp_path)
    with (
        Journal(path, tmp_path / "o.csv", SETTINGS),
        pytest.raises(EvacapError, match="another run") as caught,
    ):
        again(tmp_path, overwrite=True)
    assert caught.value.exit_code == 1
    assert again(tmp_path)[0] == [0, 1, 2, 3]


def test_it_is_finished_until_rows_are_added(tmp_path: Path) -> None:
    path = filled(tmp_path)
    assert again(tmp_path)[2].finished is None
    with Journal(path, tmp_path / "o.csv", SETTINGS) as journal:
        journal.finish({"look": 1})
    assert again(tmp_path)[2].finished == {"look": 1}
    filled(tmp_path)
    assert again(tmp_path)[2].finished is None


@pytest.mark.skipif(os.name != "posix", reason="files that are open cannot be removed elsewhere")
def test_its_removal_is_reported(tmp_path: Path) -> None:
    path = filled(tmp_path)
    with Journal(path, tmp_path / "o.csv", SETTINGS) as journal:
        journal.match(SOURCES)
        path.unlink()
        with pytest.raises(EvacapError, match="removed during the run"):
            journal.append(0, SOURCES[0], rows(0))


def test_a_partial_line_on_a_full_disk_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path)
    before = path.read_bytes()

    class Full:
        """A file on a disk with room for ten more bytes."""

        def __init__(self, file: object) -> None:
            self.file, self.left = file, 10

        def write(self, piece: memoryview) -> int:
            if not self.left:
                raise OSError(28, "No space left on device")
            taken = self.file.write(piece[: self.left])  # type: ignore[attr-defined]
            self.left -= taken
            return taken

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    with Journal(path, tmp_path / "o.csv", SETTINGS) as journal:
        journal.match(SOURCES)
        journal._file = Full(journal._file)  # type: ignore[assignment]
        with pytest.raises(EvacapError, match="No space left") as caught:
            journal.append(0, SOURCES[0], rows(0))
        assert "to continue" in caught.value.cure
    assert path.read_bytes() == before


def test_the_lines_are_readable(tmp_path: Path) -> None:
    head, first, *_ = map(json.loads, filled(tmp_path).read_text("ascii").splitlines())
    assert head["settings"] == SETTINGS
    assert first["input"] == ["/v/c.mp4", 10, 5, 1.5, 2.25]
    assert first["rows"][0][head["columns"].index("caption")] == "caption 2"


@pytest.mark.slow
def test_many_inputs_need_little_memory(tmp_path: Path) -> None:
    path, count = filled(tmp_path), 4000
    sources = [source(f"/v/{i:06d}/a name that is not short.mp4", i) for i in range(count)]
    with Journal(path, tmp_path / "o.csv", SETTINGS) as journal:
        journal.match(sources)
        for i, each in enumerate(sources):
            journal.append(i, each, rows(0))
    tracemalloc.start()
    with Journal(path, tmp_path / "o.csv", SETTINGS) as journal:
        journal.match(sources)
        assert all(map(journal.done, range(count)))
        held, peak = tracemalloc.get_traced_memory()
        assert journal.rows(count - 1, sources[-1])[0].caption == "caption 0"
    tracemalloc.stop()
    assert peak < 400 * count
    assert held < 30 * count
