"""Writes rows as tables: CSV, JSON lines and Parquet."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from evacap_cli.tasks.captioning.outputs.rows import DECIMALS, TAGS, Row, cell_value, columns
from evacap_cli.tasks.captioning.outputs.tags import tags_json

BOM = "\ufeff"
FORMULA_STARTS = frozenset("=+-@|\t\r\n")
"""First characters of a cell that a spreadsheet evaluates."""
ROW_GROUP = 10_000  # rows of a Parquet file held in memory


@dataclass(frozen=True)
class TableFormat:
    """The format of a table. excel: make CSV safe for spreadsheets. mismatch, tags: include these columns."""

    excel: bool = False
    mismatch: bool = False
    tags: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return columns(self.mismatch, self.tags)


def csv_header(table_format: TableFormat) -> str:
    """Returns the header line of a CSV file, with a byte order mark for spreadsheets."""
    return BOM * table_format.excel + _csv_line(table_format.columns)


def csv_row(row: Row, table_format: TableFormat) -> str:
    cells = []
    for name in table_format.columns:
        value = cell_value(row, name)
        if isinstance(value, str):
            cells.append(escape_formula(value) if table_format.excel else value)
        else:
            cells.append("" if value is None else f"{value:.{DECIMALS[name]}f}")
    return _csv_line(cells)


def csv_text(rows: Iterable[Row], table_format: TableFormat) -> Iterator[str]:
    """Yields the lines of a CSV file (RFC 4180)."""
    yield csv_header(table_format)
    for row in rows:
        yield csv_row(row, table_format)


def json_text(rows: Iterable[Row], table_format: TableFormat) -> Iterator[str]:
    """Yields the lines of a JSON lines file."""
    for row in rows:
        values = {
            name: tags_json(getattr(row, name)) if name in TAGS else cell_value(row, name)
            for name in table_format.columns
        }
        yield json.dumps(values, ensure_ascii=False) + "\n"


def write_parquet(file: IO[bytes], rows: Iterable[Row], table_format: TableFormat) -> None:
    """Writes a Parquet file, `ROW_GROUP` rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [(name, pa.float64() if name in DECIMALS else pa.string()) for name in table_format.columns]
    )
    rest = iter(rows)
    with pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(rest, ROW_GROUP)):
            values: dict[str, list[Any]] = {
                name: [cell_value(row, name) for row in group] for name in table_format.columns
            }
            writer.write_table(pa.table(values, schema=schema))


def escape_formula(text: str) -> str:
    """Prefixes `text` with an apostrophe if a spreadsheet would evaluate it.

    Full-width variants of the characters count too, also after invisible characters.
    """
    if text[:1] in FORMULA_STARTS and text:
        return "'" + text
    first = next((c for c in text if not (c.isspace() or unicodedata.category(c) in ("Cc", "Cf"))), "")
    return "'" + text if unicodedata.normalize("NFKC", first)[:1] in FORMULA_STARTS and first else text


def _csv_line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()
