"""Lists and reads the clips of Parquet files with a column of media bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

from evacap_cli.data.bulk.files import is_remote, open_shard, shard_errors, state_of
from evacap_cli.errors import MediaError
from evacap_cli.media import MEDIA_SUFFIXES

PARQUETS = (".parquet", ".pq")
_MEDIA = ("bytes", "data", "content", "media", "video", "audio", *(s[1:] for s in sorted(MEDIA_SUFFIXES)))
_KEYS = ("__key__", "key", "audiocap_id", "youtube_id", "video_id", "id", "file_name", "filename", "path")
_BUFFER = 1 << 20  # bytes: reads pages of a column, instead of whole row groups
_OPEN_FILES = 2


@dataclass(frozen=True, slots=True)
class ParquetRow:
    """A clip: its row, key, the suffix of its name ("" if unknown), and the cells of other wanted columns."""

    row: int
    key: str
    suffix: str
    cells: dict[str, Any]


@dataclass(frozen=True)
class MediaColumn:
    """The column with the bytes. name: as pyarrow selects it, `audio.bytes` in a struct. path: the column with names
    of files in the same struct."""

    name: str
    path: str | None


def media_column(path: str) -> MediaColumn | None:
    """Returns the column of media bytes, None if there is none: a binary column, or a struct with `bytes` as
    Hugging Face datasets have. Raises MediaError if the file cannot be read."""
    import pyarrow as pa

    with shard_errors(), _Opened(path) as file:
        schema = file.schema_arrow

    def is_bytes(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    by_name = {field.name.strip().lower().lstrip("."): field for field in schema}
    for name in _MEDIA:
        field = by_name.get(name)
        if field is None:
            continue
        if is_bytes(field.type):
            return MediaColumn(field.name, None)
        if pa.types.is_struct(field.type):
            inner = {field.type.field(i).name: field.type.field(i) for i in range(field.type.num_fields)}
            if "bytes" in inner and is_bytes(inner["bytes"].type):
                return MediaColumn(f"{field.name}.bytes", f"{field.name}.path" if "path" in inner else None)
    return None


def list_parquet(
    path: str, column: MediaColumn, wanted: Callable[[str], bool] | None = None
) -> Iterator[ParquetRow]:
    """Yields the clips of a Parquet file. wanted: which other columns to read. A key is the first of `key`, `id`,
    `file_name`, ... that there is, or the number of the row. Raises MediaError if the file cannot be read."""
    with shard_errors(), _Opened(path) as file:
        names = {field.name.strip().lower(): field.name for field in file.schema_arrow}
        key = next((names[name] for name in _KEYS if name in names and names[name] != column.name), None)
        others = [name for name in names.values() if wanted is not None and wanted(name)]
        columns = list(
            dict.fromkeys([*([key] if key else []), *([column.path] if column.path else []), *others])
        )
        width = len(str(max(0, file.metadata.num_rows - 1)))
        if not columns:
            yield from (ParquetRow(row, f"{row:0{width}d}", "", {}) for row in range(file.metadata.num_rows))
            return
        row = 0
        for batch in file.iter_batches(batch_size=10_000, columns=columns):
            for cells in batch.to_pylist():
                struct = cells.get(column.path.partition(".")[0]) if column.path else None
                named = str((struct or {}).get("path") or "")
                text = cells.get(key) if key else named
                suffix = os.path.splitext(named or str(text or ""))[1].lower()
                suffix = suffix if suffix in MEDIA_SUFFIXES else ""
                shown = f"{row:0{width}d}" if text is None or text == "" else str(text)
                if suffix and shown.lower().endswith(suffix):
                    shown = shown[: -len(suffix)]
                yield ParquetRow(row, shown, suffix, cells)
                row += 1


def read_cell(path: str, column: str, row: int) -> bytes:
    """Returns the bytes of one row. Rows in ascending order are read in one pass. Raises MediaError."""
    with shard_errors():
        return _reader(path, column, None if is_remote(path) else state_of(path)).read(row)


class _Opened:
    """An open Parquet file. A context manager."""

    def __init__(self, path: str) -> None:
        import pyarrow.parquet as pq

        self.file: IO[bytes] = open_shard(path)
        try:
            self.parquet = pq.ParquetFile(self.file, pre_buffer=False, buffer_size=_BUFFER)
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> Any:
        return self.parquet

    def __exit__(self, *_: object) -> None:
        self.file.close()


class _ColumnReader:
    """Reads cells of one column in ascending order, a row group from its start."""

    def __init__(self, path: str, column: str) -> None:
        self.parquet, self.column = _Opened(path).parquet, column
        self.starts = [0]
        for group in range(self.parquet.metadata.num_row_groups):
            self.starts.append(self.starts[-1] + self.parquet.metadata.row_group(group).num_rows)
        self.group, self.next = -1, 0
        self.batches: Iterator[Any] = iter(())

    def read(self, row: int) -> bytes:
        if not 0 <= row < self.starts[-1]:
            raise MediaError(f"the shard has no row {row}")
        group = next(i for i in range(len(self.starts)) if row < self.starts[i + 1])
        try:
            if group != self.group or row < self.next:
                self.batches = self.parquet.iter_batches(1, row_groups=[group], columns=[self.column])
                self.group, self.next = group, self.starts[group]
            while True:
                batch = next(self.batches)
                self.next += 1
                if self.next > row:
                    break
        except BaseException:
            self.group = -1  # the position is not known
            raise
        value = batch.column(0)[0].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise MediaError("the row has no bytes")
        return bytes(content)


@lru_cache(_OPEN_FILES)
def _reader(path: str, column: str, state: tuple[int, int] | None) -> _ColumnReader:
    """Cached readers; `state` identifies the version of the file."""
    return _ColumnReader(path, column)
