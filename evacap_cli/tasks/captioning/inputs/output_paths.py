"""Where the outputs of inputs stand below one folder: names that are safe, readable and unlike each other."""

from __future__ import annotations

import hashlib
import os
import unicodedata

_LONGEST = 200  # bytes of a file's name, so that `.srt` and what marks an unfinished file still fit into 255


class OutputPaths:
    """Gives every input of a run its relative path, the same from run to run for the same inputs.

    A name keeps its extension. What is taken gets `~2`, `~3`, ... before it: of names that differ only in case or in
    how accents are put together, too, since many disks tell them not apart. `.START-END` follows for a part of a file.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def assign(self, relative: str, start: float | None = None, end: float | None = None) -> str:
        """`relative`, with `/`, made unique; times in seconds."""
        if relative.startswith("/") or "." in (parts := relative.split("/")) or ".." in parts or "" in parts:
            relative = (
                "/".join(part for part in relative.split("/") if part not in ("", ".", "..")) or "input"
            )
        tail = "" if start is None and end is None else f".{_seconds(start or 0)}-{_seconds(end)}"
        plain = relative = _short(relative)
        key = _key(plain + tail)
        count = self._counts.get(key, 1)
        while _key(relative + tail) in self._taken:
            count += 1
            stem, extension = os.path.splitext(plain)
            relative = f"{stem}~{count}{extension}"
        if count > 1:
            self._counts[key] = count
        self._taken.add(_key(relative + tail))
        return relative + tail


def _key(name: str) -> str:
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _short(relative: str) -> str:
    """With the file's own name cut where it is too long, and a hash of all of it instead."""
    if len(relative) * 4 <= _LONGEST:  # four bytes are the longest character
        return relative
    folder, slash, name = relative.rpartition("/")
    raw = os.fsencode(name)
    if len(raw) <= _LONGEST:
        return relative
    stem, extension = os.path.splitext(name)
    extension = extension if len(extension) <= 10 else ""
    cut = raw[: _LONGEST - 60].decode("utf-8", "ignore") if _is_text(stem) else "name"
    return f"{folder}{slash}{cut}~{hashlib.sha256(raw).hexdigest()[:8]}{extension}"


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _seconds(seconds: float | None) -> str:
    return "end" if seconds is None else f"{seconds:.3f}".rstrip("0").rstrip(".")
