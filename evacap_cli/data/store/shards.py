"""Writes the shards of a feature store. Each is written to a temporary file and renamed when complete.

A shard is valid once its index part exists.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from evacap_cli.atomic import TEMPORARY, make_whole
from evacap_cli.data.files import disk_errors
from evacap_cli.data.store.index import SCHEMA, part_path, shard_path, write_index
from evacap_cli.data.store.members import Packed, StoreItem
from evacap_cli.media.pool import Outcome

Item = TypeVar("Item", bound=StoreItem)

SHARD_SECONDS = 300.0  # a shard is closed after this time even if it is not full; a crash loses at most this
BLOCK = 512  # bytes of a tar block


class ShardWriter:
    """Collects rows and members into a shard and its index part.

    A context manager that discards uncommitted rows on exit. staged: a temporary name for one shard that `stage`
    completes; it is not committed here.
    """

    def __init__(self, folder: Path, number: int, most: int, staged: str = "") -> None:
        self.folder, self.number, self.most, self.staged = folder, number, most, staged
        self.rows: list[tuple[dict[str, Any], int]] = []  # each with the size of the shard after it
        self.tar: tarfile.TarFile | None = None
        self.clips = 0
        self.began = time.monotonic()
        self.committing = False

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    @property
    def aside(self) -> Path:
        path = shard_path(self.folder, self.number)
        return path.with_name(self.staged or path.name + TEMPORARY)

    def add_outcome(self, outcome: Outcome[Item, Packed]) -> list[dict[str, str]]:
        """Adds a decoded clip, or why there is none. Returns its notes (key, source, note)."""
        item, packed = outcome.item, outcome.value
        if packed is None:
            self.add(item, None, "failed", outcome.error or "")
            return []
        self.add(item, packed, packed.status, packed.error)
        return [{"key": item.key, "source": item.source, "note": packed.note}] if packed.note else []

    def add(self, item: StoreItem, packed: Packed | None, status: str, error: str) -> None:
        """Adds a clip and commits the shard if it is full. Raises EvacapError if writing fails."""
        if not self.rows:
            self.began = time.monotonic()
        row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
        row |= {
            "key": item.key,
            "source": item.source,
            "status": status,
            "error": error,
            "entry": entry_hash(item),
            "captions": packed.captions if packed else list(item.captions),
            "frames": [],
        }
        if packed is not None:
            row |= {"shard": self.number, "start": packed.start, "end": packed.end}
            row["seconds"] = packed.end - packed.start
            with disk_errors(self.folder):
                for suffix, data, crc in packed.members:
                    offset = self._append(f"{item.key}.{suffix}", data)
                    member = {"offset": offset, "size": len(data), "crc32": crc}
                    if suffix in ("json", "fbank.npy"):
                        row[suffix.split(".")[0]] = member
                    else:
                        row["frames"].append(member)
            self.clips += 1
        self.rows.append((row, self.tar.offset if self.tar else 0))
        late = time.monotonic() - self.began > SHARD_SECONDS
        if not self.staged and (self.clips >= self.most or len(self.rows) >= 8 * self.most or late):
            self.commit()

    def _append(self, name: str, data: bytes) -> int:
        """Writes a member and returns the offset of its data."""
        if self.tar is None:
            self.tar = tarfile.open(self.aside, "w")  # noqa: SIM115
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self.tar.addfile(info, io.BytesIO(data))
        self.tar.members.clear()  # type: ignore[attr-defined]  # otherwise TarFile keeps all members in memory
        return self.tar.offset - -(-len(data) // BLOCK) * BLOCK

    def commit(self) -> None:
        """Writes the shard, then its index part, which makes the shard valid."""
        if not self.rows:
            return
        self.committing = True
        with disk_errors(self.folder):
            aside = self._complete()
            publish(self.folder, self.number, aside, self._table())
        self.number, self.rows, self.tar, self.clips = self.number + 1, [], None, 0
        self.committing = False

    def stage(self) -> tuple[str, pa.Table]:
        """Completes the shard `staged`. Returns its name, "" if no clip has features, and the rows of the index."""
        with disk_errors(self.folder):
            aside = self._complete()
            if aside is not None:
                with aside.open("rb+") as file:
                    os.fsync(file.fileno())  # another machine publishes it
        self.tar = None
        return "" if aside is None else aside.name, self._table()

    def _complete(self) -> Path | None:
        """Closes the temporary shard without an incomplete clip. Returns it, None if no clip has features."""
        end = self.rows[-1][1] if self.rows else 0
        if not end:
            self._discard()
        if self.tar is None:
            return None
        file: Any = self.tar.fileobj
        file.seek(end)
        file.truncate()
        self.tar.offset = end
        self.tar.close()
        return self.aside

    def _table(self) -> pa.Table:
        return pa.Table.from_pylist([row for row, _ in self.rows], SCHEMA)

    def _discard(self) -> None:
        if self.tar is not None:
            with suppress(OSError):
                self.tar.close()
            with suppress(OSError):
                self.aside.unlink()
            self.tar = None


def publish(folder: Path, number: int, temporary: Path | None, rows: pa.Table) -> None:
    """Makes a complete shard valid: gives it its name, then writes its index part. Raises OSError."""
    if temporary is not None:
        make_whole(temporary, shard_path(folder, number))
    write_index(part_path(folder, number), rows, number + 1)


def entry_hash(item: StoreItem) -> str:
    """16 hex digits of the clip's source and captions in the manifest."""
    return hashlib.sha256(json.dumps([item.source, list(item.captions)]).encode()).hexdigest()[:16]
