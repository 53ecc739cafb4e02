"""What is done already, beside an output: a file of JSON lines that outlives whatever ends the process.

The first line says what made the rows: the model and every option that changes them. Each other line is one finished
input with its rows, written at once; a line that was cut short is no line. `finished` lines say that the output stood
there whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from evacap_cli.data.store.files import disk_errors, take_lock
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.inputs.urls import is_url, without_password
from evacap_cli.tasks.captioning.outputs.rows import TAGS, Row, readable_path
from evacap_cli.tasks.captioning.outputs.tags import from_lists, to_lists

FORMAT = 1
COLUMNS = tuple(field.name for field in fields(Row) if field.name != "video")
HEADER_PREFIX = b'{"evacap captions": '
NO_LINE = -1  # where there is no line
WRITE_CURE = "give another -o, in a folder that can be written"
OVERWRITE_CURE = "--overwrite, if that may go; or give another -o"


class Journal:
    """The journal of one output, held for this process while it is open. A context manager.

    `settings`: what the rows depend on, by the name of its option. Opening raises EvacapError when another run holds
    it or the disk refuses, and UsageError when other settings made it, or when `out` is there but no journal of it.
    `overwrite` begins afresh.

    `match` looks inputs up, by path, size, modification time and part; `done`, `failed` and `rows` answer by their
    numbers in that list. `append` and `finish` write.
    """

    def __init__(self, path: Path, out: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path, self.out, self.settings, self.overwrite = path, out, dict(settings), overwrite
        self.cut = 0
        """Bytes that were no whole line, left by a run or a machine that was stopped."""
        self.finished: dict[str, Any] | None = None
        """What `finish` was told, unless rows came after it; `last`: the same, whatever came after it."""
        self.last: dict[str, Any] | None = None
        self.unused = 0
        """Inputs in it that are not among those of `match`."""
        self._columns: Sequence[str] = COLUMNS
        self._end = 0
        self._lines: dict[
            bytes, int
        ] = {}  # of each finished input, twice the offset, and one more if it failed
        self._paths: set[int] = set()  # their hashes
        self._places = array("q")  # the same numbers for the inputs of `match`

    def __enter__(self) -> Journal:
        if self.out.is_file() and not self.path.exists() and not self.overwrite:
            raise UsageError(
                f"-o {self.out}: is there, but not {self.path.name}, which would say how it was made",
                OVERWRITE_CURE,
            )
        with disk_errors(self.path, WRITE_CURE):
            self._file: IO[bytes] = self.path.open("ab", buffering=0)
        try:
            if not take_lock(self._file):
                raise EvacapError(
                    f"{self.out}: another run is writing it", "wait for that one, or give another -o"
                )
            with disk_errors(self.path, WRITE_CURE), self.path.open("rb") as file:
                self._begin(file)
            with disk_errors(self.path, WRITE_CURE):  # anew: what was read ahead of the other may be cut off
                self._reading: IO[bytes] = self.path.open("rb")
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._reading.close()

    def match(self, sources: Sequence[Source]) -> None:
        """Looks up what is to be captioned: duplicates get their rows elsewhere, and errors are known already."""
        self._places = array("q", [NO_LINE]) * len(sources)
        for i, source in enumerate(sources):
            key = _key(source)
            self._paths.discard(hash(key[0]))
            if source.same_as is None and not source.error:
                self._places[i] = self._lines.get(_digest(key), NO_LINE)
        self.unused = len(self._paths)
        self._lines, self._paths = {}, set()

    def done(self, number: int) -> bool:
        return self._places[number] != NO_LINE

    def failed(self, number: int) -> bool:
        """Whether a row of a finished input is a failed one."""
        return self.done(number) and self._places[number] % 2 == 1

    def rows(self, number: int, source: Source) -> list[Row]:
        """The rows of a finished input."""
        video = readable_path(source.name)
        with disk_errors(self.path, WRITE_CURE):
            self._reading.seek(self._places[number] // 2)
            record = _record(self._reading.readline())
        if record is None or "rows" not in record:
            raise EvacapError(f"{self.path}: was changed while this ran", "run the same command again")
        named = (
            {"video": video} | dict(zip(self._columns, values, strict=True)) for values in record["rows"]
        )
        return [
            Row(**{name: _read_back(name, row[name]) for name in ("video", *COLUMNS) if name in row})
            for row in named
        ]

    def append(self, number: int, source: Source, rows: Sequence[Row]) -> None:
        """One more finished input."""
        values = [[_kept(name, getattr(row, name, None)) for name in self._columns] for row in rows]
        place = self._end * 2 + any(row.status == "failed" for row in rows)
        self._write({"input": _key(source), "rows": values})
        self._places[number] = place
        self.finished = None

    def finish(self, told: dict[str, Any] | None) -> None:
        """The output is whole, or, with None, may be replaced at any moment from here on."""
        self._write({"finished": told})
        self.finished = told

    def _begin(self, file: IO[bytes]) -> None:
        first = file.readline()
        header = _header(first)
        if (
            first
            and header is None
            and not (HEADER_PREFIX.startswith(first) or first.startswith(HEADER_PREFIX))
        ):
            raise EvacapError(f"{self.path}: is no journal of ours", "move it away, or give another -o")
        if header is not None and not self.overwrite:
            self._compare(header["settings"])
            self._columns = header["columns"]
            self._read(file, len(first))
        else:
            self._cut(0)
            self._write({"evacap captions": FORMAT, "settings": self.settings, "columns": COLUMNS})

    def _compare(self, then: dict[str, Any]) -> None:
        now = self.settings
        if changed := [name for name in {**then, **now} if not _same(then.get(name), now.get(name))]:
            said = (
                f"  --{name}: {_shown(then.get(name))} then, {_shown(now.get(name))} now" for name in changed
            )
            raise UsageError(
                "\n".join((f"-o {self.out}: was begun with other settings", *said)),
                "give the same again; or --overwrite, which captions all afresh; or another -o",
            )

    def _read(self, file: IO[bytes], offset: int) -> None:
        """All lines from `offset` on. What is not whole is cut off at the end, and passed over elsewhere."""
        status = list(self._columns).index("status")
        for line in file:
            record = _record(line)
            if not line.endswith(b"\n"):
                self.cut += len(line)
                self._cut(offset)
                return
            if record is None:
                self.cut += len(line)
            elif "rows" in record:
                failed = any(row[status] == "failed" for row in record["rows"])
                self._lines[_digest(record["input"])] = offset * 2 + failed
                self._paths.add(hash(record["input"][0]))
                self.finished = None
            else:
                self.finished = record["finished"]
                self.last = self.finished or self.last
            offset += len(line)
        self._end = offset

    def _write(self, record: dict[str, Any]) -> None:
        """One line, in one piece: nothing that ends this process leaves half of it where another one follows."""
        line = json.dumps(record).encode() + b"\n"
        with disk_errors(self.path, WRITE_CURE):
            if os.name != "nt" and not os.fstat(self._file.fileno()).st_nlink:
                raise OSError(errno.ENOENT, "it was removed while this ran")
            try:
                left = memoryview(line)
                while left:
                    left = left[self._file.write(left) :]
            except OSError:
                with suppress(OSError):
                    self._cut(self._end)
                raise
        self._end += len(line)

    def _cut(self, end: int) -> None:
        self._file.truncate(end)
        self._end = end


def _kept(column: str, value: Any) -> Any:
    return to_lists(value) if column in TAGS else value


def _read_back(column: str, value: Any) -> Any:
    return from_lists(value) if column in TAGS else value


def _key(source: Source) -> list[Any]:
    """What a source is known by."""
    path = without_password(source.path) if is_url(source.path) else os.path.abspath(source.path)
    return [path, source.size, source.mtime_ns, source.start, source.end]


def _digest(key: list[Any]) -> bytes:
    return hashlib.blake2b(repr(key).encode(), digest_size=16).digest()


def _loaded(line: bytes) -> dict[str, Any]:
    """The record on a line; an empty one where it is not whole."""
    if not line.endswith(b"\n"):
        return {}
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _header(line: bytes) -> dict[str, Any] | None:
    record = _loaded(line)
    return record if record.get("evacap captions") == FORMAT else None


def _record(line: bytes) -> dict[str, Any] | None:
    record = _loaded(line)
    return record if {"input", "rows"} <= record.keys() or "finished" in record else None


def _same(then: Any, now: Any) -> bool:
    """A model is the same under any name."""
    if isinstance(then, dict) and isinstance(now, dict):
        return then.get("weights") == now.get("weights")
    return bool(then == now)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value.get('name')} (weights {str(value.get('weights'))[:8]})"
    return "not given" if value is None else str(value)
