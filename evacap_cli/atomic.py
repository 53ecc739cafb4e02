"""Writes files and folders completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY, OLD = ".tmp", ".old"
_unfinished: set[Path] = set()  # temporary files of `written_whole` at present


def make_whole(temporary: Path, path: Path) -> None:
    """Syncs the finished file `temporary` to disk and renames it to `path`."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name != "nt":  # also sync the new name
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def written_whole(path: Path, sync: bool = True, temporary: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path to write to. It is renamed to `path` on success and deleted on errors and interrupts.

    `sync=False` does not wait for the disk, for many small files that can be made again. `temporary`: the
    path to yield, by default `path` with the suffix `TEMPORARY`.
    """
    temporary = temporary or path.with_name(path.name + TEMPORARY)
    _unfinished.add(temporary)
    try:
        yield temporary
        if sync:
            make_whole(temporary, path)
        else:
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        _unfinished.discard(temporary)


def delete_unfinished() -> None:
    """Deletes the temporary files of `written_whole`: for the exit of a process whose threads still write."""
    for temporary in tuple(_unfinished):
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def folder_written_whole(place: Path) -> Iterator[Path]:
    """Yields an empty temporary folder. It replaces the folder `place` on success and is deleted on errors and
    interrupts; the previous folder then stays. Its parents are created."""
    temporary = place.with_name(place.name + TEMPORARY)
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _replace_folder(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def old_folder(place: Path) -> Path:
    """Where the previous folder of `place` is between the two renames that replace it."""
    return place.with_name(place.name + OLD)


def _replace_folder(new: Path, place: Path) -> None:
    """Renames `new` to `place`. If the process is killed between the two renames, `old_folder` holds the previous
    folder."""
    old = old_folder(place)
    try:
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
            place.rename(old)
        new.rename(place)
    finally:
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(place)
