"""Caption rows and where they are written to. A new format is a new entry of `FORMATS`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO

from evacap_cli.errors import EvacapError, UsageError


@dataclass(frozen=True)
class Row:
    """One captioned clip, or one that could not be. Times in seconds; None is an empty cell."""

    video: str
    start: float | None = None
    end: float | None = None
    caption: str = ""
    score: float | None = None
    gate: float | None = None
    entropy: float | None = None
    status: str = "failed"
    error: str = ""


COLUMNS = tuple(field.name for field in fields(Row))
DIGITS = dict.fromkeys(("start", "end"), 3) | dict.fromkeys(("score", "gate", "entropy"), 4)


def readable_path(path: str | Path) -> str:
    r"""A path as valid text: bytes that are no UTF-8 become `\xNN`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _csv_line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)  # RFC 4180
    return buffer.getvalue()


def _csv_row(row: Row) -> str:
    cells = []
    for name in COLUMNS:
        value = getattr(row, name)
        cells.append("" if value is None else f"{value:.{DIGITS[name]}f}" if name in DIGITS else value)
    return _csv_line(cells)


def _json_row(row: Row) -> str:
    values = {name: getattr(row, name) for name in COLUMNS}
    values |= {
        name: round(values[name], digits) for name, digits in DIGITS.items() if values[name] is not None
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


FORMATS: dict[str, tuple[str, Callable[[Row], str]]] = {
    ".csv": (_csv_line(COLUMNS), _csv_row),
    ".jsonl": ("", _json_row),
}
"""Suffix -> what a file begins with, and a row as text."""


class RowStream:
    """Rows as CSV to an open text file such as stdout, each as soon as it is there."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def __enter__(self) -> RowStream:
        if isinstance(self.file, io.TextIOWrapper):
            self.file.reconfigure(encoding="utf-8", newline="")
        self.file.write(FORMATS[".csv"][0])
        return self

    def write(self, row: Row) -> None:
        self.file.write(_csv_row(row))
        self.file.flush()

    def __exit__(self, *_: object) -> None:
        self.file.flush()


class RowFile:
    """Rows appended as they come to `OUT.part`, which becomes `OUT` when all are there."""

    def __init__(self, out: Path) -> None:
        check_output(out)
        self.out, self.part = out, out.with_name(out.name + ".part")
        self.head, self.line = FORMATS[out.suffix.lower()]

    def __enter__(self) -> RowFile:
        try:
            self.file: IO[str] = self.part.open("w", encoding="utf-8", newline="")
            self._append(self.head)
        except OSError as error:
            raise EvacapError(
                f"{self.part}: cannot be written: {error.strerror}", "give another -o"
            ) from error
        return self

    def write(self, row: Row) -> None:
        try:
            self._append(self.line(row))
        except OSError as error:
            raise EvacapError(
                f"{self.part}: cannot be written: {error.strerror}", "the rows before that are in it"
            ) from error

    def _append(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.file.close()
        if kind is None:
            self.part.replace(self.out)


def check_output(out: Path) -> None:
    """Raises UsageError when `out` has an unknown suffix, is a folder, or stands in a folder that does not exist."""
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"-o {out}: no table has the suffix {out.suffix!r}", f"use {' or '.join(FORMATS)}")
    if out.is_dir():
        raise UsageError(f"-o {out}: is a folder", f"name a file, such as {out / 'captions.csv'}")
    if not out.parent.is_dir():
        raise UsageError(f"-o {out}: the folder {out.parent} does not exist", f"mkdir -p {out.parent}")
