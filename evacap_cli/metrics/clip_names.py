"""Matches clip names: by the exact name, then the path, the file name, the stem, and file names with a YouTube id."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evacap_cli.media import MEDIA_SUFFIXES

_SAME = 0.05  # seconds of tolerance: `start` and `end` are written with few decimals
_CUT = 10  # length of an AudioCaps clip in seconds


@dataclass(frozen=True)
class Named:
    """The names that a row gives to its clip, the most specific first. start, end: the segment of the file in seconds.

    numbers: ids given in addition to a file name. They may be row numbers, so they only match exactly.
    """

    names: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    video_start: float | None = None  # AudioCaps' start_time: seconds in the source video
    numbers: tuple[str, ...] = ()

    def same_part(self, other: Named) -> bool:
        """Whether both are the same segment of a file. Unknown times match any time."""
        pairs = (
            (self.start, other.start),
            (self.end, other.end),
            (self.video_start, other.video_start),
        )
        return all(a is None or b is None or abs(a - b) < _SAME for a, b in pairs)


class Names:
    """An index of the reference clips by name."""

    def __init__(self, clips: Sequence[Named]) -> None:
        self._clips = clips
        self._tables: list[dict[str, list[int]]] = [{} for _ in range(5)]
        for i, clip in enumerate(clips):
            for name in clip.numbers:
                _add(self._tables[0], name, i)
            for name in clip.names:
                for table, key in zip(self._tables, _keys(name), strict=False):
                    _add(table, key, i)
                for key in _cut_names(name, clip.video_start):
                    _add(self._tables[4], key, i)

    def find(self, wanted: Named) -> list[int]:
        """The indices of the clips that match `wanted`: none if it is unknown, more than one if it is ambiguous."""
        ambiguous: list[int] = []
        for name in wanted.names:
            keys = list(_keys(name))
            for table, key in zip(self._tables, [*keys, keys[-1]], strict=True):
                found = table.get(key, [])
                if len(found) > 1:
                    found = self._narrow(found, wanted, keys[1])
                if len(found) == 1:
                    return found
                ambiguous = ambiguous or found
        for name in () if ambiguous else wanted.numbers:
            if found := self._tables[0].get(name, []):
                return found
        return ambiguous

    def _narrow(self, found: list[int], wanted: Named, path: str) -> list[int]:
        """Reduces several matches to those with the same segment, then to those with a matching path."""
        parts = [i for i in found if wanted.same_part(self._clips[i])]
        if len(parts) <= 1:
            return parts or found
        ends = [i for i in parts if any(_one_ends_other(path, _path(name)) for name in self._clips[i].names)]
        return ends if len(ends) == 1 else parts


def _add(table: dict[str, list[int]], key: str, clip: int) -> None:
    found = table.setdefault(key, [])
    if clip not in found:
        found.append(clip)


def _keys(name: str) -> Iterator[str]:
    """The name, its normalised path, its file name, its stem."""
    yield unicodedata.normalize("NFC", name)
    yield _path(name)
    base = posixpath.basename(_path(name))
    yield base
    stem, suffix = posixpath.splitext(base)
    yield stem if suffix.lower() in MEDIA_SUFFIXES else base


def _path(name: str) -> str:
    return posixpath.normpath(unicodedata.normalize("NFC", name).strip().replace("\\", "/"))


def _one_ends_other(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _cut_names(name: str, start: float | None) -> Iterator[str]:
    """Usual names of files cut from a video: [Y]ID[_START[_END]], in seconds or milliseconds."""
    yield f"Y{name}"
    if start is None:
        return
    for scale in (1, 1000):
        begin, end = f"{start * scale:g}", f"{(start + _CUT) * scale:g}"
        for first in ("", "Y"):
            yield f"{first}{name}_{begin}"
            yield f"{first}{name}_{begin}_{end}"
