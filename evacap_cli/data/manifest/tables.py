"""Reads CSV, JSON, JSONL and Parquet files as rows. Cells of text files stay unparsed text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evacap_cli.errors import UsageError

_DELIMITERS = ",;\t"  # on a tie, the first is used
_SHOWN = 5


@dataclass(frozen=True)
class Table:
    """The column names of a file, and for each row its position and its cells by `plain_name` of the column."""

    columns: tuple[str, ...]
    rows: list[tuple[str, dict[str, Any]]]


def plain_name(column: str) -> str:
    """A column name in lower case and without surrounding spaces."""
    return column.strip().lower()


def whole_number(text: str) -> str:
    """Undoes the conversion of an integer id to a float: `123.0` becomes `123`. Other texts are only stripped."""
    return re.sub(r"^(\d+)\.0+$", r"\1", text.strip())


def read_table(path: Path, wanted: Callable[[str], bool], mapping: bool = False) -> Table:
    """Reads the rows of `path`. The suffix selects the format: `.json`, `.jsonl`/`.ndjson`, `.parquet`/`.pq`, else CSV.

    From a Parquet file, only columns whose `plain_name` is `wanted` are read, because other columns can contain whole
    recordings. mapping: whether a JSON object may map clips to captions. Raises UsageError with the cause if the file
    cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return _read_parquet(path, wanted)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})", "check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: cannot be read as UTF-8 ({error.reason} at byte {error.start})", "save it in UTF-8"
        ) from error
    if suffix == ".json":
        return _read_json(path, text, mapping)
    if suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(path, text)
    return _read_csv(path, text)


def _read_csv(path: Path, text: str) -> Table:
    first = re.split("[\r\n]", text, maxsplit=1)[0]
    delimiter = max(_DELIMITERS, key=lambda d: first.count(d))
    # without `strict`, an unclosed quote silently consumes the rest of the file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, ragged = [], []
    limit = csv.field_size_limit(min(len(text), 2**31 - 1))  # the whole text is in memory anyway
    try:
        columns = next(reader, [])
        names = [plain_name(name) for name in columns]
        line = reader.line_num + 1
        for cells in reader:
            if any(cells[len(names) :]):
                ragged.append(f"line {line} has {len(cells)} cells")
            elif any(cells):
                rows.append((f"line {line}", dict(zip(names, cells, strict=False))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(
            f"{path}: line {reader.line_num}: {error}",
            'put cells that contain quotes or line breaks in quotes, and double each quote inside (")',
        ) from error
    finally:
        csv.field_size_limit(limit)
    if ragged:
        raise UsageError(
            f"{path}: the header has {len(columns)} cells, but {_some(ragged)}",
            f"put cells that contain {delimiter!r} in quotes",
        )
    return _table(path, [name for name in columns if name.strip()], rows)


def _read_json(path: Path, text: str, mapping: bool) -> Table:
    """Reads a list of objects, an object with such a list as `data`, COCO's `images` and `annotations`, or, with
    `mapping`, an object that maps clips to captions."""
    content = _parse(path, "", text)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        content = _coco(path, content)
    elif isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    elif mapping and isinstance(content, dict) and (rows := _mapped(content)):
        content = rows
    if not isinstance(content, list):
        raise UsageError(
            f"{path}: is not a list of objects",
            'give [{"video": ..., "caption": ...}, ...], an object with this list as "data", or COCO\'s "images" and '
            '"annotations"; name a file with one object per line .jsonl',
        )
    return _objects(path, [(f"object {i}", row) for i, row in enumerate(content, 1)])


def _mapped(content: dict[str, Any]) -> list[Any]:
    """Rows of an object whose values are all captions: a text, a list of texts, or a list of objects with a `caption`.
    Empty if it is something else."""
    rows = []
    for clip, value in content.items():
        texts = [value]
        if isinstance(value, list):
            texts = [item.get("caption") if isinstance(item, dict) else item for item in value]
        if not all(isinstance(text, str) for text in texts):
            return []
        rows.append({"clip": clip, "captions": texts})
    return rows


def _read_jsonl(path: Path, text: str) -> Table:
    # splitlines() would also split at Unicode line breaks inside JSON strings, such as U+2028
    lines = [(f"line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    return _objects(path, [(where, _parse(path, where, line)) for where, line in lines])


def _parse(path: Path, where: str, text: str) -> Any:
    """Parses JSON. Numbers stay text; NaN becomes None."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        position = f"{path}: {where}" if where else f"{path}"
        raise UsageError(f"{position}: is not valid JSON ({error})", "correct the file") from error


def _objects(path: Path, found: list[tuple[str, Any]]) -> Table:
    wrong = [f"{where} is not" for where, row in found if not isinstance(row, dict)]
    if wrong:
        raise UsageError(
            f"{path}: every clip must be an object, but {_some(wrong)}",
            'give {"video": ..., "caption": ...}',
        )
    columns = list(dict.fromkeys(name for _, row in found for name in row))
    plain = {name: plain_name(name) for name in columns}
    rows = [(where, {plain[name]: cell for name, cell in row.items()}) for where, row in found]
    return _table(path, columns, rows)


def _coco(path: Path, content: dict[str, Any]) -> list[Any]:
    """Merges COCO's two lists: each image gets the captions of its annotations."""
    images, notes = content["images"], content.get("annotations")
    if not isinstance(notes, list) or not all(isinstance(item, dict) and "id" in item for item in images):
        raise UsageError(
            f"{path}: has `images`, but is not in COCO's format",
            "each item of `images` needs an `id`, each item of `annotations` an `image_id` and a `caption`",
        )
    captions: dict[str, list[Any]] = {whole_number(str(item["id"])): [] for item in images}
    astray = []
    for i, note in enumerate(notes, 1):
        image = whole_number(str(note.get("image_id"))) if isinstance(note, dict) else ""
        if image in captions:
            captions[image].append(note.get("caption"))
        else:
            astray.append(f"annotation {i} has image_id {image!r}")
    if astray:
        raise UsageError(f"{path}: {_some(astray)}, which is not in `images`", "correct the file")
    return [{**item, "captions": captions[whole_number(str(item["id"]))]} for item in images]


def _read_parquet(path: Path, wanted: Callable[[str], bool]) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            table = file.read(columns=[name for name in columns if wanted(plain_name(name))])
        rows = table.to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UsageError(f"{path}: cannot be read as Parquet ({error})", "check the file") from error
    plain = {name: plain_name(name) for name in columns}
    found = [(f"row {i}", {plain[name]: cell for name, cell in row.items()}) for i, row in enumerate(rows, 1)]
    return _table(path, columns, found)


def _table(path: Path, columns: Sequence[str], rows: list[tuple[str, dict[str, Any]]]) -> Table:
    counts = Counter(map(plain_name, columns))
    double = [name for name, count in counts.items() if count > 1]
    if double:
        raise UsageError(
            f"{path}: has the column {', '.join(map(repr, double))} twice", "rename or remove one of them"
        )
    return Table(tuple(columns), rows)


def _some(wrong: list[str]) -> str:
    rest = len(wrong) - _SHOWN
    return ", ".join(wrong[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
