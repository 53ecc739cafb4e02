"""Tables are read back as they were written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evacap_cli.errors import UsageError
from evacap_cli.tasks.captioning.outputs.rows import Row
from evacap_cli.tasks.captioning.outputs.tables import TableFormat, csv_text, json_text, write_parquet
from evacap_cli.tasks.captioning.outputs.tags import Tag
from evacap_cli.tasks.reporting.tables import number, table_rows, tags, text

ROWS = [
    Row("=a, b.mp4", 0.0, 2.5, 'a "dog"\nbarks', -0.5, 0.0, None, 0.25, "ok", "",
        (Tag("Dog, big", 0.91), Tag("Bark", 0.5))),
    Row("c.mp4", error="damaged"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "excel", "jsonl", "parquet"])
def test_reads_tables_of_caption(tmp_path: Path, kind: str) -> None:
    look = TableFormat(excel=kind == "excel", mismatch=True, tags=True)
    path = tmp_path / f"table.{'csv' if kind == 'excel' else kind}"
    with path.open("wb") as file:
        if kind == "parquet":
            write_parquet(file, ROWS, look)
        else:
            file.writelines(
                line.encode() for line in (json_text if kind == "jsonl" else csv_text)(ROWS, look)
            )
    first, second = table_rows(path)
    assert text(first, "video") == "=a, b.mp4"
    assert text(first, "caption") == 'a "dog"\nbarks'
    assert [number(first, name) for name in ("start", "end", "gate", "entropy", "mismatch")] == [
        0,
        2.5,
        0,
        None,
        0.25,
    ]
    assert tags(first, "heard") == (("Dog, big", 0.91), ("Bark", 0.5))
    assert tags(first, "seen") == ()
    assert (text(second, "status"), text(second, "error"), number(second, "end")) == (
        "failed",
        "damaged",
        None,
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"file,words\na,b\n"),
        ("a.jsonl", b"[1]\n"),
        ("a.jsonl", b'{"video": "a"}\n'),
        ("a.jsonl", b"{"),
        ("a.parquet", b"PAR1 no"),
        ("a.txt", b"video,caption\n"),
        ("absent.csv", None),
    ],
)
def test_refuses_other_tables(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        list(table_rows(tmp_path / name))


@pytest.mark.parametrize("value", ["nan", "inf", "x", None, "", [], json.loads("NaN")])
def test_invalid_numbers_become_none(value: object) -> None:
    assert number({"score": value}, "score") is None
