"""Writes outputs: one table or subtitle file for all inputs, one per input or per shard, or CSV on stdout.

A new format is a new entry of `WRITERS`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, Protocol

from evacap_cli.atomic import written_whole
from evacap_cli.data.files import disk_errors
from evacap_cli.errors import UsageError
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.outputs.rows import Row, merge_rows
from evacap_cli.tasks.captioning.outputs.subtitles import srt_text, vtt_text
from evacap_cli.tasks.captioning.outputs.tables import (
    TableFormat,
    csv_header,
    csv_row,
    csv_text,
    json_text,
    write_parquet,
)

Groups = Iterable[tuple[Source, Sequence[Row]]]
Writer = Callable[[IO[bytes], Iterable[Row], TableFormat], None]


def _written_as(text: Callable[[Iterable[Row], TableFormat], Iterator[str]]) -> Writer:
    def write(file: IO[bytes], rows: Iterable[Row], table_format: TableFormat) -> None:
        for piece in text(rows, table_format):
            file.write(piece.encode("utf-8"))

    return write


WRITERS: dict[str, Writer] = {
    "csv": _written_as(csv_text),
    "jsonl": _written_as(json_text),
    "parquet": write_parquet,
    "srt": _written_as(srt_text),
    "vtt": _written_as(vtt_text),
}
FORMATS = tuple(WRITERS)
SHARD = "{shard}"
"""The part of an output's name that stands for the name of a shard."""
SHARD_FORMATS = ("csv", "jsonl", "parquet", "tar")
SUBTITLES = frozenset({"srt", "vtt"})
JOURNAL = ".journal"
FOLDER_NAME = "captions"  # name of a folder's journal, without suffix
CURE = "fix this, then run the same command again to resume; finished inputs are kept"


class Output(Protocol):
    """The output of a run. Its files are complete or do not exist.

    journal: the path of its journal. `check` is called once, with all inputs, before the first row.
    """

    journal: Path

    def check(self, sources: Sequence[Source]) -> None:
        """Raises UsageError if the format does not fit these inputs, EvacapError if the disk fails."""

    def finished(self, source: Source, rows: Sequence[Row]) -> None:
        """Called when an input is done. Raises EvacapError if the disk fails."""

    def close(self, groups: Groups) -> Path:
        """Writes the rows of all inputs, in order. Raises EvacapError if the disk fails; then an existing output is
        unchanged."""


def open_output(
    out: Path,
    kind: str | None = None,
    excel: bool = False,
    merge: bool = False,
    mismatch: bool = False,
    tags: bool = False,
) -> Output:
    """Returns the output for `out`. Without `kind`, `out` is one file whose suffix gives the format, or, with
    `{shard}` in its name, a file per shard; with `kind`, a folder with one file per input.

    excel, mismatch, tags: see `TableFormat`. merge: see `merge_rows`. Writes nothing. Raises UsageError that lists all
    problems.
    """
    suffix = out.suffix.lower().removeprefix(".")
    one = kind is None or (kind == suffix and not out.is_dir())
    chosen = suffix if kind is None else kind
    by_shard = SHARD in str(out)
    wrong = list((_wrong_shards if by_shard else _wrong)(out, kind, suffix, one))
    if excel and chosen in (*FORMATS, *SHARD_FORMATS) and chosen != "csv":
        wrong.append((f"--excel is for CSV only, not .{chosen}", "omit --excel"))
    if mismatch and chosen in SUBTITLES:
        wrong.append((f"--flag-mismatch adds a column, but .{chosen} has none", "omit it, or write a table"))
    if tags and chosen in SUBTITLES:
        wrong.append((f"--tags adds columns, but .{chosen} has none", "omit --tags, or write a table"))
    if wrong:
        raise UsageError("\n".join(message for message, _ in wrong), "; ".join(cure for _, cure in wrong))
    table_format = TableFormat(excel, mismatch, tags)
    if by_shard:
        return FilePerShard(out, suffix, table_format, merge)
    return (
        OneFile(out, chosen, table_format, merge) if one else FilePerInput(out, chosen, table_format, merge)
    )


def _wrong(out: Path, kind: str | None, suffix: str, one: bool) -> Iterator[tuple[str, str]]:
    """Yields (message, cure) for each problem with the path."""
    if kind is not None and kind not in FORMATS:
        yield f"--format {kind}: no such format", f"use {' or '.join(FORMATS)}"
    elif one and out.is_dir():
        example = out / f"{FOLDER_NAME}.csv"
        yield f"-o {out}: is a folder", f"name a file, such as {example}, or add -f srt for a file per input"
    elif one and suffix not in FORMATS:
        yield (
            f"-o {out}: no output has the suffix {out.suffix!r}",
            f"use {', '.join('.' + known for known in FORMATS)}; or add -f {FORMATS[0]} for a folder",
        )
    elif one and not out.parent.is_dir():
        yield f"-o {out}: the folder {out.parent} does not exist", f"mkdir -p {out.parent}"
    elif not one and out.exists() and not out.is_dir():
        yield f"-o {out}: is a file, but --format needs a folder", "name a folder, or omit --format"
    elif not one and suffix in FORMATS and not out.is_dir():
        yield (
            f"-o {out} --format {kind}: is this a .{suffix} file or a folder of .{kind} files?",
            f"omit --format, or use -o {out.with_suffix('')}",
        )


def _wrong_shards(out: Path, kind: str | None, suffix: str, one: bool) -> Iterator[tuple[str, str]]:
    """Yields (message, cure) for each problem with a path that has `{shard}`."""
    example = out.parent / f"{SHARD}.parquet"
    if SHARD not in out.name or SHARD in str(out.parent):
        yield f"-o {out}: {SHARD} is not in the file's name alone", "use a name such as out/{shard}.parquet"
    elif kind is not None:
        yield f"-o {out} --format {kind}: {SHARD} and --format exclude each other", "omit --format"
    elif suffix not in SHARD_FORMATS:
        known = ", ".join(f".{name}" for name in SHARD_FORMATS)
        yield f"-o {out}: no output per shard has the suffix {out.suffix!r}", f"use {known}, as in {example}"
    elif out.parent.exists() and not out.parent.is_dir():
        yield f"-o {out}: {out.parent} is a file", "name another folder"


class OneFile:
    """One file for all inputs, written when all are done."""

    def __init__(self, out: Path, kind: str, table_format: TableFormat, merge: bool) -> None:
        self.out, self.kind, self.table_format, self.merge = out, kind, table_format, merge
        self.journal = out.with_name(out.name + JOURNAL)

    def check(self, sources: Sequence[Source]) -> None:
        recordings = {(source.path, source.member and source.member.position) for source in sources}
        if self.kind in SUBTITLES and len(recordings) > 1:
            raise UsageError(
                f"-o {self.out}: subtitles are for one recording, but there are {len(recordings)}",
                f"use -o {self.out.with_suffix('')} -f {self.kind} for a file each, or a table, such as "
                f"-o {self.out.with_suffix('.csv')}",
            )

    def finished(self, source: Source, rows: Sequence[Row]) -> None:
        """Does nothing: the journal keeps the rows until all inputs are done."""

    def close(self, groups: Groups) -> Path:
        rows = (row for _, group in groups for row in (merge_rows(group) if self.merge else group))
        with disk_errors(self.out, CURE), written_whole(self.out) as aside, aside.open("wb") as file:
            WRITERS[self.kind](file, rows, self.table_format)
        return self.out


class FilePerInput:
    """`FOLDER/RELATIVE.KIND` for every input, written as soon as it is done. Holds the rows of one input in memory."""

    def __init__(self, folder: Path, kind: str, table_format: TableFormat, merge: bool) -> None:
        self.folder, self.kind, self.table_format, self.merge = folder, kind, table_format, merge
        self.journal = folder / (FOLDER_NAME + JOURNAL)

    def check(self, sources: Sequence[Source]) -> None:
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def path_of(self, source: Source) -> Path:
        """Returns the file of an input. It keeps the input's extension, so that a.mp4 and a.mkv do not collide."""
        return self.folder / f"{source.relative or Path(source.path).name}.{self.kind}"

    def finished(self, source: Source, rows: Sequence[Row]) -> None:
        self._write(self.path_of(source), self._content(rows))

    def close(self, groups: Groups) -> Path:
        """Writes files that are missing or differ from the rows."""
        for source, rows in groups:
            path, content = self.path_of(source), self._content(rows)
            if not _holds(path, content):
                self._write(path, content)
        return self.folder

    def _content(self, rows: Sequence[Row]) -> bytes:
        file = io.BytesIO()
        WRITERS[self.kind](file, merge_rows(rows) if self.merge else rows, self.table_format)
        return file.getvalue()

    def _write(self, path: Path, content: bytes) -> None:
        with disk_errors(path, CURE):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not synced: 100,000 files would each wait for the disk. After a power cut, the next run's `close`
            # writes missing files again.
            with written_whole(path, sync=False) as aside:
                aside.write_bytes(content)


class FilePerShard(FilePerInput):
    """A file for every shard, written when all inputs are done: `pattern` with the shard's name for `{shard}`.

    Holds the rows of one shard in memory. Raises UsageError for inputs that are not in a shard.
    """

    def __init__(self, pattern: Path, kind: str, table_format: TableFormat, merge: bool) -> None:
        super().__init__(pattern.parent, kind, table_format, merge)
        self.pattern = pattern

    def path_of(self, source: Source) -> Path:
        if source.member is None:
            raise UsageError(
                f"-o {self.pattern}: {source.name!r} is not in a shard",
                "use one table, such as -o out.parquet",
            )
        return self.folder / self.pattern.name.replace(SHARD, source.member.shard)

    def finished(self, source: Source, rows: Sequence[Row]) -> None:
        """Does nothing: the journal keeps the rows until all inputs are done."""

    def close(self, groups: Groups) -> Path:
        for path, of_shard in groupby(groups, key=lambda each: self.path_of(each[0])):
            group = list(of_shard)
            content = self._captions(group) if self.kind == "tar" else self._content(self._rows(group))
            if not _holds(path, content):
                self._write(path, content)
        return self.pattern

    def _rows(self, groups: Groups) -> list[Row]:
        """Returns the rows of a shard; those of each input are merged alone."""
        return [row for _, rows in groups for row in (merge_rows(rows) if self.merge else rows)]

    def _content(self, rows: Sequence[Row]) -> bytes:
        file = io.BytesIO()
        WRITERS[self.kind](file, rows, self.table_format)
        return file.getvalue()

    def _captions(self, groups: Groups) -> bytes:
        """Returns a tar file with `KEY.caption.json` for every input: its key and its rows as `clips`."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for source, rows in groups:
                assert source.member is not None
                clips = [
                    json.loads(line) for line in json_text(self._rows([(source, rows)]), self.table_format)
                ]
                name = f"{source.member.key}.caption" if source.member.key else "__shard__.error"
                data = json.dumps({"key": source.member.key, "clips": clips}, ensure_ascii=False).encode(
                    "utf-8", "surrogateescape"
                )
                info = tarfile.TarInfo(f"{name}.json")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return content.getvalue()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


class RowStream:
    """Writes rows as CSV to an open text file such as stdout, each as soon as it is ready.

    On a terminal, control characters in names, errors and captions are escaped.
    """

    def __init__(
        self, file: IO[str], excel: bool = False, mismatch: bool = False, tags: bool = False
    ) -> None:
        self.file, self.table_format = file, TableFormat(excel, mismatch, tags)
        self.terminal = file.isatty()

    def __enter__(self) -> RowStream:
        if isinstance(self.file, io.TextIOWrapper):
            self.file.reconfigure(encoding="utf-8", newline="")
        self.file.write(csv_header(self.table_format))
        return self

    def write(self, row: Row) -> None:
        text = csv_row(row, self.table_format)
        self.file.write(_shown(text.removesuffix("\r\n")) + "\r\n" if self.terminal else text)
        self.file.flush()

    def __exit__(self, *_: object) -> None:
        self.file.flush()


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
