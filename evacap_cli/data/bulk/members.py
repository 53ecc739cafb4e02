"""Provides a media file inside a shard as a file in memory while it is read. Runs in worker processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from evacap_cli.data.bulk.files import open_shard, shard_errors, state_of
from evacap_cli.data.bulk.parquet import read_cell
from evacap_cli.errors import MediaError
from evacap_cli.media import survey_file

LARGEST_MEMBER = 1 << 30  # bytes: a member is held in memory, which the limit of a worker does not count
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A media file inside a shard.

    shard: name of the shard for output files, unique in a run. key: of the sample in its shard. suffix: with its dot.
    position: offset in bytes in a tar file, or row in a Parquet file. size: in bytes, None in a Parquet file. column:
    of the bytes in a Parquet file, "" in a tar file. sound: the sound of a key with separate files for picture and
    sound.
    """

    shard: str
    key: str
    suffix: str
    position: int
    size: int | None = None
    column: str = ""
    sound: Member | None = None


@contextmanager
def member_file(path: str, member: Member, mtime_ns: int | None = None) -> Iterator[Path]:
    """Yields the path of a file in memory with the content of a member of the shard `path`, a file or a URL.

    Without Linux, the file is a temporary one on disk. mtime_ns: of the shard when it was listed. Raises MediaError if
    the member cannot be read or the shard has changed since it was listed.
    """
    if (member.size or 0) > LARGEST_MEMBER:
        raise MediaError(
            f"larger than {LARGEST_MEMBER >> 30} GiB, too large for a clip in a shard", "store it as a file"
        )
    if mtime_ns is not None and state_of(path)[1] != mtime_ns:
        raise MediaError("the shard changed after it was listed", "run the same command again")
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="evacap-", ignore_cleanup_errors=True)
        )
        link = Path(folder, "clip" + member.suffix)
        file = stack.enter_context(_memory_file(link))
        if member.column:
            content = read_cell(path, member.column, member.position)
            if len(content) > LARGEST_MEMBER:
                raise MediaError(
                    f"larger than {LARGEST_MEMBER >> 30} GiB, too large for a clip in a shard",
                    "store it as a file",
                )
            file.write(content)
        else:
            with shard_errors(), open_shard(path) as shard:
                _copy(shard, member, file)
        file.flush()
        yield link


@contextmanager
def sound_file(
    path: str, member: Member, mtime_ns: int | None, picture: Path, track: str | None
) -> Iterator[Path | None]:
    """Yields the file with the sound of a member whose sound is a separate file; None if there is no such file, or if
    `picture`, the file of the member itself, has sound. Raises MediaError."""
    if member.sound is None or _has_sound(picture, track):
        yield None
        return
    with member_file(path, member.sound, mtime_ns) as sound:
        yield sound


def _has_sound(path: Path, track: str | None) -> bool:
    try:
        return survey_file(path, track).audio is not None
    except MediaError:
        return False


@contextmanager
def _memory_file(link: Path) -> Iterator[IO[bytes]]:
    """Opens a file that can be read as `link`. On Linux, it is in memory and disappears with this process."""
    if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
        with link.open("wb") as file:
            yield file
        return
    with open(os.memfd_create("evacap"), "wb") as file:
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        yield file


def _copy(shard: IO[bytes], member: Member, file: IO[bytes]) -> None:
    shard.seek(member.position)
    left = member.size or 0
    while left and (chunk := shard.read(min(_CHUNK, left))):
        file.write(chunk)
        left -= len(chunk)
    if left:
        raise MediaError(f"the shard ends inside it: {left} of {member.size} bytes are missing")
