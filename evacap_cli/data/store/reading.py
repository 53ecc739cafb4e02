"""Reads a feature store: random access to clips by index, from any number of processes."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evacap_cli.data.store.index import INDEX, MADE, StoreNote, differing, read_index, shard_path
from evacap_cli.data.store.members import array_of, picture_of
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.features.settings import FeatureSettings

MAX_OPEN_SHARDS = 64  # open shards per process
AUDIO_SETTINGS = (
    "sample_rate", "seconds", "mel_bins", "audio_frames", "window", "fbank_mean", "fbank_std", "spectrogram", "padding"
)  # fmt: skip
UNFINISHED = "run the same `evacap prepare` again to continue"
DAMAGED = "restore the shard from a copy, or delete it and run the same `evacap prepare` again"


class Store:
    """Reads the output of `write_store`. Index `i` is the i-th clip with features.

    A store can be pickled and forked; every process opens its own files. Every read is checked against the checksums of
    the index: damaged data raises EvacapError with the shard and the key.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises EvacapError if `folder` is not a store or is not complete."""
        self.folder = Path(folder)
        self.note = StoreNote.read(self.folder)
        if not self.note.complete:
            raise EvacapError(f"{folder}: the store is not finished", UNFINISHED)
        self.settings: FeatureSettings = self.note.features
        self._version = _version(self.folder / INDEX)
        table, _ = read_index(self.folder / INDEX)
        status = np.array(table["status"].to_pylist(), dtype=object)
        made = np.isin(status, MADE)
        rest = table.filter(pa.array(~made)).select(["key", "source", "status", "error"])
        self.failed: list[dict[str, str]] = rest.to_pylist()
        """Clips without features: key, source, status (failed or missing) and error."""
        table = table.filter(pa.array(made)).combine_chunks()
        self.keys: list[str] = table["key"].to_pylist()
        self._captions = _one(table["captions"])
        self._source = [_one(table[name]) for name in ("source", "start", "end")]
        self._shard = _one(table["shard"]).to_numpy(zero_copy_only=False).astype(np.int64)
        self._json, self._fbank = _members(_one(table["json"])), _members(_one(table["fbank"]))
        frames = _one(table["frames"])
        self._frames = _members(frames.flatten())
        self._first_frame = np.concatenate([[0], np.cumsum(_lengths(frames))])
        self._files = _Files()

    def __len__(self) -> int:
        return len(self.keys)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "version": self._version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]
        if self._version != state["version"]:
            raise EvacapError(
                f"{self.folder}: the store was changed while it was in use", "run the command again"
            )

    def check(self, wanted: FeatureSettings, picture: bool = True) -> None:
        """Raises UsageError with every differing setting unless a model with settings `wanted` can read the store.

        `picture`: whether the model uses frames. If not, only the audio settings must match.
        """
        mine, theirs = asdict(self.settings), asdict(wanted)
        names = mine if picture else AUDIO_SETTINGS
        wrong = differing({name: mine[name] for name in names}, {name: theirs[name] for name in names})
        if wrong:
            raise UsageError(
                f"{self.folder}: its features do not match the model: {'; '.join(wrong)}",
                "create a store with `evacap prepare` and the --preset or --model of this model",
            )

    def captions(self, index: int) -> list[str]:
        return self._captions[int(index)].as_py()

    def source(self, index: int) -> tuple[str, float, float]:
        """The path or id that the manifest gives for a clip, and its start and end in that file in seconds."""
        name, start, end = (column[int(index)].as_py() for column in self._source)
        return name, start or 0.0, end or 0.0

    def has_picture(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Whether clips have frames: bool (B,)."""
        rows = np.asarray(rows, dtype=np.int64)
        return self._first_frame[rows + 1] > self._first_frame[rows]

    def extra(self, index: int) -> dict[str, Any]:
        """Other metadata of the clip, such as the labels of synthetic clips."""
        return json.loads(self._read(index, "json", self._json[index])).get("extra", {})

    def fbank(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """float16 (B, T, F), normalised."""
        shape = (self.settings.audio_frames, self.settings.mel_bins)
        out = np.empty((len(rows), *shape), np.float16)
        for i, index in enumerate(map(int, rows)):
            data = self._read(index, "fbank.npy", self._fbank[index])
            try:
                out[i] = array_of(data, shape, np.float16)
            except ValueError as error:
                raise self._damaged(index, "fbank.npy", str(error)) from error
        return out

    def frames(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 (B, N, 3, S, S); zeros for clips without a picture."""
        size = self.settings.image_size
        shape = (self.settings.frames, 3, size, size)
        out = np.empty((len(rows), *shape), np.uint8)
        for i, index in enumerate(map(int, rows)):
            members = self._frames[self._first_frame[index] : self._first_frame[index + 1]]
            if not len(members):
                out[i] = 0
            elif self.note.frames_format == "raw":
                data = self._read(index, "frames.npy", members[0])
                try:
                    out[i] = array_of(data, shape, np.uint8)
                except ValueError as error:
                    raise self._damaged(index, "frames.npy", str(error)) from error
            else:
                self._pictures(index, members, out[i])
        return out

    def fingerprint(self) -> str:
        """16 hex digits that differ when the clips, their captions or the settings differ."""
        about = [self.settings.fingerprint(), self.keys, self._captions.to_pylist()]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]

    def _pictures(self, index: int, members: np.ndarray, out: np.ndarray) -> None:
        """Reads the JPEGs of one clip with a single read into `out` (N, 3, S, S)."""
        if len(members) != len(out):
            raise self._damaged(index, "jpg", f"{len(members)} pictures instead of {len(out)}")
        first = int(members[0, 0])
        span = self._bytes(index, "jpg", first, int(members[-1, :2].sum()) - first)
        for i, (offset, size, crc) in enumerate(members.tolist()):
            name = f"{i:02}.jpg"
            data = self._checked(index, name, span[offset - first : offset - first + size], size, crc)
            try:
                out[i] = picture_of(data, self.settings.image_size)
            except (ValueError, OSError) as error:
                raise self._damaged(index, name, str(error)) from error

    def _read(self, index: int, name: str, member: np.ndarray) -> bytes:
        offset, size, crc = member.tolist()
        return self._checked(index, name, self._bytes(index, name, offset, size), size, crc)

    def _checked(self, index: int, name: str, data: bytes, size: int, crc: int) -> bytes:
        if len(data) < size:
            raise self._damaged(index, name, "the shard is truncated")
        if zlib.crc32(data) != crc:
            raise self._damaged(index, name, "its checksum is wrong")
        return data

    def _bytes(self, index: int, name: str, offset: int, size: int) -> bytes:
        try:
            return self._files.read(shard_path(self.folder, int(self._shard[index])), offset, size)
        except OSError as error:
            raise self._damaged(index, name, error.strerror or str(error)) from error

    def _damaged(self, index: int, name: str, reason: str) -> EvacapError:
        shard = shard_path(self.folder, int(self._shard[index]))
        return EvacapError(f"{shard}: {self.keys[index]}.{name} cannot be read: {reason}", DAMAGED)


class _Files:
    """An LRU cache of open shards. Thread-safe; after a fork it starts empty."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, _File] = OrderedDict()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Reads up to `size` bytes from `offset`, fewer at the end of the file."""
        if self._process != os.getpid():  # forked, perhaps while another thread held the lock
            self._renew()
        with self._lock:
            file = self._open.pop(path, None) or _File(path)
            self._open[path] = file
            while len(self._open) > MAX_OPEN_SHARDS:
                self._open.popitem(last=False)  # closed when the last thread has finished reading
        return file.read(offset, size)


class _File:
    def __init__(self, path: Path) -> None:
        self.handle = -1
        self.handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.lock = threading.Lock()

    def __del__(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)

    def read(self, offset: int, size: int) -> bytes:
        pieces = []
        while size > 0 and (piece := self._piece(offset, size)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def _piece(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self.handle, size, offset)
        with self.lock:
            os.lseek(self.handle, offset, os.SEEK_SET)
            return os.read(self.handle, size)


def _one(column: pa.ChunkedArray) -> Any:
    """Combines the chunks of a column into one array."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [_empty(column)])


def _empty(column: pa.ChunkedArray) -> Any:
    return pa.array([], column.type)


def _members(array: Any) -> np.ndarray:
    """int64 (N, 3): offset, size and crc32."""
    fields = [array.field(i).to_numpy(zero_copy_only=False) for i in range(3)]
    return np.stack(fields, axis=1).astype(np.int64)


def _lengths(lists: Any) -> np.ndarray:
    return np.asarray(lists.value_lengths().fill_null(0), dtype=np.int64)


def _version(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise EvacapError(f"{path}: cannot be read: {error.strerror}", UNFINISHED) from error
    return state.st_mtime_ns, state.st_size
