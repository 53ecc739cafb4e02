from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from evacap_cli.tasks.captioning.outputs import COLUMNS, FORMATS, Row, RowFile, RowStream, readable_path

ODD = Row(
    'a,"b"\r\nc\rd\ne \U0001f600.mp4', 1.23456, 11.23456, 'a "dog", barks', -0.123456, 0.5, None, "ok", ""
)


def test_csv_is_read_back_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "o.csv"
    with RowFile(out) as table:
        table.write(ODD)
        table.write(Row("b.mp4", error="no audio track"))
    with out.open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file, strict=True)
    assert tuple(first) == COLUMNS
    assert (first["video"], first["caption"]) == (ODD.video, ODD.caption)
    assert (first["start"], first["end"], first["score"], first["gate"], first["entropy"]) == (
        "1.235", "11.235", "-0.1235", "0.5000", "",
    )  # fmt: skip
    assert list(second.values()) == ["b.mp4", *[""] * 6, "failed", "no audio track"]
    assert out.read_bytes().startswith(b"video,start,end,caption,score,gate,entropy,status,error\r\n")


def test_json_lines() -> None:
    head, line = FORMATS[".jsonl"]
    text = head + line(ODD)
    assert text.count("\n") == 1
    values = json.loads(text)
    assert list(values) == list(COLUMNS)
    assert (values["video"], values["start"], values["score"], values["entropy"]) == (
        ODD.video,
        1.235,
        -0.1235,
        None,
    )


def test_rows_are_in_the_part_file_at_once_and_in_the_table_at_the_end(tmp_path: Path) -> None:
    out, part = tmp_path / "o.csv", tmp_path / "o.csv.part"
    with RowFile(out) as table:
        table.write(ODD)
        assert b"barks" in part.read_bytes()
        assert not out.exists()
    assert out.exists()
    assert not part.exists()
    with pytest.raises(KeyboardInterrupt), RowFile(out) as table:
        raise KeyboardInterrupt
    assert b"barks" in out.read_bytes()
    assert b"barks" not in part.read_bytes()


def test_a_stream_is_utf8_whatever_the_locale() -> None:
    raw = io.BytesIO()
    with RowStream(io.TextIOWrapper(raw, encoding="ascii")) as table:
        table.write(ODD)
        assert "\U0001f600".encode() in raw.getvalue()
        assert b"\r\r\n" not in raw.getvalue()


def test_bytes_that_are_no_text_are_written_out() -> None:
    assert readable_path(b"a\xff\xc3\xa9.mp4".decode("utf-8", "surrogateescape")) == "a\\xffé.mp4"
