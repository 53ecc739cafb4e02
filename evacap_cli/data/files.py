"""Folder locks and error messages for failed writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from evacap_cli.errors import EvacapError

LOCK = "{kind}.lock"
STORE_LOCK = LOCK.format(kind="store")
LOCK_PLACE = 2**40


def size_of(path: Path) -> int:
    """The size of a file in bytes, -1 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


@contextmanager
def disk_errors(place: Path, cure: str = "give another folder") -> Iterator[None]:
    """Converts OSError to an EvacapError that names `place`. `cure` is for errors other than a full disk."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
        raise EvacapError(
            f"{place}: cannot be written: {error.strerror or error}",
            "free disk space, then run the same command again to continue" if full else cure,
        ) from error


@contextmanager
def locked(folder: Path, kind: str) -> Iterator[None]:
    """Creates the folder and locks it for this process, with a file `KIND.lock` in it. The lock ends with the process,
    even if it is killed. kind: what the folder is, such as `store` or `run`. Raises EvacapError if it is locked."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK.format(kind=kind)).open("a+")
    with file:
        if not take_lock(file):
            raise EvacapError(
                f"{folder}: another process is writing this {kind}", "wait for it, or give another folder"
            )
        yield


def take_lock(file: IO[Any]) -> bool:
    """Locks an open file for this process until it is closed. Returns False if another process has the lock.

    Without effect on file systems that do not support locks.
    """
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(
                LOCK_PLACE
            )  # behind the end of the file, because locked bytes are unreadable for others
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return os.name != "nt" and error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True
