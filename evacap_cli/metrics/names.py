"""Which clip a name means: the very same first, then as a path, a bare name, a stem, a file named by a YouTube id."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evacap_cli.media import MEDIA_SUFFIXES

_SAME = 0.05  # seconds: `start` and `end` are written with few decimals
_CUT = 10  # seconds of a clip of AudioCaps


@dataclass(frozen=True)
class Named:
    """What a row calls its clip: the plainest name first. start, end: the part of a file, in seconds, if it says so.

    numbers: ids that stand beside a file's name, and may only count rows: the very same is meant or none.
    """

    names: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    video_start: float | None = None  # AudioCaps' start_time: in the video that the clip was cut from
    numbers: tuple[str, ...] = ()

    def same_part(self, other: Named) -> bool:
        """Whether both mean the same part of a file; unknown times fit any."""
        pairs = (
            (self.start, other.start),
            (self.end, other.end),
            (self.video_start, other.video_start),
        )
        return all(a is None or b is None or abs(a - b) < _SAME for a, b in pairs)


class Names:
    """The clips of the references, to be found by the names of the candidates."""

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
        """The clips that `wanted` may mean: one when it is clear, none when unknown, more when it is ambiguous."""
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
        """Those of several clips whose part, then whose path, fits best."""
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
    """A name, as a path with `/`, without its folders, without its suffix."""
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
    """How files are called that were cut from a video: [Y]ID[_START[_END]], in seconds or milliseconds."""
    yield f"Y{name}"
    if start is None:
        return
    for scale in (1, 1000):
        begin, end = f"{start * scale:g}", f"{(start + _CUT) * scale:g}"
        for first in ("", "Y"):
            yield f"{first}{name}_{begin}"
            yield f"{first}{name}_{begin}_{end}"
