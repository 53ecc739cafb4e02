from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.outputs import tables
from evacap_cli.tasks.captioning.outputs.rows import COLUMNS, Row, columns
from evacap_cli.tasks.captioning.outputs.tags import Tag
from evacap_cli.tasks.captioning.outputs.writers import FORMATS, RowStream, open_output

ODD = Row(
    'a,"b"\r\nc\rd\ne \U0001f600.mp4', 1.23456, 11.23456, 'a "dog", barks', -0.123456, 0.5, None, 0.25, "ok"
)
FAILED = Row("b.mp4", error="no audio track")
A, B = Source("a.mp4", "a.mp4", relative="a.mp4"), Source("x/b.mp4", "x/b.mp4", relative="x/b.mp4")
GROUPS = [(A, [ODD]), (B, [FAILED])]
NUMBERS = ("start", "end", "score", "gate", "entropy", "mismatch")


def read(path: Path) -> list[dict[str, object]]:
    """Any table as it is read by others."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    return [
        {name: (float(value) if value else None) if name in NUMBERS else value for name, value in row.items()}
        for row in rows
    ]


def as_read(row: Row, mismatch: bool = False) -> dict[str, object]:
    digits = {"start": 3, "end": 3}
    values = {name: getattr(row, name) for name in columns(mismatch)}
    return {
        name: round(value, digits.get(name, 4)) if isinstance(value, float) else value
        for name, value in values.items()
    }


@pytest.mark.parametrize("mismatch", [False, True])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_survive_reading_in_order(tmp_path: Path, kind: str, mismatch: bool) -> None:
    out = tmp_path / f"o.{kind}"
    output = open_output(out, mismatch=mismatch)
    assert output.journal == tmp_path / f"o.{kind}.journal"
    output.check([A, B])
    output.finished(A, [ODD])
    assert not out.exists()
    assert output.close(iter([*GROUPS, *GROUPS])) == out
    expected = [as_read(row, mismatch) for row in (ODD, FAILED)]
    if kind == "csv":
        assert out.read_bytes().startswith(",".join(columns(mismatch)).encode() + b"\r\n")
    found = read(out)
    assert found == expected * 2
    assert list(found[0]) == list(columns(mismatch))
    assert [path.name for path in tmp_path.iterdir()] == [out.name]  # nothing else is left


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_with_tags(tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"o.{kind}"
    heard, seen = (
        (Tag("Dog", 0.9123, ((1.23, 4.03),)), Tag("Bark", 0.77, ((1.23, 4.03),))),
        (Tag("beagle", 1.0),),
    )
    row = replace(ODD, heard=heard, seen=seen)
    open_output(out, mismatch=True, tags=True).close([(A, [row]), (B, [FAILED])])
    first, second = read(out)
    names = [*columns(mismatch=True)[:8], "heard", "seen", "status", "error"]
    assert list(first) == list(second) == names
    calls: list[object] = ["Dog .91; Bark .77", "beagle .99"]
    if kind == "jsonl":
        dog = {"class": "Dog", "confidence": 0.91, "times": [[1.23, 4.03]]}
        calls = [
            [dog, {**dog, "class": "Bark", "confidence": 0.77}],
            [{"class": "beagle", "confidence": 0.99}],
        ]
    assert [first.pop(name) for name in ("heard", "seen")] == calls
    assert [second.pop(name) for name in ("heard", "seen")] == [type(calls[0])(), type(calls[1])()]
    assert [first, second] == [as_read(each, mismatch=True) for each in (ODD, FAILED)]


def test_csv_numbers_have_fixed_decimals(tmp_path: Path) -> None:
    open_output(tmp_path / "o.csv").close(GROUPS)
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file, strict=True)
    assert (first["start"], first["end"], first["score"], first["gate"], first["entropy"]) == (
        "1.235", "11.235", "-0.1235", "0.5000", "",
    )  # fmt: skip
    assert list(second.values()) == ["b.mp4", *[""] * 6, "failed", "no audio track"]


def test_parquet_with_only_failures_has_the_same_types(tmp_path: Path) -> None:
    for name, groups in {"a": GROUPS, "b": [(B, [FAILED])], "c": []}.items():
        open_output(tmp_path / f"{name}.parquet").close(groups)
    first, *others = (pq.read_schema(tmp_path / f"{name}.parquet") for name in "abc")
    assert all(schema.equals(first) for schema in others)


def test_a_file_for_each_input_in_a_mirrored_tree(tmp_path: Path) -> None:
    out = tmp_path / "new" / "captions"
    sources = [
        Source(name, f"/in/{name}", relative=name) for name in ("a.mp4", "a.mkv", "x/a.mp4", "x/犬.wav")
    ]
    row = replace(ODD, caption="a dog barks")
    output = open_output(out, "srt")
    assert output.journal == out / "captions.journal"
    output.check(sources)
    output.finished(sources[0], [row])
    assert (out / "a.mp4.srt").read_text(
        encoding="utf-8"
    ) == "1\n00:00:01,235 --> 00:00:11,235\na dog barks\n\n"
    assert output.close((source, [row]) for source in sources) == out
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == [
        "a.mkv.srt", "a.mp4.srt", "x/a.mp4.srt", "x/犬.wav.srt",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_works_below_a_folder(tmp_path: Path, kind: str) -> None:
    output = open_output(tmp_path, kind)
    output.check([A, B])
    for source, rows in GROUPS:
        output.finished(source, rows)
    files = tmp_path / f"a.mp4.{kind}", tmp_path / "x" / f"b.mp4.{kind}"
    if kind in ("csv", "jsonl", "parquet"):
        assert [read(path) for path in files] == [[as_read(ODD)], [as_read(FAILED)]]
    assert files[1].exists()


def test_finishing_repairs_only_missing_or_changed_files(tmp_path: Path) -> None:
    sources = [Source(name, name, relative=name) for name in ("a.mp4", "b.mp4", "c.mp4")]
    output = open_output(tmp_path, "vtt")
    for source in sources:
        output.finished(source, [ODD])
    paths = [tmp_path / f"{source.name}.vtt" for source in sources]
    good = paths[0].read_bytes()
    paths[0].unlink()
    paths[1].write_bytes(good.replace(b"dog", b"cat"))
    os.utime(paths[2], (1, 1))
    output.close((source, [ODD]) for source in sources)
    assert [path.read_bytes() for path in paths] == [good] * 3
    assert paths[2].stat().st_mtime == 1


def test_merge_joins_rows_of_one_input_only(tmp_path: Path) -> None:
    rows = [Row("a.mp4", 10.0 * i, 10.0 * i + 10, "rain", status="ok") for i in range(3)]
    open_output(tmp_path / "o.jsonl", merge=True).close([(A, rows), (A, rows)])
    assert [(row["start"], row["end"]) for row in read(tmp_path / "o.jsonl")] == [(0.0, 30.0)] * 2
    open_output(tmp_path, "jsonl", merge=True).finished(A, rows)
    assert len(read(tmp_path / "a.mp4.jsonl")) == 1
    open_output(tmp_path / "all.jsonl").close([(A, rows)])
    assert len(read(tmp_path / "all.jsonl")) == 3


FORMULAS = [
    *(
        "=1+1",
        "+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "|calc",
        " =1",
        "\u200b=1",
        "\x01=1",
        "\ufeff=1",
    ),
    *("\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20x", "\ufe661"),  # full-width and small signs
]
HARMLESS = ["", "a=1", "a dog - barks", "1+1", "'=1", "犬", "é", "(=1)", "_x"]


def test_excel_cells_are_text(tmp_path: Path) -> None:
    rows = [Row(text, -1.5, 2.0, text, -0.5, status="ok", error=text) for text in (*FORMULAS, *HARMLESS)]
    open_output(tmp_path / "e.csv", excel=True).close([(A, rows)])
    open_output(tmp_path / "p.csv").close([(A, rows)])
    raw = (tmp_path / "e.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfvideo,")
    assert not (tmp_path / "p.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    escape_formula = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True))
    plain = list(
        csv.DictReader(io.StringIO((tmp_path / "p.csv").read_bytes().decode(), newline=""), strict=True)
    )
    assert [row["caption"] for row in plain] == [*FORMULAS, *HARMLESS]
    for name in ("video", "caption", "error"):
        assert [row[name] for row in escape_formula] == [*("'" + text for text in FORMULAS), *HARMLESS]
    assert {(row["start"], row["score"]) for row in escape_formula} == {("-1.500", "-0.5000")}
    tagged = Row("a.mp4", heard=(Tag("=1", 0.5),), seen=(Tag("dog", 0.5),))
    open_output(tmp_path / "t.csv", excel=True, tags=True).close([(A, [tagged])])
    (row,) = csv.DictReader(io.StringIO((tmp_path / "t.csv").read_bytes().decode("utf-8-sig"), newline=""))
    assert (row["heard"], row["seen"]) == ("'=1 .50", "dog .50")


def test_stream_is_utf8_in_any_locale() -> None:
    raw = io.BytesIO()
    with RowStream(io.TextIOWrapper(raw, encoding="ascii")) as table:
        table.write(ODD)
        assert "\U0001f600".encode() in raw.getvalue()
        assert b"\r\r\n" not in raw.getvalue()
    (row,) = csv.DictReader(io.StringIO(raw.getvalue().decode(), newline=""), strict=True)
    assert tuple(row) == COLUMNS
    assert row["video"] == ODD.video


def test_a_stream_with_excel_escapes_and_scores() -> None:
    file = io.StringIO(newline="")
    with RowStream(file, excel=True, mismatch=True, tags=True) as table:
        table.write(replace(ODD, caption="=1", heard=(Tag("Dog", 0.5),)))
    (row,) = csv.DictReader(io.StringIO(file.getvalue().removeprefix("\ufeff"), newline=""), strict=True)
    assert (row["caption"], row["mismatch"]) == ("'=1", "0.2500")
    assert (row["heard"], row["seen"]) == ("Dog .50", "")


def test_control_characters_are_escaped_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Terminal(newline="")
    with RowStream(file) as table:
        table.write(Row("\x1b]0;title\x07\u202e.mp4", error="two\nlines"))
    _, line, rest = file.getvalue().split("\r\n")
    assert line == '\\x1b]0;title\\x07\\u202e.mp4,,,,,,,failed,"two\\nlines"'
    assert rest == ""


def test_impossible_outputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file.txt").touch()
    (tmp_path / "odd.csv").mkdir()
    wrong: dict[tuple, str] = {
        (tmp_path,): "is a folder",
        (tmp_path / "o.txt",): "no output has the suffix '.txt'",
        (tmp_path / "o",): "no output has the suffix ''",
        (tmp_path / "no" / "o.csv",): "does not exist",
        (tmp_path / "odd.csv",): "is a folder",
        (tmp_path, "ass"): "no such format",
        (tmp_path / "file.txt", "srt"): "is a file",
        (tmp_path / "o.csv", "srt"): "a folder of .srt",
        (tmp_path, "srt", True): "--excel is for CSV",
        (tmp_path / "o.parquet", None, True): "--excel is for CSV",
        (tmp_path / "o.srt", None, False, False, True): "--flag-mismatch adds a column",
        (tmp_path / "o.vtt", None, False, False, False, True): "--tags adds columns",
        (tmp_path / "o.txt", None, False, False, False): "suffix",
    }
    for arguments, words in wrong.items():
        with pytest.raises(UsageError, match=words) as caught:
            open_output(*arguments)
        assert caught.value.cure
    for fine in ((tmp_path / "o.srt", "srt"), (tmp_path / "odd.csv", "csv"), (tmp_path / "new", "parquet")):
        open_output(*fine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "odd.csv"]  # nothing was made


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles_are_of_one_recording(tmp_path: Path, kind: str) -> None:
    one = open_output(tmp_path / f"o.{kind}")
    with pytest.raises(UsageError, match="for one recording, but there are 2") as caught:
        one.check([A, B])
    assert f"-o {tmp_path / 'o'} -f {kind}" in caught.value.cure
    one.check([A])
    one.check([replace(A, start=0.0, end=10.0), replace(A, start=30.0, end=40.0)])
    open_output(tmp_path, kind).check([A, B])
    open_output(tmp_path / "o.csv").check([A, B])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_old_output_stays_until_the_new_one_is_complete(tmp_path: Path, kind: str) -> None:
    def broken() -> Iterator[tuple[Source, list[Row]]]:
        yield A, [ODD]
        raise KeyboardInterrupt

    out = tmp_path / f"o.{kind}"
    out.write_text("before")
    with pytest.raises(KeyboardInterrupt):
        open_output(out).close(broken())
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_many_rows_need_bounded_memory(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """4,000 rows in memory would take 1.7 MB. Those of one row group are held."""
    monkeypatch.setattr(tables, "ROW_GROUP", 500)

    def groups(count: int) -> Iterator[tuple[Source, list[Row]]]:
        for i in range(count):
            yield A, [Row(f"folder/{i}.mp4", 0.0, 10.0, f"a dog barks {i} times", -0.5, status="ok")]

    out = tmp_path / f"o.{kind}"
    open_output(out).close(groups(1))  # what is imported is not counted
    tracemalloc.start()
    try:
        open_output(out).close(groups(4000))
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    assert len(read(out)) == 4000
    if kind == "parquet":
        assert pq.ParquetFile(out).num_row_groups == 8


def test_folders_that_disappear_or_are_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    output = open_output(folder / "o.csv")
    shutil.rmtree(folder)
    with pytest.raises(EvacapError, match="cannot be written: No such file or directory"):
        output.close(GROUPS)
    each = open_output(tmp_path / "each", "csv")
    each.check([A])
    (tmp_path / "each" / "a.mp4.csv").mkdir()
    with pytest.raises(EvacapError, match=r"a\.mp4\.csv: cannot be written: Is a directory"):
        each.finished(A, [ODD])
    assert [path.name for path in (tmp_path / "each").iterdir()] == ["a.mp4.csv"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("nothing can be mounted")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="mount")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk(small_disk: Path, kind: str) -> None:
    out = small_disk / f"o.{kind}"
    open_output(out).close([(A, [ODD])])
    before = out.read_bytes()
    many = [
        Row(f"{i}-{os.urandom(40).hex()}.mp4", i, i + 1, os.urandom(40).hex(), status="ok")
        for i in range(3000)
    ]
    with pytest.raises(EvacapError, match="cannot be written: No space left on device") as caught:
        open_output(out).close([(A, many)])
    assert "free disk space" in caught.value.cure
    assert out.read_bytes() == before
    each = open_output(small_disk, kind)
    with pytest.raises(EvacapError, match="No space left on device"):
        each.finished(A, many)
    assert [path.name for path in small_disk.iterdir()] == [out.name]


@pytest.mark.skipif(shutil.which("mount") is None, reason="mount")
def test_a_read_only_disk(small_disk: Path) -> None:
    outputs = open_output(small_disk / "o.csv"), open_output(small_disk / "new", "srt")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for attempt in (
        lambda: outputs[0].close(GROUPS),
        lambda: outputs[1].check([A]),
        lambda: outputs[1].finished(A, [ODD]),
    ):
        with pytest.raises(EvacapError, match="cannot be written: Read-only file system"):
            attempt()


def test_columns_are_the_fields_of_rows() -> None:
    """All fields but the note, which `--verbose` and `--json` show: what was passed over in a file is no error."""
    assert set(columns(mismatch=True, tags=True)) == {field.name for field in fields(Row)} - {"note"}
