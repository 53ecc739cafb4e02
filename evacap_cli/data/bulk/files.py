"""Opens shards, which are files or URLs, for random access. Imports fsspec only when a URL is used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from evacap_cli.errors import MediaError
from evacap_cli.media.container import one_line

BLOCK = (
    1 << 18
)  # bytes per request: between two headers of a tar file lies a clip, which a listing does not need
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_SHARDS = 1_000_000


def is_remote(path: str) -> bool:
    return "://" in path


def shard_name(path: str) -> str:
    """Returns the file name of a path or URL, without the query of a URL."""
    kind, _, _ = path.partition("://")
    return os.path.basename(re.split("[?#]", path)[0] if kind != path and "http" in kind.lower() else path)


def shard_suffix(path: str) -> str:
    """Returns the suffix of a file or URL, in lower case."""
    return os.path.splitext(shard_name(path))[1].lower()


def expand_range(name: str) -> list[str]:
    """Returns the names of a numeric range, such as `shard-{000..999}.tar`, in order; of several, the last runs first.

    A name without a range, or with more than a million names, gives itself.
    """
    found = _RANGE.search(name)
    if found is None:
        return [name]
    first, last = found[1], found[2]
    width = len(first) if first.startswith("0") or last.startswith("0") else 0
    low, high = int(first), int(last)
    step = 1 if high >= low else -1
    if abs(high - low) >= _MAX_SHARDS:
        return [name]
    rest = expand_range(name[found.end() :])
    return [
        f"{name[: found.start()]}{number:0{width}d}{end}"
        for number in range(low, high + step, step)
        for end in rest
    ]


def open_shard(path: str) -> IO[bytes]:
    """Opens a shard for reading at any position."""
    if not is_remote(path):
        return open(path, "rb")
    import fsspec

    system, name = fsspec.url_to_fs(path)
    opened: IO[bytes] = system.open(name, "rb", block_size=BLOCK)
    return opened


@contextmanager
def shard_errors() -> Iterator[None]:
    """Converts errors of files and of all protocols to MediaError."""
    try:
        yield
    except MediaError:
        raise
    except FileNotFoundError as error:
        raise MediaError("the shard cannot be read: no such file") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
        raise MediaError(f"the shard cannot be read: {reason}") from error


def state_of(path: str) -> tuple[int, int]:
    """Returns the size in bytes and the modification time in ns of a local shard. Raises MediaError."""
    with shard_errors():
        status = os.stat(path)
    return status.st_size, status.st_mtime_ns
