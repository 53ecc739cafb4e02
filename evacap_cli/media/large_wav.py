"""Reads WAV files whose samples exceed the 32-bit size in their header.

Recorders that do not switch to RF64 write the size modulo 4 GiB, or the largest size that they know. FFmpeg then takes
the rest of the samples for further chunks: it plays a part, or searches gigabytes for a chunk.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

MIN_SIZE = 2**31  # bytes: a smaller file cannot exceed the size in its header
MODULUS = 2**32  # bytes
MAX_CHUNKS = 1000  # before the samples


class _Data(NamedTuple):
    """Chunk `data` in bytes of the file: the place of its size, and where the samples really end."""

    size_at: int
    end: int


class LargeWav:
    """A file object for FFmpeg: the file up to the end of its samples, with the size 0 in its header.

    FFmpeg reads the size 0 as "up to the end of the file".
    """

    def __init__(self, file: BinaryIO, data: _Data) -> None:
        self._file, self._data = file, data

    def read(self, size: int) -> bytes:
        at = self._file.tell()
        read = bytearray(self._file.read(max(0, min(size, self._data.end - at))))
        for place in range(max(at, self._data.size_at), min(at + len(read), self._data.size_at + 4)):
            read[place - at] = 0
        return bytes(read)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            return self._file.seek(self._data.end + offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def large_wav(path: Path) -> Iterator[LargeWav | None]:
    """Yields a view of the file for FFmpeg, or None if FFmpeg reads the file correctly by itself. Raises OSError."""
    if os.stat(path).st_size < MIN_SIZE:
        yield None
        return
    with path.open("rb") as file:
        data = _find_data(file)
        file.seek(0)
        yield None if data is None else LargeWav(file, data)


def _find_data(file: BinaryIO) -> _Data | None:
    """Returns the samples of a WAV file whose header states too small a size for them; None for any other file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    kind, _, form = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
    if kind != b"RIFF" or form != b"WAVE":
        return None
    for _ in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return None
        name, stated = struct.unpack("<4sI", head)
        start = file.tell()
        if name == b"data":
            if not stated or stated == MODULUS - 1 or start + stated >= size:
                return None  # FFmpeg reads to the end of the file
            end = start + stated + (size - start - stated) // MODULUS * MODULUS
            file.seek(end + end % 2)
            following = file.read(8)
            if 0 < len(following) < 8 or (following and not _is_chunk(following, size - file.tell())):
                end = size
            return _Data(start - 4, end) if end > start + stated else None
        file.seek(stated + stated % 2, os.SEEK_CUR)
    return None


def _is_chunk(head: bytes, left: int) -> bool:
    """Whether 8 bytes look like the head of a chunk, with `left` bytes after it."""
    name, size = struct.unpack("<4sI", head)
    return name.isascii() and name.decode("ascii").isprintable() and size <= left
