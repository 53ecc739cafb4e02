"""Captions of clips in shards: the rows of the same clips as files, one for each key, on resumption too."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evacap_cli import Captioner
from evacap_cli.errors import UsageError
from evacap_cli.tasks.captioning import engine
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.options import OutputOptions
from evacap_cli.tasks.captioning.run import caption_files

from ...data.bulk.shards import write_parquet, write_tar
from ...media.clips import write
from ...servers import FileServer, serving
from . import deeds

INLINE = CaptionOptions(workers=0, batch_size=2, max_words=4)


@pytest.fixture(scope="module")
def captioner(tiny: Path) -> Captioner:
    return Captioner.load(tiny, device="cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Five files: clips that differ, a damaged one, and a copy of the first."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(3):
        write(folder / f"{i}.mp4", 0.4 + 0.1 * i)
    contents = {f"{i}.mp4": (folder / f"{i}.mp4").read_bytes() for i in range(3)}
    return contents | {"3.mp4": b"damaged", "4.mp4": contents["0.mp4"]}


def rows(out: Path) -> list[tuple[str, ...]]:
    """All columns; of the column `video` only the file's name."""
    with out.open(encoding="utf-8", newline="") as file:
        return [(Path(video).name, *rest) for video, *rest in csv.reader(file)]


@pytest.fixture
def as_files(captioner: Captioner, clips: dict[str, bytes], tmp_path: Path) -> list[tuple[str, ...]]:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, content in clips.items():
        (folder / name).write_bytes(content)
    caption_files(captioner, find_sources([folder]), OutputOptions(tmp_path / "files.csv"), INLINE)
    return rows(tmp_path / "files.csv")


def tar_of(clips: dict[str, bytes], folder: Path) -> list[Path]:
    names = sorted(clips)
    shards = []
    for i, part in enumerate((names[:2], names[2:])):
        files: dict[str, bytes] = {}
        for name in part:
            files |= {name: clips[name], name.replace(".mp4", ".json"): b"{}"}
        shards.append(write_tar(folder / f"shard-{i:03d}.tar", files))
    return shards


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_rows_equal_those_of_files(
    captioner: Captioner, clips: dict[str, bytes], as_files: list[tuple[str, ...]], tmp_path: Path, kind: str
) -> None:
    if kind == "tar":
        tar_of(clips, tmp_path)
        inputs = [str(tmp_path / "shard-{000..001}.tar")]
    else:
        columns = {"key": sorted(clips), "mp4": [clips[name] for name in sorted(clips)]}
        inputs = [str(write_parquet(tmp_path / "p.parquet", columns))]
    sources = find_sources(inputs)
    assert [source.same_as for source in sources][4] == (0 if kind == "tar" else None)
    report = caption_files(captioner, sources, OutputOptions(tmp_path / "out.csv"), INLINE)
    assert rows(tmp_path / "out.csv") == as_files
    assert report.counts["failed"] == 1
    again = caption_files(captioner, find_sources(inputs), OutputOptions(tmp_path / "out.csv"), INLINE)
    assert (again.new, again.reused) == (0, 5)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["memory", "http"])
def test_shards_elsewhere(
    captioner: Captioner, clips: dict[str, bytes], as_files: list[tuple[str, ...]], tmp_path: Path, place: str
) -> None:
    """Read in parts, where a server allows it: the rows are those of files."""
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    names = sorted(clips)
    tar = write_tar(tmp_path / "a.tar", {name: clips[name] for name in names[:2]}).read_bytes()
    columns = {"key": names[2:], "mp4": [clips[name] for name in names[2:]]}
    parquet = write_parquet(tmp_path / "b.parquet", columns).read_bytes()
    with serving(FileServer()) as server:
        if place == "http":
            server.files = {"/a.tar": tar, "/b.parquet": parquet}
            inputs = [f"{server.url}/a.tar", f"{server.url}/b.parquet"]
        else:
            fsspec.filesystem("memory").pipe({"/shards/a.tar": tar, "/shards/b.parquet": parquet})
            inputs = ["memory://shards/a.tar", "memory://shards/b.parquet"]
        caption_files(captioner, find_sources(inputs), OutputOptions(tmp_path / "out.csv"), INLINE)
    assert rows(tmp_path / "out.csv") == as_files
    assert place == "memory" or any(request.range for request in server.requests)


def test_segments_of_a_member(captioner: Captioner, clips: dict[str, bytes], tmp_path: Path) -> None:
    options = CaptionOptions(workers=0, batch_size=2, max_words=4, segment=0.2)
    (tmp_path / "2.mp4").write_bytes(clips["2.mp4"])
    tar = write_tar(tmp_path / "s.tar", {"2.mp4": clips["2.mp4"]})
    for name, given in (("file", tmp_path / "2.mp4"), ("tar", tar)):
        caption_files(captioner, find_sources([given]), OutputOptions(tmp_path / f"{name}.csv"), options)
    assert len(rows(tmp_path / "tar.csv")) > 2
    assert rows(tmp_path / "tar.csv") == rows(tmp_path / "file.csv")


@pytest.mark.slow
@pytest.mark.parametrize("segment", [None, 0.2])
def test_sound_of_a_separate_member(
    captioner: Captioner, clips: dict[str, bytes], tmp_path: Path, segment: float | None
) -> None:
    write(tmp_path / "silent.mp4", 0.5, audio=None)
    write(tmp_path / "sound.wav", 0.5, video=None, audio="pcm_s16le")
    picture, sound = (tmp_path / name for name in ("silent.mp4", "sound.wav"))
    files = {"1.wav": sound.read_bytes(), "1.mp4": picture.read_bytes(), "2.mp4": clips["0.mp4"],
             "2.wav": sound.read_bytes(), "3.mp4": b"damaged", "3.wav": sound.read_bytes()}  # fmt: skip
    tar = write_tar(tmp_path / "s.tar", files)
    options = CaptionOptions(workers=0, batch_size=2, max_words=4, segment=segment)
    of_key = dict(captioner_rows(captioner, tar, options))
    alone = captioner.caption([picture.with_name("sound.wav")], segment=segment, max_words=4)
    assert [row.status for row in of_key["1.mp4"]] == ["ok"] * len(alone)
    assert [row.status for row in of_key["3.mp4"]] == ["audio-only"] * len(alone)
    assert [row.caption for row in of_key["3.mp4"]] == [row.caption for row in alone]
    assert of_key["2.mp4"][-1].end != of_key["1.mp4"][-1].end  # its own sound, which is shorter


def captioner_rows(captioner: Captioner, tar: Path, options: CaptionOptions) -> list[tuple[str, list]]:
    return [(Path(source.name).name, rows) for source, rows in captioner.rows(find_sources([tar]), options)]


def test_a_truncated_shard_loses_its_last_key_and_has_a_failed_row(
    captioner: Captioner, clips: dict[str, bytes], tmp_path: Path
) -> None:
    tar = write_tar(tmp_path / "s.tar", {name: clips[name] for name in ("0.mp4", "1.mp4")})
    with tarfile.open(tar) as archive:
        cut = archive.getmembers()[1].offset_data + 1000
    tar.write_bytes(tar.read_bytes()[:cut])
    found = [row for _, rows in captioner.rows(find_sources([tar]), INLINE) for row in rows]
    assert [(Path(row.video).name, row.status) for row in found] == [
        ("0.mp4", "ok"), ("1.mp4", "failed"), ("s.tar", "failed"),
    ]  # fmt: skip
    assert "ends inside it" in found[1].error
    assert "later clips may be missing" in found[2].error


@pytest.mark.slow
def test_a_member_that_kills_its_worker_fails_only_its_row(
    captioner: Captioner, clips: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "read_source", deeds.read)
    monkeypatch.setattr(engine, "read_source_carefully", deeds.read)
    files = {"a.mp4": clips["0.mp4"], "kill.mp4": clips["1.mp4"], "b.mp4": clips["2.mp4"]}
    tar = write_tar(tmp_path / "s.tar", files)
    options = CaptionOptions(workers=1, batch_size=2, max_words=4)
    found = [row for _, rows in captioner.rows(find_sources([tar]), options) for row in rows]
    assert [row.status for row in found] == ["ok", "failed", "ok"]
    assert "SIGKILL" in found[1].error


@pytest.mark.slow
def test_a_file_per_shard(captioner: Captioner, clips: dict[str, bytes], tmp_path: Path) -> None:
    shards = tar_of(clips, tmp_path)
    sources, pattern = find_sources(shards), tmp_path / "out" / "{shard}.parquet"
    caption_files(captioner, sources, OutputOptions(tmp_path / "out.csv"), INLINE)
    caption_files(captioner, sources, OutputOptions(pattern), INLINE)
    tables = [pq.read_table(tmp_path / "out" / f"shard-00{i}.parquet").to_pylist() for i in (0, 1)]
    captions = [row["caption"] for table in tables for row in table]
    assert captions == [row[3] for row in rows(tmp_path / "out.csv")[1:]]
    assert [len(table) for table in tables] == [2, 3]
    (tmp_path / "out" / "shard-001.parquet").unlink()
    again = caption_files(captioner, sources, OutputOptions(pattern), INLINE)
    assert again.new == 0
    assert pq.read_table(tmp_path / "out" / "shard-001.parquet").to_pylist() == tables[1]


def test_shards_of_captions(captioner: Captioner, clips: dict[str, bytes], tmp_path: Path) -> None:
    sources = find_sources(tar_of(clips, tmp_path))
    caption_files(captioner, sources, OutputOptions(tmp_path / "out" / "{shard}.tar"), INLINE)
    with tarfile.open(tmp_path / "out" / "shard-001.tar") as archive:
        names = archive.getnames()
        first = json.load(archive.extractfile(names[0]) or pytest.fail("not a file"))
    assert names == ["2.caption.json", "3.caption.json", "4.caption.json"]
    assert first["key"] == "2"
    assert [clip["status"] for clip in first["clips"]] == ["ok"]


def test_a_file_per_shard_needs_shards(captioner: Captioner, clips: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "0.mp4").write_bytes(clips["0.mp4"])
    with pytest.raises(UsageError, match="not in a shard"):
        caption_files(
            captioner, find_sources([tmp_path / "0.mp4"]), OutputOptions(tmp_path / "{shard}.csv"), INLINE
        )
    for wrong in ("{shard}/a.csv", "{shard}.srt"):
        with pytest.raises(UsageError, match="shard"):
            OutputOptions(tmp_path / wrong).open()


def test_folders_and_lists(clips: dict[str, bytes], tmp_path: Path) -> None:
    first, second = tar_of(clips, tmp_path)
    listed = io.BytesIO(f"{first}\n{second}\n".encode())
    assert len(find_sources(["-"], stdin=listed)) == 5
    assert len(find_sources([str(tmp_path / "*.tar")])) == 5
    twice = find_sources([first, str(first)])
    assert [source.same_as for source in twice] == [None, None, 0, 1]
    assert len({source.relative for source in twice}) == 4
