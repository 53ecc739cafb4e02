"""Inputs with the same content, found with as little reading as can be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evacap_cli.tasks.captioning.inputs.sources import Source

EDGE_BYTES = 16 * 1024  # bytes read of a file's head and of its tail
_CHUNK = 1 << 20
Inode = tuple[int, int]  # device and number


def find_duplicates(sources: Sequence[Source], inodes: Sequence[Inode | None]) -> dict[int, int]:
    """Number of a source -> number of the first one with the same content and part. `inodes`: those of local files.

    One file under two names is known by its inode, and URLs by their names, without any reading. Other files are read
    where there is another of the same size and part: head and tail, and all of it where those agree. What cannot be
    read, or changes meanwhile, is nobody's copy: the run will tell.
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

    same: dict[int, int] = {}
    for (size, _), group in sizes.items():
        alike = _alike(sources, group, whole=False)
        if size > 2 * EDGE_BYTES:
            alike = [content for edges in alike for content in _alike(sources, edges, whole=True)]
        for content in alike:
            same.update(dict.fromkeys(content[1:], content[0]))
    return {i: same.get(known, known) for i, known in copies.items()} | same


def _alike(sources: Sequence[Source], group: list[int], whole: bool) -> list[list[int]]:
    """Those of a group with equal bytes, together; what is like nothing else is left out."""
    by_digest: dict[bytes, list[int]] = {}
    for i in group if len(group) > 1 else ():
        if digest := _digest(sources[i], whole):
            by_digest.setdefault(digest, []).append(i)
    return [alike for alike in by_digest.values() if len(alike) > 1]


def _digest(source: Source, whole: bool) -> bytes:
    """Of a file's head and tail or of the whole file; empty where it cannot be read or is not what was listed."""
    digest = hashlib.sha256()
    try:
        with open(source.path, "rb", buffering=0) as file:
            if whole:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            else:
                digest.update(file.read(EDGE_BYTES))
                file.seek(max(EDGE_BYTES, (source.size or 0) - EDGE_BYTES))
                digest.update(file.read(EDGE_BYTES))
            status = os.fstat(file.fileno())
    except OSError:
        return b""
    listed = (source.size, source.mtime_ns) == (status.st_size, status.st_mtime_ns)
    return digest.digest() if listed else b""
