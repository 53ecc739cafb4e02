"""BERT's word list, which GIT and AVCap speak: found on disk, fetched by an explicit command alone."""

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
SECONDS = 30.0


def vocabulary_path() -> Path:
    """Where the fetched list lies, or would."""
    return cache_folder() / "bert-base-uncased" / "vocab.txt"


def find_vocabulary(path: Path | None = None) -> Path:
    """`path`, or the list that was fetched. Raises UsageError, with what to do."""
    found = vocabulary_path() if path is None else Path(path)
    if found.is_file():
        return found
    if path is not None:
        raise UsageError(f"--vocab {path}: no such file", "give bert-base-uncased's vocab.txt")
    raise UsageError(
        "BERT's word list is needed, and is not on this machine",
        f"run `evacap weights fetch-vocab`, or get {URL} on another machine and put it at {found} "
        "(or name it with --vocab)",
    )


def fetch_vocabulary(open_url: Callable[..., BinaryIO] = urllib.request.urlopen) -> Path:
    """Downloads the list to the cache folder, once. Raises EvacapError when it cannot be had, or is another."""
    place = vocabulary_path()
    if place.is_file() and hashlib.sha256(place.read_bytes()).hexdigest() == SHA256:
        return place
    by_hand = f"get {URL} on another machine and put it at {place}"
    try:
        with open_url(URL, timeout=SECONDS) as answer:
            data = answer.read(SIZE + 1)
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise EvacapError(f"{URL}: cannot be had ({reason})", by_hand) from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise EvacapError(f"{URL}: gave another file than expected (sha256 is not {SHA256[:12]}...)", by_hand)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(place, temporary=place.with_name(f"vocab.{os.getpid()}.tmp")) as aside:
            aside.write_bytes(data)
    except OSError as error:
        raise EvacapError(
            f"{place}: cannot be written ({error.strerror})", "make room, or set EVACAP_CACHE"
        ) from error
    return place
