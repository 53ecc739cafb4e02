"""Inputs with the same content, found with as little reading as can be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evacap_cli.tasks.captioning.inputs.sources import Source

EDGE_BYTES = 16 * 1024  # bytes read of a file's head and of its tail
STALL_SECONDS = 30.0  # without a single chunk; more than a disk takes to start
_CHUNK = 1 << 20
Inode = tuple[int, int]  # device and number


def find_duplicates(sources: Sequence[Source], inodes: Sequence[Inode | None]) -> dict[int, int]:
    """Number of a source -> number of the first one with the same content and part. `inodes`: those of local files.

    One file under two names is known by its inode, and URLs by their names, without any reading. Other files are read
    where there is another of the same size and part: head and tail, and all of it where those agree. What cannot be
    read, changes meanwhile, or is on a drive that stalls, is nobody's copy: the run will tell.
    """
    first: dict[Any, int] = {}
    copies: dict[int, int] = {}
    sizes: dict[Any, list[int]] = {}
    for i, (source, inode) in enumerate(zip(sources, inodes, strict=True)):
        if source.error:
            continue
        part = (source.start, source.end)
        known = first.setdefault((inode or source.path, part), i)
        if known != i:
            copies[i] = known
        elif inode is not None:
            sizes.setdefault((source.size, part), []).append(i)

    reader = _Reader()
    same: dict[int, int] = {}
    for (size, _), group in sizes.items():
        alike = reader.alike(sources, inodes, group, whole=False)
        if size > 2 * EDGE_BYTES:
            alike = [
                content for edges in alike for content in reader.alike(sources, inodes, edges, whole=True)
            ]
        for content in alike:
            same.update(dict.fromkeys(content[1:], content[0]))
    return {i: same.get(known, known) for i, known in copies.items()} | same


class _Reader:
    """Digests of files. A drive that stalls is read no further: its other files count as unlike."""

    def __init__(self) -> None:
        self.stalled: set[int] = set()  # devices

    def alike(
        self, sources: Sequence[Source], inodes: Sequence[Inode | None], group: list[int], whole: bool
    ) -> list[list[int]]:
        """Those of a group with equal bytes, together; what is like nothing else is left out."""
        by_digest: dict[bytes, list[int]] = {}
        for i in group if len(group) > 1 else ():
            device = (inodes[i] or (0, 0))[0]
            if digest := self._digest(sources[i], device, whole):
                by_digest.setdefault(digest, []).append(i)
        return [alike for alike in by_digest.values() if len(alike) > 1]

    def _digest(self, source: Source, device: int, whole: bool) -> bytes:
        """`_read`'s digest, from a thread that is left behind when it gets nothing for `STALL_SECONDS`."""
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
    """Puts None after each chunk, then the digest of a file's head and tail or of the whole file.

    The digest is empty where the file cannot be read or is not what was listed.
    """
    digest, status = hashlib.sha256(), None
    try:
        with open(source.path, "rb", buffering=0) as file:
            if whole:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    progress.put(None)
            else:
                digest.update(file.read(EDGE_BYTES))
                progress.put(None)
                file.seek(max(EDGE_BYTES, (source.size or 0) - EDGE_BYTES))
                digest.update(file.read(EDGE_BYTES))
            status = os.fstat(file.fileno())
    except OSError:
        pass
    finally:
        listed = status and (source.size, source.mtime_ns) == (status.st_size, status.st_mtime_ns)
        progress.put(digest.digest() if listed else b"")
