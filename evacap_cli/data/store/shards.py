"""Writes the shards of a feature store. Each is written to a temporary file and renamed when complete.

A shard is valid once its index part exists.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from evacap_cli.atomic import TEMPORARY, make_whole
from evacap_cli.data.store.files import disk_errors
from evacap_cli.data.store.index import SCHEMA, part_path, shard_path, write_index
from evacap_cli.data.store.members import Packed, StoreItem

SHARD_SECONDS = 300.0  # a shard is closed after this time even if it is not full; a crash loses at most this
BLOCK = 512  # bytes of a tar block


class ShardWriter:
    """Collects rows and members into a shard and its index part.

    A context manager that discards uncommitted rows on exit.
    """

    def __init__(self, folder: Path, number: int, most: int) -> None:
        self.folder, self.number, self.most = folder, number, most
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
        return path.with_name(path.name + TEMPORARY)

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
        if self.clips >= self.most or len(self.rows) >= 8 * self.most or late:
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
            end = self.rows[-1][1]
            if not end:
                self._discard()
            if self.tar is not None:
                file: Any = self.tar.fileobj
                file.seek(end)
                file.truncate()  # removes an incomplete clip
                self.tar.offset = end
                self.tar.close()
                make_whole(self.aside, shard_path(self.folder, self.number))
            rows = pa.Table.from_pylist([row for row, _ in self.rows], SCHEMA)
            write_index(part_path(self.folder, self.number), rows, self.number + 1)
        self.number, self.rows, self.tar, self.clips = self.number + 1, [], None, 0
        self.committing = False

    def _discard(self) -> None:
        if self.tar is not None:
            with suppress(OSError):
                self.tar.close()
            with suppress(OSError):
                self.aside.unlink()
            self.tar = None


def entry_hash(item: StoreItem) -> str:
    """16 hex digits of the clip's source and captions in the manifest."""
    return hashlib.sha256(json.dumps([item.source, list(item.captions)]).encode()).hexdigest()[:16]
