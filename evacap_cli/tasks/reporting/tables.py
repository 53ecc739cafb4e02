"""Reads the rows of caption tables (CSV, JSON lines, Parquet), one at a time."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evacap_cli.errors import UsageError
from evacap_cli.report.pages.model import Tags
from evacap_cli.tasks.captioning.outputs.tables import BOM, escape_formula

NEEDED = ("video", "caption")
CELL = 2**24  # characters that one cell of a CSV file may have
CURE = "give a table that `evacap caption -o` wrote: .csv, .jsonl or .parquet"
Row = dict[str, Any]


def table_rows(path: Path) -> Iterator[Row]:
    """The rows of a caption table, by column. Raises UsageError if it is not a caption table."""
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise UsageError(f"{path}: caption tables do not have the suffix {path.suffix!r}", CURE)
    try:
        for row in read(path):
            missing = [name for name in NEEDED if name not in row]
            if missing:
                raise UsageError(
                    f"{path}: is not a caption table: it has no column {', '.join(missing)}", CURE
                )
            yield row
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}", CURE) from error
    except (ValueError, csv.Error) as error:  # pyarrow raises it for damaged files
        raise UsageError(f"{path}: is not a caption table: {error}", CURE) from error


def number(row: Row, column: str) -> float | None:
    """A finite number, or None."""
    value = row.get(column)
    try:
        found = float("nan" if value in (None, "") else value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def text(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value)


def tags(row: Row, column: str) -> Tags:
    """Parses tags: `Dog .91; Bark .77`, or the list of JSON lines."""
    value = row.get(column)
    if isinstance(value, list):
        found_tags = (tag for tag in value if isinstance(tag, dict))
        pairs = [(str(tag.get("class", "")), str(tag.get("confidence"))) for tag in found_tags]
    else:
        parts = (part.strip().rpartition(" ") for part in str(value or "").split(";") if part.strip())
        pairs = [(name or share, share) for name, _, share in parts]
    found = []
    for name, share in pairs:
        try:
            found.append((name, float(share)))
        except ValueError:
            found.append((name, math.nan))
    return tuple((name, share if math.isfinite(share) else 0.0) for name, share in found)


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(CELL)
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        excel = file.read(1) == BOM
        file.seek(0)
        rows = csv.DictReader(file)
        if rows.fieldnames:
            rows.fieldnames = [name.lstrip(BOM) for name in rows.fieldnames]
            _need(rows.fieldnames)
        for row in rows:
            values = {name: value or "" for name, value in row.items() if name is not None}
            yield {name: _unquoted(value) for name, value in values.items()} if excel else values


def _unquoted(cell: str) -> str:
    """A cell without the apostrophe that `--excel` added."""
    return cell[1:] if cell[:1] == "'" and escape_formula(cell[1:]) == cell else cell


def _json_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("a line is not an object")
                yield row


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        _need(file.schema_arrow.names)
        for batch in file.iter_batches(1000):
            yield from batch.to_pylist()


def _need(columns: list[str]) -> None:
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}")


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv_rows,
    ".jsonl": _json_rows,
    ".parquet": _parquet_rows,
}
