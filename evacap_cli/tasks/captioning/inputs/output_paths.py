"""Assigns each input a safe, readable and unique path for its outputs."""

from __future__ import annotations

import hashlib
import os
import unicodedata

_MAX_NAME_BYTES = 200  # leaves room for `.srt` and the suffix of unfinished files within 255 bytes


class OutputPaths:
    """Gives every input a relative path. The same inputs always get the same paths.

    A name keeps its extension. A name that is taken gets `~2`, `~3`, ... before the extension. Names that differ only
    in case or in Unicode normalization count as equal, because many file systems do not distinguish them. A part of a
    file adds `.START-END`.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def assign(self, relative: str, start: float | None = None, end: float | None = None) -> str:
        """Returns a unique path for `relative`, which uses `/`. start, end: in seconds."""
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
    """Shortens a file name that is too long, and adds a hash of the full name."""
    if len(relative) * 4 <= _MAX_NAME_BYTES:  # a character takes at most four bytes
        return relative
    folder, slash, name = relative.rpartition("/")
    raw = os.fsencode(name)
    if len(raw) <= _MAX_NAME_BYTES:
        return relative
    stem, extension = os.path.splitext(name)
    extension = extension if len(extension) <= 10 else ""
    cut = raw[: _MAX_NAME_BYTES - 60].decode("utf-8", "ignore") if _is_text(stem) else "name"
    return f"{folder}{slash}{cut}~{hashlib.sha256(raw).hexdigest()[:8]}{extension}"


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _seconds(seconds: float | None) -> str:
    return "end" if seconds is None else f"{seconds:.3f}".rstrip("0").rstrip(".")
