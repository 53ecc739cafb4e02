"""The rows of an output, one per clip, and the merging of neighboring rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from evacap_cli.tasks.captioning.outputs.tags import Tag, join_tags, tags_text

AVERAGED = ("score", "gate", "entropy", "mismatch")
DECIMALS = dict.fromkeys(("start", "end"), 3) | dict.fromkeys(AVERAGED, 4)
"""Decimal places of the numeric columns."""
MAX_GAP = 1e-3  # seconds between two rows that still count as neighbors; times have this precision


@dataclass(frozen=True)
class Row:
    """A captioned or failed clip. Times in seconds; None is an empty cell."""

    video: str
    start: float | None = None
    end: float | None = None
    caption: str = ""
    score: float | None = None
    gate: float | None = None
    entropy: float | None = None
    mismatch: float | None = None
    """A column with `--flag-mismatch` only."""
    status: str = "failed"
    error: str = ""
    heard: tuple[Tag, ...] = ()
    """Classes of the sound, best first, of models with tag towers. A column with `--tags` only."""
    seen: tuple[Tag, ...] = ()
    """Classes of the picture, likewise."""
    note: str = ""
    """A note on the input, on its first row: the audio track used, or how much of a truncated file exists. No column.
    """


TAGS = ("heard", "seen")
COLUMNS = tuple(field.name for field in fields(Row) if field.name not in ("mismatch", "note", *TAGS))


def columns(mismatch: bool = False, tags: bool = False) -> tuple[str, ...]:
    """Returns the columns of a table, in order."""
    place = COLUMNS.index("status")
    return (*COLUMNS[:place], *["mismatch"] * mismatch, *TAGS * tags, *COLUMNS[place:])


def cell_value(row: Row, column: str) -> str | float | None:
    """Returns the value of a cell: valid Unicode text, or a rounded number."""
    value = getattr(row, column)
    if column in TAGS:
        return tags_text(value)
    if column not in DECIMALS:
        return readable_path(value)
    return round(float(value), DECIMALS[column]) if value is not None and math.isfinite(value) else None


def readable_path(path: str | Path) -> str:
    r"""Returns a path as valid text: invalid UTF-8 becomes `\xNN`, and lone surrogates become `\uNNNN`."""
    try:
        return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def merge_rows(rows: Iterable[Row]) -> list[Row]:
    """Merges neighboring rows of one input that have the same caption and status.

    Neighbors touch or overlap. A merged row spans all its rows. Its numbers are means weighted by length, and its tags
    those of all rows. Failed rows are not merged.
    """
    joined: list[Row] = []
    run: list[Row] = []
    for row in rows:
        if run and not _continues(run, row):
            joined.append(_join(run))
            run = []
        run.append(row)
    return [*joined, _join(run)] if run else joined


def _continues(run: Sequence[Row], row: Row) -> bool:
    last = run[-1]
    same = (row.video, row.caption, row.status, row.error) == (
        last.video, last.caption, last.status, last.error,
    )  # fmt: skip
    if not same or row.status == "failed" or row.start is None or last.start is None:
        return False
    reached = max((earlier.end for earlier in run if earlier.end is not None), default=-math.inf)
    return last.start <= row.start <= reached + MAX_GAP


def _join(run: Sequence[Row]) -> Row:
    if len(run) == 1:
        return run[0]
    ends = [row.end for row in run if row.end is not None]
    score, gate, entropy, mismatch = (_mean(run, name) for name in AVERAGED)
    heard, seen = (join_tags(getattr(row, name) for row in run) for name in TAGS)
    joined = replace(run[0], score=score, gate=gate, entropy=entropy, mismatch=mismatch)
    return replace(joined, end=max(ends), heard=heard, seen=seen)


def _mean(run: Sequence[Row], name: str) -> float | None:
    weighted = [
        (value, row.end - row.start)
        for row in run
        if (value := getattr(row, name)) is not None and row.start is not None and row.end is not None
    ]
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total if total > 0 else None
