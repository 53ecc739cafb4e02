"""The clips of a manifest with their media files."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evacap_cli.data.manifest.columns import Clip, check_columns, collect, is_known
from evacap_cli.data.manifest.keys import Keys
from evacap_cli.data.manifest.media_index import FrameFolders, Match, MediaIndex
from evacap_cli.data.manifest.tables import read_table
from evacap_cli.errors import UsageError
from evacap_cli.media import AUDIO_SUFFIXES

if TYPE_CHECKING:
    from evacap_cli.data.bulk.members import Member

_WAVEFORMS, _FRAMES = "waveforms", "frames"  # AVCap's folders


@dataclass(frozen=True)
class Entry:
    """One clip with its media file and all its captions."""

    key: str  # unique in the manifest, only [A-Za-z0-9_-], the same in every run
    source: str  # the path or id in the manifest, for display
    captions: tuple[str, ...]
    path: Path | str | None  # the media file, or the shard, which may be a URL; None if it was not found
    start: float | None = None  # segment of the media in seconds; None if the manifest has no time
    end: float | None = None
    pictures: tuple[Path, ...] = ()  # extracted frames in order; they replace the frames of the video
    error: str = ""  # why `path` is None
    member: Member | None = None  # the file inside the shard `path`
    mtime_ns: int | None = None  # modification time of a local shard when it was listed


def read_manifest(path: Path, media: Path | None = None, *, captioned: bool = True) -> list[Entry]:
    """Reads the clips of a manifest. The suffix selects the format: CSV (also with `;` or tabs), JSON, JSONL, Parquet.

    The forms below may be mixed. Column names are case-insensitive.
    - Paths (`video`, `file_name`, `path`, ...) with `/` or `\\`, relative to `media` or to the manifest's folder.
      With `start` and `end` (seconds) a clip is that segment of the file. Different segments are different clips.
    - AudioCaps: `youtube_id` (or `video_id`, `id`) and `start_time`. The clip is the media file below `media` (default:
      the manifest's folder) whose name contains the id, see `MediaIndex`. `start_time` only selects the file: a file
      named with this time or without a time is the ten-second clip itself; `start` and `end` of the entry stay None.
      For whole videos, add `start` and `end` in the video's time; they are converted to the time of the file.
    - AVCap's JSON: `audio_path`, also below `waveforms/`, and frames named by `video_path` in `frames/frame_N/`. If
      the file does not exist, it is found by the YouTube id in the path. COCO's `images` and `annotations` also work.
    - Captions: `caption`, `captions` (a list), `caption_1`, `caption_2`, ... Empty captions are dropped.

    Clips keep the order of their first rows; captions of a clip keep their order, including duplicates. If the media
    of a clip is not found or its row is invalid, `path` is None and `error` gives the reason. Raises UsageError if the
    file cannot be read, has no rows, or lacks usable columns (captions are required if `captioned`), or if `media` is
    not a folder.
    """
    if media is not None and not media.is_dir():
        raise UsageError(f"{media}: is not a folder", "give the folder that contains the manifest's media")
    table = read_table(path, is_known)
    check_columns(path, table, captioned)
    bases = list(dict.fromkeys((path.parent if media is None else media, path.parent)))
    clips = collect(path, table, bases)
    if not clips:
        raise UsageError(f"{path}: contains no clips", "add rows")
    return find_entries(clips, bases)


def find_entries(clips: list[Clip], bases: Sequence[Path]) -> list[Entry]:
    """Finds the media of clips: by path first, then by id in the file names below the first of `bases`."""
    matches: list[Match | None] = []
    wanted: dict[str, set[float | None]] = {}
    for clip in clips:
        match = Match(None, clip.error) if clip.error else _look_up(clip, bases)
        if match is None and clip.id:
            wanted.setdefault(clip.id, set()).add(clip.file_start)
        matches.append(match)
    index = MediaIndex(bases[0], wanted)
    keys, frames = Keys(), _Pictures(bases)
    entries = []
    for clip, match in zip(clips, matches, strict=True):
        if match is None:
            match = _search(clip, index, bases)
        match, start, end = _part_of(clip, match)
        entries.append(
            Entry(
                key=keys.make(clip.name, repr(clip.identity)),
                source=clip.source,
                captions=tuple(clip.captions),
                path=match.path,
                start=start,
                end=end,
                pictures=frames.find(clip, match.path) if match.path is not None else (),
                error=match.error,
            )
        )
    return entries


def _look_up(clip: Clip, bases: Sequence[Path]) -> Match | None:
    """The file at the clip's path. Tries the exact spelling first, then the spellings of other systems."""
    if not clip.path:
        return None
    spellings = [clip.path, clip.path.strip(), clip.path.strip().replace("\\", "/")]
    if not clip.path.isascii():  # macOS decomposes accented letters (NFD), most systems do not
        spellings += [unicodedata.normalize(form, spellings[-1]) for form in ("NFC", "NFD")]
    for spelling in dict.fromkeys(spellings):
        for base in bases:
            for parts in ((spelling,), (_WAVEFORMS, spelling)):
                if os.path.isfile(os.path.join(base, *parts)):
                    return Match(base.joinpath(*parts))
    return None


def _search(clip: Clip, index: MediaIndex, bases: Sequence[Path]) -> Match:
    """The file whose name contains the clip's id, or an error that lists what was tried."""
    match = index.find(clip.id, clip.file_start, clip.is_part) if clip.id else Match(None)
    if match.path is not None or not clip.path:
        return match
    tried = ", nor ".join(dict.fromkeys(str(base / clip.path.strip()) for base in bases))
    return Match(None, f"no such file: {tried}" + (f"; {match.error}" if match.error else ""))


def _part_of(clip: Clip, match: Match) -> tuple[Match, float | None, float | None]:
    """The clip's segment in the time of the found file, which may begin in the middle of the video."""
    if match.path is None or not clip.is_part:
        return match, None, None
    if not match.begins or clip.file_start is None:
        return match, clip.start, clip.end
    start = 0.0 if clip.start is None else clip.start - clip.file_start
    end = None if clip.end is None else clip.end - clip.file_start
    if start < 0 or (end is not None and end <= start):
        return Match(None, f"{match.path} begins after the start of the clip"), None, None
    if start == 0 and (clip.end is None or match.ends(clip.end)):
        return match, None, None
    return match, start, end


class _Pictures:
    """Finds AVCap's extracted frames of audio files. Videos use their own frames."""

    def __init__(self, bases: Sequence[Path]) -> None:
        self._folders = [base / _FRAMES for base in bases]
        self._read: dict[Path, FrameFolders] = {}

    def find(self, clip: Clip, path: Path) -> tuple[Path, ...]:
        """The frames with the name in the manifest, or with the name of the file in `waveforms/`."""
        in_place = path.parent.name == _WAVEFORMS
        if path.suffix.lower() not in AUDIO_SUFFIXES or not (clip.pictures or in_place):
            return ()
        name = clip.pictures.replace("\\", "/").rsplit("/", 1)[-1] or f"{path.stem}.jpg"
        beside = [path.parent.parent / _FRAMES] if in_place else []
        for folder in dict.fromkeys([*beside, *self._folders]):
            if folder not in self._read:
                self._read[folder] = FrameFolders(folder)
            if found := self._read[folder].pictures(name):
                return found
        return ()
