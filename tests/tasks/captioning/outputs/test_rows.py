from __future__ import annotations

import math
from dataclasses import replace

from evacap_cli.tasks.captioning.outputs.rows import (
    COLUMNS,
    Row,
    cell_value,
    columns,
    merge_rows,
    readable_path,
)
from evacap_cli.tasks.captioning.outputs.tags import Tag

DOG = Row("a.mp4", 0.0, 10.0, "a dog barks", -0.2, 0.5, 1.0, None, "ok")


def at(row: Row, start: float, end: float, **changes: object) -> Row:
    return replace(row, start=start, end=end, **changes)


def test_the_mismatch_column_is_optional() -> None:
    assert COLUMNS == ("video", "start", "end", "caption", "score", "gate", "entropy", "status", "error")
    assert columns() == COLUMNS
    assert columns(mismatch=True) == (*COLUMNS[:7], "mismatch", *COLUMNS[7:])


def test_tag_columns_are_optional() -> None:
    assert columns(tags=True) == (*COLUMNS[:7], "heard", "seen", *COLUMNS[7:])
    assert columns(mismatch=True, tags=True) == (*COLUMNS[:7], "mismatch", "heard", "seen", *COLUMNS[7:])
    row = replace(DOG, heard=(Tag("Dog", 0.9123, ((0.0, 10.0),)), Tag("Bark", 0.77, ((0.0, 2.0),))))
    assert (cell_value(row, "heard"), cell_value(row, "seen")) == ("Dog .91; Bark .77", "")


def test_cells_are_valid_text_and_finite_numbers() -> None:
    row = Row("a\udcff.mp4", 1.23456, math.nan, "half \ud83d", -math.inf, 0.5, None, None, "ok", "")
    cells = {name: cell_value(row, name) for name in columns(mismatch=True)}
    assert cells == {
        "video": "a\\xff.mp4", "start": 1.235, "end": None, "caption": "half \\ud83d", "score": None, "gate": 0.5,
        "entropy": None, "mismatch": None, "status": "ok", "error": "",
    }  # fmt: skip


def test_undecodable_bytes_are_escaped() -> None:
    assert readable_path(b"a\xff\xc3\xa9.mp4".decode("utf-8", "surrogateescape")) == "a\\xffé.mp4"


def test_adjacent_segments_with_equal_captions_are_merged() -> None:
    rows = [
        at(DOG, 0.0, 10.0, score=-0.2, gate=0.4, mismatch=0.1),
        at(DOG, 10.0, 20.0, score=-0.4, gate=None, mismatch=0.3),
        at(DOG, 20.0, 25.0, score=-0.6, gate=0.7, mismatch=0.5),
        at(DOG, 25.0, 30.0, caption="rain"),
        at(DOG, 30.0, 40.0),
    ]
    first, rain, last = merge_rows(rows)
    assert (first.start, first.end, first.caption) == (0.0, 25.0, "a dog barks")
    assert math.isclose(first.score or 0, -(0.2 * 10 + 0.4 * 10 + 0.6 * 5) / 25)
    assert math.isclose(first.gate or 0, (0.4 * 10 + 0.7 * 5) / 15)
    assert math.isclose(first.mismatch or 0, (0.1 * 10 + 0.3 * 10 + 0.5 * 5) / 25)
    assert math.isclose(first.entropy or 0, 1.0)
    assert rain == rows[3]
    assert last == rows[4]


def test_merged_rows_have_all_tags() -> None:
    rows = [
        at(DOG, 0.0, 10.0, heard=(Tag("Dog", 0.9, ((0.0, 4.0),)),), seen=(Tag("beagle", 0.6),)),
        at(DOG, 10.0, 20.0, heard=(Tag("Bark", 0.95, ((10.0, 20.0),)), Tag("Dog", 0.5, ((12.0, 14.0),)))),
    ]
    (row,) = merge_rows(rows)
    assert row.heard == (Tag("Bark", 0.95, ((10.0, 20.0),)), Tag("Dog", 0.9, ((0.0, 4.0), (12.0, 14.0))))
    assert row.seen == (Tag("beagle", 0.6),)


def test_overlapping_segments_are_merged() -> None:
    rows = [at(DOG, 0.0, 10.0), at(DOG, 5.0, 15.0), at(DOG, 10.0, 12.0)]
    (row,) = merge_rows(rows)
    assert (row.start, row.end) == (0.0, 15.0)
    assert len(merge_rows([at(DOG, 0.0, 10.0), at(DOG, 10.0004, 20.0)])) == 1  # as near as times are kept


def test_segments_that_are_not_merged() -> None:
    apart = [at(DOG, 0.0, 10.0), at(DOG, 20.0, 30.0)]  # a silent stretch was left out
    other = [at(DOG, 0.0, 10.0), at(DOG, 10.0, 20.0, status="audio-only", error="no frame")]
    failed = [Row("a.mp4", error="no audio track"), Row("a.mp4", error="no audio track")]
    earlier = [at(DOG, 10.0, 20.0), at(DOG, 0.0, 10.0)]
    files = [at(DOG, 0.0, 10.0), at(DOG, 10.0, 20.0, video="b.mp4")]
    for rows in (apart, other, failed, earlier, files, [DOG], []):
        assert merge_rows(rows) == rows
