"""The vocabulary of BERT, which GIT and AVCap use. Only `evacap weights fetch-vocab` downloads it."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from evacap_cli.atomic import written_whole
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.cache import cache_folder

URL = "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt"
SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
SIZE = 231_508  # bytes
TIMEOUT = 30.0  # seconds


def vocabulary_path() -> Path:
    """Returns the path of the downloaded vocabulary, which may not exist."""
    return cache_folder() / "bert-base-uncased" / "vocab.txt"


def find_vocabulary(path: Path | None = None) -> Path:
    """Returns `path`, or the path of the downloaded vocabulary. Raises UsageError if the file does not exist."""
    found = vocabulary_path() if path is None else Path(path)
    if found.is_file():
        return found
    if path is not None:
        raise UsageError(f"--vocab {path}: no such file", "give bert-base-uncased's vocab.txt")
    raise UsageError(
        "BERT's word list is needed, but is not on this machine",
        f"run `evacap weights fetch-vocab`, or download {URL} on another machine and copy it to {found} "
        "(or name it with --vocab)",
    )


def fetch_vocabulary(open_url: Callable[..., BinaryIO] = urllib.request.urlopen) -> Path:
    """Downloads the vocabulary to the cache folder, once. Raises EvacapError if the download fails or the file is not
    the expected one."""
    path = vocabulary_path()
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256:
        return path
    cure = f"download {URL} on another machine and copy it to {path}"
    try:
        with open_url(URL, timeout=TIMEOUT) as answer:
            data = answer.read(SIZE + 1)
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise EvacapError(f"{URL}: cannot be downloaded ({reason})", cure) from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise EvacapError(f"{URL}: is not the expected file (sha256 is not {SHA256[:12]}...)", cure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path, temporary=path.with_name(f"vocab.{os.getpid()}.tmp")) as aside:
            aside.write_bytes(data)
    except OSError as error:
        raise EvacapError(
            f"{path}: cannot be written ({error.strerror})", "free some space, or set EVACAP_CACHE"
        ) from error
    return path
