"""Lists and downloads URLs of every protocol that fsspec supports. Imports fsspec only when a URL is used."""

from __future__ import annotations

import errno
import glob
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from evacap_cli.errors import MediaError, UsageError
from evacap_cli.media.container import one_line
from evacap_cli.tasks.captioning.inputs.folders import HIDDEN, NO_MEDIA, is_media, path_sort_key
from evacap_cli.tasks.captioning.inputs.wildcards import has_literal_suffix

MAX_DOWNLOAD_BYTES = 32 << 30  # per URL: an endless stream must not fill the disk
_CHUNK = 1 << 20
_BLOCK = 8 << 20  # bytes per request of protocols that read in blocks
_READ_TIMEOUT = 60.0  # seconds to wait for a server that sends nothing
_URL = re.compile(r"([a-z][a-z0-9+.-]+::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)
WEB, _STORES = ("http", "https"), ("s3", "s3a")
_CURE = "pip install 'evacap[urls]'"


def is_url(name: str) -> bool:
    """Whether a name is `PROTOCOL://...`, or `PROTOCOL::PROTOCOL://...` as fsspec chains them. Drive letters are not
    protocols."""
    return _URL.match(name) is not None


def local_path(url: str) -> str | None:
    """Returns the path of a `file://` URL; None for other URLs."""
    if not url.lower().startswith("file://"):
        return None
    path = url[len("file://") :].removeprefix("localhost")
    return path if os.path.lexists(path) else unquote(path, errors="surrogateescape")


def protocol(url: str) -> str:
    """Returns the outermost protocol, in lower case."""
    return re.split("::|://", url, maxsplit=1)[0].lower()


def check_protocol(kind: str) -> None:
    """Raises UsageError if a protocol is unknown or its library is not installed."""
    try:
        import fsspec

        fsspec.get_filesystem_class(kind)
    except ImportError as error:
        ours = kind in (*WEB, *_STORES) or error.name == "fsspec"
        raise UsageError(
            f"{kind}:// cannot be read: {one_line(error)}",
            _CURE if ours else f"install the fsspec package for {kind}://",
        ) from error
    except ValueError as error:
        known = "such as http://, https:// or s3://"
        raise UsageError(f"{kind}:// is not a known protocol", f"use one {known}") from error


def without_password(url: str) -> str:
    """Replaces the password of a URL with `***`."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", url)


def output_path(url: str) -> str:
    """Returns `host/path` in portable file names, the path of the URL's output below a folder."""
    kind, _, rest = next(part for part in (*url.split("::"), f"{url}://") if "://" in part).partition("://")
    host, *path = (re.split("[?#]", rest)[0] if kind.lower() in WEB else rest).split("/")
    names = (host.rpartition("@")[2], *(unquote(part) for part in path))
    return "/".join(re.sub(r"[^\w.-]", "_", name) for name in names if name)


def list_remote(url: str, left_out: Counter[str]) -> list[str]:
    """Returns the URLs of a remote folder or pattern, sorted; any other URL gives itself.

    Only URLs with wildcards, a final `/` or no media suffix need a request. http(s):// cannot be listed. Raises
    MediaError.
    """
    pattern = glob.has_magic(url)
    if protocol(url) in WEB or "::" in url or not (pattern or url.endswith("/") or not is_media(url)):
        return [url]
    try:
        import fsspec

        system, path = fsspec.url_to_fs(url)
        if pattern:
            found: dict[str, Any] = system.glob(path, detail=True)
            exact = has_literal_suffix(url)
        elif url.endswith("/") or system.isdir(path):
            found, exact = {path: {"type": "directory"}}, False
        else:
            return [url]
        base = len(re.split(r"[^/]*[*?[]", path)[0] if pattern else path)
        names = set()
        for name, info in found.items():
            below = info["type"] == "directory"
            for file in system.find(name) if below else [name]:
                if "/." in f"/{file[base:]}":
                    left_out[HIDDEN] += 1
                elif is_media(file) or (exact and not below):
                    names.add(system.unstrip_protocol(file))
                else:
                    left_out[NO_MEDIA] += 1
    except Exception as error:  # every protocol has its own errors
        raise MediaError(f"cannot be listed: {_cause(error)}", _hint(url)) from error
    # `?` and `[` may be part of a name
    return sorted(names, key=path_sort_key) if names or found or "*" in url else [url]


@contextmanager
def download(url: str) -> Iterator[Path]:
    """Yields a temporary copy with the URL's suffix. Raises MediaError if the download fails."""
    suffix = os.path.splitext(output_path(url))[1]
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="evacap-", ignore_cleanup_errors=True)
            )
            path = Path(folder, "copy" + (suffix if re.fullmatch(r"\.\w{1,8}", suffix) else ""))
            with _open_remote(url) as source:
                _copy(source, stack.enter_context(_copy_at(path)))
        except MediaError:
            raise
        except Exception as error:  # every protocol has its own errors
            if getattr(error, "errno", None) == errno.ENOSPC:
                where = tempfile.gettempdir()
                raise MediaError(
                    f"cannot be fetched: no space for a copy in {where}",
                    "set TMPDIR to a folder with more space",
                ) from error
            raise MediaError(f"cannot be fetched: {_cause(error)}", _hint(url)) from error
        yield path


@contextmanager
def _copy_at(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that can be read as `path`. On Linux the file is unnamed, so it disappears with this process."""
    if not os.path.isdir("/proc/self/fd"):
        with path.open("wb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as file:
        path.symlink_to(f"/proc/self/fd/{file.fileno()}")
        yield file


def _copy(source: IO[bytes], copy: IO[bytes]) -> None:
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > MAX_DOWNLOAD_BYTES:
            raise MediaError(
                f"cannot be fetched: larger than {MAX_DOWNLOAD_BYTES >> 30} GiB",
                "download it yourself and name the file",
            )
        copy.write(chunk)
    copy.flush()
    if not size:
        raise MediaError("the file is empty")


def _open_remote(url: str) -> IO[bytes]:
    import fsspec

    if protocol(url) not in WEB:
        system, path = fsspec.url_to_fs(url)
        opened: IO[bytes] = system.open(path, "rb", block_size=_BLOCK)
        return opened
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_READ_TIMEOUT, sock_read=_READ_TIMEOUT)
    system, path = fsspec.url_to_fs(url, client_kwargs={"timeout": timeout, "trust_env": True})
    # a given size, whatever its value, avoids a HEAD request, which signed URLs reject
    streamed: IO[bytes] = system.open(path, "rb", block_size=0, size=1)
    return streamed


def _cause(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if status := getattr(error, "status", None):  # aiohttp's message repeats the whole URL
        return f"the server answered {status} {getattr(error, 'message', '')}".strip()
    return one_line(error)


def _hint(url: str) -> str:
    if protocol(url) in _STORES:
        return "check the name and the credentials; FSSPEC_S3_ANON=true reads public buckets"
    return "check that it can be reached"
