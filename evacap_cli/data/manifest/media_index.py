"""Finds the media of clips by ids in file names, and frames that were extracted beforehand."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from evacap_cli.media import MEDIA_SUFFIXES, VIDEO_SUFFIXES

YOUTUBE = 11  # characters of a YouTube id, long enough to search for it inside a name
_FRAMES = re.compile(r"frame_\d+")
_TIMES = r"(?:[_-](?P<start>\d+(?:\.\d+)?)s?)?(?:[_-](?P<end>\d+(?:\.\d+)?)s?)?"
_AFTER = re.compile(_TIMES)
# a word such as `_audio` or yt-dlp's `]` may follow; it has no digits, which may be a time in another notation
_AFTER_YOUTUBE = re.compile(rf"(?P<closed>[\])])?{_TIMES}(?P<word>[\W_]\D*)?")


@dataclass(frozen=True)
class _Named:
    """A file whose name contains an id, with the times in the name. `plain` is 0 if the name has nothing else."""

    name: str  # relative to the folder
    plain: int
    start: float | None = None  # seconds or milliseconds
    end: float | None = None
    unclear: bool = False  # the text after the id could not be parsed

    def order(self) -> tuple[bool, int, int, str]:
        """Sort key: videos before audio files, plain names before others, then depth and name for a stable order."""
        return not _has_suffix(self.name, VIDEO_SUFFIXES), self.plain, self.name.count(os.sep), self.name

    def begins(self, seconds: float) -> bool:
        """Whether the start time in the name is `seconds`. The name may use seconds or milliseconds."""
        return self.start is not None and _same_time(self.start, seconds)


@dataclass(frozen=True)
class Match:
    """The file of a clip, or the reason why there is none."""

    path: Path | None
    error: str = ""
    begins: bool = False  # the file name contains the requested start time
    end: float | None = None  # the end time in the file name, in seconds or milliseconds

    def ends(self, seconds: float) -> bool:
        """Whether the end time in the file name is `seconds`. True if the name has no end time."""
        return self.end is None or _same_time(self.end, seconds)


class MediaIndex:
    """The media files below `folder`, indexed by the ids in their names. The folder is scanned once.

    `wanted` maps ids to their start times (seconds) in the manifest. Names are parsed as `[Y]ID[_START[_END]]` with any
    media suffix, in any subfolder. Hidden files are skipped, links are followed. Times are seconds or milliseconds,
    with or without leading zeros, after `_` or `-`. An id of 11 characters (YouTube) may also be surrounded by other
    words with separators, as in `Some title [ID].mp4` and `ID_audio.wav`.
    """

    def __init__(self, folder: Path, wanted: Mapping[str, Collection[float | None]]) -> None:
        self.folder, self._wanted = folder, wanted
        self._found: dict[str, list[_Named]] = {}
        self._closed: list[str] = []  # unreadable folders
        lengths = sorted({len(name) for name in wanted})
        for name in self._walk() if wanted else ():
            stem = os.path.splitext(os.path.basename(name))[0]
            for at, length in _places(stem, lengths):
                if (wanted_id := stem[at : at + length]) in wanted:
                    named = _read_name(name, stem, at, length)
                    if named is not None:
                        self._found.setdefault(wanted_id, []).append(named)

    def find(self, wanted: str, start: float | None, part: bool = False) -> Match:
        """The file of the clip `wanted` that begins at `start` seconds of its video (None: unknown).

        Prefers a file with this start time in its name, then a file without a time. The latter is the clip itself, or
        the whole video if the manifest gives a segment (`part`). A file with another start time never matches. A file
        without a time does not match if the manifest has several clips of the video and no segment.
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
                listed = ", ".join(f"{s:g}" for s in starts)
                return Match(
                    None, f"{self.folder / bare[0].name}: start time is unknown, one of {listed} expected"
                )
        elif not bare and clear:
            if len({named.start for named in clear}) == 1:
                return Match(self.folder / clear[0].name)
            several = f"several segments of {wanted} below {self.folder} ({_names(clear)})"
            return Match(None, f"{several}, and the manifest has no start_time")
        if bare:
            return Match(self.folder / bare[0].name)
        if found:
            which = f"{wanted} from {start:g} s" if start is not None else wanted
            return Match(None, f"no file below {self.folder} matches {which}, only {_names(found)}")
        error = f"no file name below {self.folder} contains {wanted}"
        if self._closed:
            error += f" ({len(self._closed)} folders cannot be read, for example {self._closed[0]})"
        return Match(None, error)

    def _walk(self) -> Iterator[str]:
        """The names of all media files, relative to the folder."""
        top = str(self.folder)
        seen: set[str] = set()
        walk = os.walk(top, followlinks=True, onerror=lambda error: self._closed.append(str(error.filename)))
        for parent, folders, names in walk:
            real = os.path.realpath(parent)
            if real in seen:  # a link to a folder that was already scanned
                folders.clear()
                continue
            seen.add(real)
            # `frames/frame_N` can contain a million pictures, and no clips
            folders[:] = sorted(f for f in folders if not f.startswith(".") and not _FRAMES.fullmatch(f))
            below = os.path.relpath(parent, top)
            for name in names:
                if _has_suffix(name, MEDIA_SUFFIXES) and not name.startswith("."):
                    yield name if below == os.curdir else os.path.join(below, name)


def _same_time(named: float, seconds: float) -> bool:
    """Whether a number in a file name equals `seconds`, in seconds or in milliseconds."""
    return min(abs(named - seconds), abs(named / 1000 - seconds)) < 0.01


def _has_suffix(name: str, suffixes: Collection[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes


def _places(stem: str, lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Yields the (offset, length) pairs at which a name may contain an id."""
    for length in lengths:
        last = len(stem) - length
        if length != YOUTUBE:
            last = min(last, 1 if stem.startswith("Y") else 0)
        for at in range(last + 1):
            yield at, length


def _read_name(name: str, stem: str, at: int, length: int) -> _Named | None:
    """Parses the name around the id at `at`. Returns None if the id is part of a longer word."""
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
    """Extracted frames in `frame_0`, `frame_1`, ... below `folder`: a folder per time step with a file per clip."""

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
        """The frames with the file name `name`, in order. Missing frames are skipped."""
        return tuple(self._folders[i] / name for i in self._held.get(name, ()))
