"""The journal beside an output: JSON lines of finished inputs, from which an interrupted run resumes.

The first line has the model and all options that affect the rows. Every other line is one finished input with its rows,
written at once; incomplete lines are ignored. `finished` lines record that the output was complete.
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

from evacap_cli.data.files import disk_errors, take_lock
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.inputs.urls import is_url, without_password
from evacap_cli.tasks.captioning.outputs.rows import TAGS, Row, readable_path
from evacap_cli.tasks.captioning.outputs.tags import from_lists, to_lists

FORMAT = 1
COLUMNS = tuple(field.name for field in fields(Row) if field.name != "video")
HEADER_PREFIX = b'{"evacap captions": '
NO_LINE = -1  # offset of an input without a line
WRITE_CURE = "use another -o, in a writable folder"
OVERWRITE_CURE = "use --overwrite to replace it, or another -o"


class Journal:
    """The journal of one output, locked while it is open. A context manager.

    `settings`: what the rows depend on, by option name. Opening raises EvacapError if another run holds the lock or the
    disk fails, and UsageError if it was made with other settings, or if `out` exists without its journal. `overwrite`
    starts again.

    `match` looks up inputs by path, size, modification time and part. `done`, `failed` and `rows` take their numbers in
    that list. `append` and `finish` write.
    """

    def __init__(self, path: Path, out: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path, self.out, self.settings, self.overwrite = path, out, dict(settings), overwrite
        self.cut = 0
        """Bytes of incomplete lines, left by a run or a machine that stopped."""
        self.finished: dict[str, Any] | None = None
        """The argument of `finish`, None if rows were added since. `last`: the same, also if rows were added."""
        self.last: dict[str, Any] | None = None
        self.unused = 0
        """Inputs in the journal that `match` was not given."""
        self._columns: Sequence[str] = COLUMNS
        self._end = 0
        self._lines: dict[bytes, int] = {}  # of each finished input: 2 * offset, + 1 if it failed
        self._paths: set[int] = set()  # hashes of the paths
        self._positions = array("q")  # the same numbers for the inputs of `match`

    def __enter__(self) -> Journal:
        if self.out.is_file() and not self.path.exists() and not self.overwrite:
            raise UsageError(
                f"-o {self.out}: already exists, but {self.path.name}, which says how it was made, does not",
                OVERWRITE_CURE,
            )
        with disk_errors(self.path, WRITE_CURE):
            self._file: IO[bytes] = self.path.open("ab", buffering=0)
        try:
            if not take_lock(self._file):
                raise EvacapError(
                    f"{self.out}: another run is writing it", "wait for that run, or use another -o"
                )
            with disk_errors(self.path, WRITE_CURE), self.path.open("rb") as file:
                self._begin(file)
            with disk_errors(
                self.path, WRITE_CURE
            ):  # reopened: the first one may have buffered lines that were cut
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
        """Looks up the inputs of a run, except duplicates and unreadable ones, which have no lines."""
        self._positions = array("q", [NO_LINE]) * len(sources)
        for i, source in enumerate(sources):
            key = _key(source)
            self._paths.discard(hash(key[0]))
            if source.same_as is None and not source.error:
                self._positions[i] = self._lines.get(_digest(key), NO_LINE)
        self.unused = len(self._paths)
        self._lines, self._paths = {}, set()

    def done(self, number: int) -> bool:
        return self._positions[number] != NO_LINE

    def failed(self, number: int) -> bool:
        """Whether a finished input has a failed row."""
        return self.done(number) and self._positions[number] % 2 == 1

    def rows(self, number: int, source: Source) -> list[Row]:
        """Returns the rows of a finished input."""
        video = readable_path(source.name)
        with disk_errors(self.path, WRITE_CURE):
            self._reading.seek(self._positions[number] // 2)
            record = _record(self._reading.readline())
        if record is None or "rows" not in record:
            raise EvacapError(f"{self.path}: was changed during the run", "run the same command again")
        named = (
            {"video": video} | dict(zip(self._columns, values, strict=True)) for values in record["rows"]
        )
        return [
            Row(**{name: _from_json(name, row[name]) for name in ("video", *COLUMNS) if name in row})
            for row in named
        ]

    def append(self, number: int, source: Source, rows: Sequence[Row]) -> None:
        """Adds a finished input."""
        values = [[_to_json(name, getattr(row, name, None)) for name in self._columns] for row in rows]
        position = self._end * 2 + any(row.status == "failed" for row in rows)
        self._write({"input": _key(source), "rows": values})
        self._positions[number] = position
        self.finished = None

    def finish(self, output: dict[str, Any] | None) -> None:
        """Records that the output is complete, or, with None, that it is about to be replaced."""
        self._write({"finished": output})
        self.finished = output

    def _begin(self, file: IO[bytes]) -> None:
        first = file.readline()
        header = _header(first)
        if (
            first
            and header is None
            and not (HEADER_PREFIX.startswith(first) or first.startswith(HEADER_PREFIX))
        ):
            raise EvacapError(f"{self.path}: is not an evacap journal", "move it away, or use another -o")
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
            lines = (
                f"  --{name}: {_shown(then.get(name))} then, {_shown(now.get(name))} now" for name in changed
            )
            raise UsageError(
                "\n".join((f"-o {self.out}: was started with other settings", *lines)),
                "use the same settings, another -o, or --overwrite, which captions everything again",
            )

    def _read(self, file: IO[bytes], offset: int) -> None:
        """Reads all lines from `offset` on. Cuts off an incomplete last line, and skips other incomplete lines."""
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
        """Writes one line. If that fails, removes what was written, so that no incomplete line remains."""
        line = json.dumps(record).encode() + b"\n"
        with disk_errors(self.path, WRITE_CURE):
            if os.name != "nt" and not os.fstat(self._file.fileno()).st_nlink:
                raise OSError(errno.ENOENT, "it was removed during the run")
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


def _to_json(column: str, value: Any) -> Any:
    return to_lists(value) if column in TAGS else value


def _from_json(column: str, value: Any) -> Any:
    return from_lists(value) if column in TAGS else value


def _key(source: Source) -> list[Any]:
    """Returns what identifies a source from run to run."""
    path = without_password(source.path) if is_url(source.path) else os.path.abspath(source.path)
    key: list[Any] = [path, source.size, source.mtime_ns, source.start, source.end]
    if (member := source.member) is not None:
        key += [member.key, member.position]
    return key


def _digest(key: list[Any]) -> bytes:
    return hashlib.blake2b(repr(key).encode(), digest_size=16).digest()


def _loaded(line: bytes) -> dict[str, Any]:
    """Returns the record of a line; an empty one if the line is incomplete."""
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
    """Whether two settings are equal. Models are compared by their weights, not by name."""
    if isinstance(then, dict) and isinstance(now, dict):
        return then.get("weights") == now.get("weights")
    return bool(then == now)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value.get('name')} (weights {str(value.get('weights'))[:8]})"
    return "not given" if value is None else str(value)
