"""CSV, JSON, JSONL and Parquet files as rows. Every cell of a text file stays the text that it was."""

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

_DELIMITERS = ",;\t"  # the first wins a tie
_SHOWN = 5


@dataclass(frozen=True)
class Table:
    """Columns as the file names them, and per row where it stands and its cells by `plain_name` of the column."""

    columns: tuple[str, ...]
    rows: list[tuple[str, dict[str, Any]]]


def plain_name(column: str) -> str:
    """A column's name without the differences that nobody means."""
    return column.strip().lower()


def whole_number(text: str) -> str:
    """An id as it was before a table kept it as a floating-point number: `123.0` is 123, other texts are themselves."""
    return re.sub(r"^(\d+)\.0+$", r"\1", text.strip())


def read_table(path: Path, wanted: Callable[[str], bool]) -> Table:
    """The rows of `path`, by its suffix: `.json`, `.jsonl`/`.ndjson`, `.parquet`/`.pq`, anything else is CSV.

    Of a Parquet file only the columns are read whose `plain_name` is `wanted`: data sets keep whole recordings in
    others. Raises UsageError with the cause when the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return _read_parquet(path, wanted)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})", "check the name") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: cannot be read as UTF-8 ({error.reason} at byte {error.start})", "save it in UTF-8"
        ) from error
    if suffix == ".json":
        return _read_json(path, text)
    if suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(path, text)
    return _read_csv(path, text)


def _read_csv(path: Path, text: str) -> Table:
    first = re.split("[\r\n]", text, maxsplit=1)[0]
    delimiter = max(_DELIMITERS, key=lambda d: first.count(d))
    # strict: a quote that is never closed would swallow the rest of the file without a word
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, ragged = [], []
    limit = csv.field_size_limit(min(len(text), 2**31 - 1))  # all of it is in memory anyway
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
            'quote cells that hold quotes or line ends, and write a quote in them twice (")',
        ) from error
    finally:
        csv.field_size_limit(limit)
    if ragged:
        raise UsageError(
            f"{path}: the header has {len(columns)} cells, but {_some(ragged)}",
            f"put cells that hold {delimiter!r} in quotes",
        )
    return _table(path, [name for name in columns if name.strip()], rows)


def _read_json(path: Path, text: str) -> Table:
    """A list of objects, also as `data` of an object, or COCO's `images` with `annotations`."""
    content = _parse(path, "", text)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        content = _coco(path, content)
    elif isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list):
        raise UsageError(
            f"{path}: is not a list of objects",
            'give [{"video": ..., "caption": ...}, ...], the same as "data", or COCO\'s "images" and "annotations"; '
            "a file with one object a line is named .jsonl",
        )
    return _objects(path, [(f"object {i}", row) for i, row in enumerate(content, 1)])


def _read_jsonl(path: Path, text: str) -> Table:
    # not splitlines(): JSON strings may hold line ends of Unicode's, such as U+2028
    lines = [(f"line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    return _objects(path, [(where, _parse(path, where, line)) for where, line in lines])


def _parse(path: Path, where: str, text: str) -> Any:
    """JSON with its numbers as they are written, NaN as nothing."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        place = f"{path}: {where}" if where else f"{path}"
        raise UsageError(f"{place}: is no JSON ({error})", "mend the file") from error


def _objects(path: Path, found: list[tuple[str, Any]]) -> Table:
    wrong = [f"{where} is none" for where, row in found if not isinstance(row, dict)]
    if wrong:
        raise UsageError(
            f"{path}: every clip is an object, but {_some(wrong)}", 'give {"video": ..., "caption": ...}'
        )
    columns = list(dict.fromkeys(name for _, row in found for name in row))
    plain = {name: plain_name(name) for name in columns}
    rows = [(where, {plain[name]: cell for name, cell in row.items()}) for where, row in found]
    return _table(path, columns, rows)


def _coco(path: Path, content: dict[str, Any]) -> list[Any]:
    """COCO's two lists as one: each image with the captions of all annotations that name it."""
    images, notes = content["images"], content.get("annotations")
    if not isinstance(notes, list) or not all(isinstance(item, dict) and "id" in item for item in images):
        raise UsageError(
            f"{path}: has `images`, but not COCO's form",
            "each of `images` needs an `id`, each of `annotations` an `image_id` and a `caption`",
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
        raise UsageError(f"{path}: {_some(astray)}, which is none of `images`", "mend the file")
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
        raise UsageError(f"{path}: has the column {', '.join(map(repr, double))} twice", "rename or drop one")
    return Table(tuple(columns), rows)


def _some(wrong: list[str]) -> str:
    rest = len(wrong) - _SHOWN
    return ", ".join(wrong[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
