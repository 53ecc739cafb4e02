"""Clips' media: ids found in the names of files, and frames that were extracted before."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from evacap_cli.media import MEDIA_SUFFIXES, VIDEO_SUFFIXES

YOUTUBE = 11  # characters of a YouTube id: long enough to be looked for inside a name
_FRAMES = re.compile(r"frame_\d+")
_TIMES = r"(?:[_-](?P<start>\d+(?:\.\d+)?)s?)?(?:[_-](?P<end>\d+(?:\.\d+)?)s?)?"
_AFTER = re.compile(_TIMES)
# a word such as `_audio` or yt-dlp's `]` may follow; digits in it could be a time that is written in another way
_AFTER_YOUTUBE = re.compile(rf"(?P<closed>[\])])?{_TIMES}(?P<word>[\W_]\D*)?")


@dataclass(frozen=True)
class _Named:
    """A file whose name holds an id: how plainly (0: nothing else but times and suffix), and the times that follow."""

    name: str  # below the folder
    plain: int
    start: float | None = None  # in the unit of whoever named the file
    end: float | None = None
    unclear: bool = False  # more follows the id than is understood

    def order(self) -> tuple[bool, int, int, str]:
        """Pictures before sound alone, plain names before others; the rest only so that it is always the same."""
        return not _has_suffix(self.name, VIDEO_SUFFIXES), self.plain, self.name.count(os.sep), self.name

    def begins(self, seconds: float) -> bool:
        """Whether the name says that the file begins at `seconds`, in seconds or in milliseconds."""
        return self.start is not None and _same_time(self.start, seconds)


@dataclass(frozen=True)
class Match:
    """The file of a clip, or why there is none."""

    path: Path | None
    error: str = ""
    begins: bool = False  # the file's name says that it begins at the start that was asked for
    end: float | None = None  # ... and where it ends, in seconds or milliseconds

    def ends(self, seconds: float) -> bool:
        """Whether the file's end is `seconds`, as far as its name tells."""
        return self.end is None or _same_time(self.end, seconds)


class MediaIndex:
    """The media files below `folder` by the ids in their names; the folder is walked once, a look-up is O(1).

    `wanted` are the ids with the starts in seconds that the manifest gives them. A name is read as
    `[Y]ID[_START[_END]]` with any media suffix, in any nested folder; hidden files are left out, links are followed.
    Times are seconds or milliseconds, with or without leading zeros, after `_` or `-`. An id of YouTube's eleven
    characters may also stand among other words that are set apart, as in `Some title [ID].mp4` and `ID_audio.wav`.
    """

    def __init__(self, folder: Path, wanted: Mapping[str, Collection[float | None]]) -> None:
        self.folder, self._wanted = folder, wanted
        self._found: dict[str, list[_Named]] = {}
        self._closed: list[str] = []  # folders that could not be looked into
        lengths = sorted({len(name) for name in wanted})
        for name in self._walk() if wanted else ():
            stem = os.path.splitext(os.path.basename(name))[0]
            for at, length in _places(stem, lengths):
                if (wanted_id := stem[at : at + length]) in wanted:
                    named = _read_name(name, stem, at, length)
                    if named is not None:
                        self._found.setdefault(wanted_id, []).append(named)

    def find(self, wanted: str, start: float | None, part: bool = False) -> Match:
        """The file of the clip `wanted` that begins at `start` seconds of its video (None: not said).

        A file named with that start comes first; else one named without any: it is the clip itself, or, when the
        manifest says which `part` of the file is meant, the whole video. A file that says another start is another
        clip, and a file that says none is nobody's when the manifest has several clips of the video.
        """
        found = sorted(self._found.get(wanted, ()), key=_Named.order)
        clear = [named for named in found if not named.unclear]
        bare = [named for named in clear if named.start is None]
        if start is not None:
            fitting = [named for named in clear if named.begins(start)]
            if fitting:
                return Match(self.folder / fitting[0].name, begins=True, end=fitting[0].end)
            starts = sorted(s for s in self._wanted.get(wanted, ()) if s is not None)
            if bare and not part and len(starts) > 1:
                said = ", ".join(f"{s:g}" for s in starts)
                return Match(
                    None, f"{self.folder / bare[0].name} does not say which of the starts {said} it has"
                )
        elif not bare and clear:
            if len({named.start for named in clear}) == 1:
                return Match(self.folder / clear[0].name)
            said = f"several parts of {wanted} below {self.folder} ({_names(clear)})"
            return Match(None, f"{said}, and no start_time that says which")
        if bare:
            return Match(self.folder / bare[0].name)
        if found:
            which = f"{wanted} from {start:g} s" if start is not None else wanted
            return Match(None, f"no file below {self.folder} is named as {which}, only {_names(found)}")
        error = f"no file below {self.folder} whose name holds {wanted}"
        if self._closed:
            error += f" ({len(self._closed)} folders cannot be read, such as {self._closed[0]})"
        return Match(None, error)

    def _walk(self) -> Iterator[str]:
        """The names of all media files, relative to the folder."""
        top = str(self.folder)
        seen: set[str] = set()
        walk = os.walk(top, followlinks=True, onerror=lambda error: self._closed.append(str(error.filename)))
        for parent, folders, names in walk:
            real = os.path.realpath(parent)
            if real in seen:  # a link back to where we are
                folders.clear()
                continue
            seen.add(real)
            # the pictures of `frames/frame_N` can be a million, and none of them is a clip
            folders[:] = sorted(f for f in folders if not f.startswith(".") and not _FRAMES.fullmatch(f))
            below = os.path.relpath(parent, top)
            for name in names:
                if _has_suffix(name, MEDIA_SUFFIXES) and not name.startswith("."):
                    yield name if below == os.curdir else os.path.join(below, name)


def _same_time(named: float, seconds: float) -> bool:
    """Whether a number in a file's name means a time, in seconds or in milliseconds."""
    return min(abs(named - seconds), abs(named / 1000 - seconds)) < 0.01


def _has_suffix(name: str, suffixes: Collection[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes


def _places(stem: str, lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Where in a name an id of one of the lengths may stand."""
    for length in lengths:
        last = len(stem) - length
        if length != YOUTUBE:
            last = min(last, 1 if stem.startswith("Y") else 0)
        for at in range(last + 1):
            yield at, length


def _read_name(name: str, stem: str, at: int, length: int) -> _Named | None:
    """The name around the id at `at`; None when the id is only part of a longer word there."""
    before, after = stem[:at], stem[at + length :]
    words = before.removesuffix("Y")
    if words and words[-1].isalnum():
        return None
    tail = (_AFTER_YOUTUBE if length == YOUTUBE else _AFTER).fullmatch(after)
    if tail is None:
        if length == YOUTUBE and not after[0].isalnum():
            return _Named(name, 4, unclear=True)
        return None
    groups = tail.groupdict()
    plain = (before != words) + 2 * bool(words or groups.get("word") or groups.get("closed"))
    start, end = (float(groups[which]) if groups[which] else None for which in ("start", "end"))
    return _Named(name, plain, start, end)


def _names(found: list[_Named]) -> str:
    rest = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(named.name for named in found[:3]) + rest


class FrameFolders:
    """Pictures in `frame_0`, `frame_1`, ... below `folder`: one folder per moment, in it a file per clip."""

    def __init__(self, folder: Path) -> None:
        try:
            folders = [entry for entry in os.listdir(folder) if _FRAMES.fullmatch(entry)]
        except OSError:
            folders = []
        self._folders = [folder / name for name in sorted(folders, key=lambda name: (int(name[6:]), name))]
        self._held: dict[str, list[int]] = {}
        for i, frames in enumerate(self._folders):
            if frames.is_dir():
                for name in os.listdir(frames):
                    self._held.setdefault(name, []).append(i)

    def pictures(self, name: str) -> tuple[Path, ...]:
        """The pictures of the clip whose files are called `name`, in order; moments without one are left out."""
        return tuple(self._folders[i] / name for i in self._held.get(name, ()))
