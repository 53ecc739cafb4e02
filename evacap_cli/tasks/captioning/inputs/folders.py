"""The status of a path, and all files below a folder in a stable order."""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from evacap_cli.media import MEDIA_SUFFIXES, DecodePool, holds_sound

NO_MEDIA, HIDDEN, SPECIAL = "no media", "hidden", "pipes, sockets or devices"
LINKED_AGAIN = "links to folders that are already included"
PROBE_SECONDS = 60.0  # time limit for probing the content of one file
Wanted = Callable[[str], bool]  # whether the file at a path is an input
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_KINDS = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))


class PathStatus(NamedTuple):
    """The status of a path: bytes, modification time in ns, (device, inode), and the `error` if it cannot be read."""

    size: int | None = None
    mtime_ns: int | None = None
    inode: tuple[int, int] | None = None
    error: str = ""
    is_folder: bool = False


def path_status(path: str) -> PathStatus | None:
    """Returns the status of a path without opening it; None if it does not exist. Links are followed."""
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno not in _NOTHING:
            return PathStatus(error=f"cannot be read: {error.strerror or error}")
        return PathStatus(error="a broken link") if os.path.islink(path) else None
    except ValueError:  # an invalid file name
        return None
    cause, mode = "", status.st_mode
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "a device")
        cause = f"{kind}, not a file"  # reading a pipe could block forever
    elif not status.st_size:
        cause = "the file is empty"
    elif not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        cause = f"cannot be read: {os.strerror(errno.EACCES)}"
    inode = (status.st_dev, status.st_ino)
    return PathStatus(status.st_size, status.st_mtime_ns, inode, cause, stat.S_ISDIR(mode))


def is_media(name: str) -> bool:
    """Whether a file name has an audio or video suffix, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES


class AnySuffix:
    """Decides by suffix or else by content whether a file is an input. A context manager.

    A separate process probes the content, because damaged files may crash or hang a decoder.
    """

    def __init__(self) -> None:
        self._pool: DecodePool[str, bool] = DecodePool(1, holds_sound, timeout=PROBE_SECONDS)

    def __enter__(self) -> AnySuffix:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def __call__(self, path: str) -> bool:
        if is_media(path):
            return True
        return os.path.isfile(path) and any(outcome.value for outcome in self._pool.imap([path]))


def path_sort_key(path: str) -> str:
    """Returns a key that sorts paths folder by folder: `a/b` comes before `a-b`."""
    return path.replace("/", "\0")


class FolderFiles(NamedTuple):
    """The files below a folder, as relative paths with `/`, sorted by `path_sort_key`. `unreadable`: the entries that
    are folders which cannot be read, with the reason."""

    files: list[str]
    unreadable: dict[str, str]


def walk(top: str, wanted: Wanted, left_out: Counter[str]) -> FolderFiles:
    """Returns the files below `top` whose path is `wanted`; the others are counted by reason in `left_out`.

    Links to files and folders are followed. Every folder is read once, under its name without links if it has one, so
    that link cycles end. Broken links count as files, so that they are reported.
    """
    files: list[str] = []
    unreadable: dict[str, str] = {}
    seen: set[tuple[int, int]] = set()
    folders, links = [""], list[tuple[str, str]]()
    while folders or links:  # links come last: their targets may also be found without them
        below = folders.pop() if folders else heapq.heappop(links)[1]
        path = f"{top}/{below}" if below else top
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                left_out[LINKED_AGAIN] += 1
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    name = f"{below}/{entry.name}" if below else entry.name
                    if entry.name.startswith("."):
                        left_out[HIDDEN] += 1
                    elif (kind := _kind(entry)) == "folder":
                        folders.append(name)
                    elif kind == "link":
                        heapq.heappush(links, (path_sort_key(name), name))
                    elif not wanted(entry.path):
                        left_out[NO_MEDIA] += 1
                    elif kind == "file":
                        files.append(name)
                    else:
                        left_out[SPECIAL] += 1
        except OSError as error:
            unreadable[below] = f"cannot be read: {error.strerror or error}"
    return FolderFiles(sorted((*files, *unreadable), key=path_sort_key), unreadable)


def _kind(entry: os.DirEntry[str]) -> str:
    """Returns folder, link (to a folder), file or special. An entry of unknown kind is a file."""
    try:
        if entry.is_dir():
            return "link" if entry.is_symlink() else "folder"
        if entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
            return "file"
        return "special"
    except OSError:  # links that lead to themselves
        return "file"
