"""Files that are whole or absent, a folder that one process writes, and words for a disk that refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from evacap_cli.errors import EvacapError

ASIDE, LOCK = ".tmp", "store.lock"
LOCK_PLACE = 2**40


def make_whole(aside: Path, path: Path) -> None:
    """Names a finished file `path` when all of it is on disk."""
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
    if os.name != "nt":  # so that the name lasts, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` when all of it is on disk, and is gone when that failed."""
    aside = path.with_name(path.name + ASIDE)
    try:
        yield aside
        make_whole(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def size_of(path: Path) -> int:
    """Bytes of a file, -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


@contextmanager
def disk_errors(place: Path, cure: str = "give another folder") -> Iterator[None]:
    """Says which folder or file could not be written, and why; `cure` is for disks that are not just full."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
        raise EvacapError(
            f"{place}: cannot be written: {error.strerror or error}",
            "make room; the same command then goes on where it was" if full else cure,
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder and holds it for this process; the lock goes with the process, however that ends."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    with file:
        if not take_lock(file):
            raise EvacapError(
                f"{folder}: another run is writing this store", "wait for it, or give another folder"
            )
        yield


def take_lock(file: IO[Any]) -> bool:
    """Holds an open file for this process until it is closed, however that happens; False where another one holds it.

    A file system that knows no locks holds nothing.
    """
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(LOCK_PLACE)  # where nothing is: what is locked, nobody else can read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return os.name != "nt" and error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True
