"""Provides an input as a local file while it is read. Runs in worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evacap_cli.errors import MediaError
from evacap_cli.tasks.captioning.inputs.urls import download, is_url

if TYPE_CHECKING:
    from evacap_cli.tasks.captioning.inputs.sources import Source


@contextmanager
def local_file(source: Source) -> Iterator[Path]:
    """Yields the path of a local file, of a temporary copy of a URL, or of a copy in memory of a member of a shard.

    Raises MediaError if a URL cannot be downloaded, or if a file has changed since it was listed or while the body
    runs. This replaces a MediaError of the body, because half a file often cannot be read.
    """
    if source.member is not None:
        from evacap_cli.data.bulk.members import member_file

        with member_file(source.path, source.member, source.mtime_ns) as path:
            yield path
        return
    if is_url(source.path):
        with download(source.path) as path:
            yield path
        return
    before = _state(source.path)
    listed = (source.size, source.mtime_ns)
    if any(old not in (None, now) for old, now in zip(listed, before, strict=True)):
        raise _changed(source.size, before[0])
    try:
        yield Path(source.path)
    except MediaError:
        _check(source.path, before)
        raise
    _check(source.path, before)


@contextmanager
def sound_file(source: Source, path: Path, track: str | None) -> Iterator[Path | None]:
    """Yields the separate file with the sound of a member of a shard, see `members.sound_file`, otherwise None.
    path: of the member's file."""
    if source.member is None:
        yield None
        return
    from evacap_cli.data.bulk import members

    with members.sound_file(source.path, source.member, source.mtime_ns, path, track) as sound:
        yield sound


def _check(path: str, before: tuple[int, int]) -> None:
    after = _state(path)
    if after != before:
        raise _changed(before[0], after[0])


def _state(path: str) -> tuple[int, int]:
    """Returns the size in bytes and the modification time in ns. Raises MediaError."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise MediaError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return status.st_size, status.st_mtime_ns


def _changed(before: int | None, after: int) -> MediaError:
    sizes = f": {before} bytes, then {after}" if before not in (None, after) else ""
    return MediaError(
        f"changed while it was read{sizes}",
        "wait until the other program is done, then run the same command again with --retry-failed",
    )
