"""Downloads one file: resumed where it stopped, checked by its SHA-256, and in place only when it is complete."""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from evacap_cli.atomic import make_whole
from evacap_cli.data.files import disk_errors, size_of, take_lock
from evacap_cli.errors import EvacapError

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the bytes of the file, None if the server does not state it."""
PARTIAL = "partial"
"""Subfolder with unfinished files, so that their names keep the suffix by which they are read."""
_DISK = (
    errno.ENOSPC,
    errno.EFBIG,
    errno.EACCES,
    errno.EROFS,
    errno.EIO,
    getattr(errno, "EDQUOT", errno.ENOSPC),
)
"""Errors of the disk; the others are those of the network."""


def download(
    url: str,
    path: Path,
    sha256: str | None = None,
    check: Callable[[Path], None] | None = None,
    cure: str = "",
    progress: Progress | None = None,
) -> str:
    """Downloads `url` to `path` and returns its SHA-256. An existing file is replaced only on success.

    An interrupted download continues in the next call. `sha256`: what the file must have. `check`: raises EvacapError
    for a file that must not be kept. `cure`: what to do if the download fails.
    """
    folder = path.parent / PARTIAL
    partial = folder / path.name
    with _only_one(folder):
        _get(url, partial, cure, progress)
        digest = file_sha256(partial)
        if sha256 is not None and digest != sha256:
            partial.unlink()
            raise EvacapError(
                f"{url}: is not the expected file: its SHA-256 is {digest}, not {sha256}",
                f"if its authors published a new file that you trust, add --sha256 {digest}",
            )
        if check is not None:
            try:
                check(partial)
            except EvacapError as error:
                partial.unlink()
                raise EvacapError(f"{url}: was downloaded and refused: {error.message}", cure) from error
        with disk_errors(path, "set EVACAP_CACHE to another folder"):
            make_whole(partial, path)
    return digest


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _get(url: str, partial: Path, cure: str, progress: Progress | None) -> None:
    """Downloads the rest of `partial` with the downloader of huggingface_hub, which serves any address and repeats a
    broken connection."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import HfHubHTTPError, httpx

    try:
        with partial.open("ab") as file, _quiet("huggingface_hub.file_download"):
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers={
                    "Accept-Encoding": "identity"
                },  # offsets of a compressed answer are not those of the file
                tqdm_class=cast(Any, _bar(progress)),
            )
    except HfHubHTTPError as error:
        answer = error.response
        if answer.status_code == 416:  # nothing behind the end: complete, or longer than the file of today
            if answer.headers.get("Content-Range") == f"bytes */{size_of(partial)}":
                return
            partial.unlink()
            return _get(url, partial, cure, progress)
        reason = f"{answer.status_code} {answer.reason_phrase}".strip()
        raise EvacapError(f"{url}: cannot be downloaded: the server answers {reason}", cure) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            with disk_errors(partial, "set EVACAP_CACHE to another folder"):
                raise
        kept = size_of(partial)
        again = f"run the same command again to continue after {kept / 1e6:.1f} MB, or " if kept > 0 else ""
        reason = str(error).split("\n")[0].strip() or type(error).__name__
        raise EvacapError(f"{url}: cannot be downloaded ({reason})", again + cure) from error


def _bar(progress: Progress | None) -> type:
    """Returns a class with those methods of tqdm that huggingface_hub calls, which reports to `progress`."""

    class Bar:
        def __init__(self, total: int | None = None, initial: int = 0, **_: object) -> None:
            self.done, self.total = initial, total

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, count: int) -> None:
            self.done += count
            if progress is not None:
                progress(self.done, self.total)

    return Bar


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Locks the folder of unfinished files, since two processes would append to the same one."""
    with disk_errors(folder, "set EVACAP_CACHE to another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    with lock:
        if not take_lock(lock):
            raise EvacapError(f"{folder}: another process is downloading this file", "wait for it to finish")
        yield


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Silences warnings of a logger; errors become exceptions anyway."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
