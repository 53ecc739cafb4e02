"""Finds inputs with the same content while reading as little as possible."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evacap_cli.tasks.captioning.inputs.sources import Source

EDGE_BYTES = 16 * 1024  # bytes read at the start and at the end of a file
STALL_SECONDS = 30.0  # time without a chunk after which a drive is stalled; a disk spins up faster
_CHUNK = 1 << 20
Inode = tuple[int, int]  # device and number


def find_duplicates(sources: Sequence[Source], inodes: Sequence[Inode | None]) -> dict[int, int]:
    """Maps the number of each duplicate to the number of the first source with the same content and part.

    Inodes and URLs identify the same file under two names without reading it. Other files are read only if their size
    and part are equal: first the start and the end, then, if these agree, the whole file. A file that cannot be read,
    that changes, or that is on a stalled drive is no duplicate; captioning reports the error. `inodes`: None for URLs;
    of a member, that of its shard. Members of Parquet files are not compared by content.
    """
    first: dict[Any, int] = {}
    copies: dict[int, int] = {}
    sizes: dict[Any, list[int]] = {}
    for i, (source, inode) in enumerate(zip(sources, inodes, strict=True)):
        if source.error:
            continue
        part = (source.start, source.end)
        member = source.member
        known = first.setdefault((inode or source.path, member and member.position, part), i)
        if known != i:
            copies[i] = known
        elif inode is not None and (member is None or not (member.column or member.sound)):
            sizes.setdefault((source.size, part), []).append(i)

    reader = _Reader()
    same: dict[int, int] = {}
    for (size, _), group in sizes.items():
        equal = reader.group_equal(sources, inodes, group, whole=False)
        if size > 2 * EDGE_BYTES:
            equal = [
                content
                for edges in equal
                for content in reader.group_equal(sources, inodes, edges, whole=True)
            ]
        for content in equal:
            same.update(dict.fromkeys(content[1:], content[0]))
    return {i: same.get(known, known) for i, known in copies.items()} | same


class _Reader:
    """Compares files by digest. Files on a stalled drive are not read and count as different."""

    def __init__(self) -> None:
        self.stalled: set[int] = set()  # devices

    def group_equal(
        self, sources: Sequence[Source], inodes: Sequence[Inode | None], group: list[int], whole: bool
    ) -> list[list[int]]:
        """Returns the files of a group that have equal bytes, as groups of two or more."""
        by_digest: dict[bytes, list[int]] = {}
        for i in group if len(group) > 1 else ():
            device = (inodes[i] or (0, 0))[0]
            if digest := self._digest(sources[i], device, whole):
                by_digest.setdefault(digest, []).append(i)
        return [equal for equal in by_digest.values() if len(equal) > 1]

    def _digest(self, source: Source, device: int, whole: bool) -> bytes:
        """Runs `_read` in a thread, and abandons it if no chunk arrives for `STALL_SECONDS`."""
        if device in self.stalled:
            return b""
        progress: SimpleQueue[bytes | None] = SimpleQueue()
        Thread(target=_read, args=(source, whole, progress), daemon=True).start()
        try:
            while (digest := progress.get(timeout=STALL_SECONDS)) is None:
                pass
        except Empty:
            self.stalled.add(device)
            return b""
        return digest


def _read(source: Source, whole: bool, progress: SimpleQueue[bytes | None]) -> None:
    """Puts None after each chunk, then the digest of the file's start and end or of the whole file.

    The digest is empty if the file cannot be read or has changed since it was listed.
    """
    digest, status = hashlib.sha256(), None
    try:
        with open(source.path, "rb", buffering=0) as file:
            begin, size = source.member.position if source.member else 0, source.size or 0
            file.seek(begin)
            if whole:
                while size > 0 and (chunk := file.read(min(_CHUNK, size))):
                    size -= len(chunk)
                    digest.update(chunk)
                    progress.put(None)
            else:
                digest.update(file.read(min(EDGE_BYTES, size)))
                progress.put(None)
                edge = max(EDGE_BYTES, size - EDGE_BYTES)
                file.seek(begin + edge)
                digest.update(file.read(max(0, size - edge)))
            status = os.fstat(file.fileno())
    except OSError:
        pass
    finally:
        listed = (
            status is not None
            and source.mtime_ns == status.st_mtime_ns
            and (source.member is not None or source.size == status.st_size)
        )
        progress.put(digest.digest() if listed else b"")
