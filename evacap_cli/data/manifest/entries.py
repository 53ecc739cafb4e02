"""A manifest's clips with their media."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evacap_cli.data.manifest.forms import Clip, check_columns, collect, is_known
from evacap_cli.data.manifest.keys import Keys
from evacap_cli.data.manifest.matching import FrameFolders, Match, MediaIndex
from evacap_cli.data.manifest.tables import read_table
from evacap_cli.errors import UsageError
from evacap_cli.media import AUDIO_SUFFIXES

_WAVEFORMS, _FRAMES = "waveforms", "frames"  # AVCap's folders


@dataclass(frozen=True)
class Entry:
    """One clip: where its media is, and every caption it has."""

    key: str  # unique in the manifest, [A-Za-z0-9_-] only, the same from run to run
    source: str  # what the manifest said (path or id), for people
    captions: tuple[str, ...]
    path: Path | None  # the media file, None when none was found
    start: float | None = None  # part of the media in seconds, None: not said
    end: float | None = None
    pictures: tuple[Path, ...] = ()  # frames that were extracted before, in order, instead of the video's own
    error: str = ""  # why there is no path


def read_manifest(path: Path, media: Path | None = None, *, captioned: bool = True) -> list[Entry]:
    """Reads the clips of a manifest: CSV (also with `;` or tabs), JSON, JSONL or Parquet, by suffix.

    Forms, which may be mixed; names of columns in any case:
    - paths (`video`, `file_name`, `path`, ...), relative to `media` or else to the manifest's folder, with `/` or `\\`.
      With `start` and `end` (seconds) a clip is that part of the file, and other parts are other clips.
    - AudioCaps: `youtube_id` (or `video_id`, `id`) and `start_time`: the media file below `media` (else the manifest's
      folder) whose name holds the id, see `MediaIndex`. `start_time` only says which file is meant: a file that is
      named with it, or without any time, is the ten seconds cut out, and `start` and `end` of the entry stay None.
      For whole videos add `start` and `end`, times of the video: they are made times of the file that was found.
    - AVCap's JSON: `audio_path` also below `waveforms/`, and the pictures named by `video_path` in `frames/frame_N/`;
      where there is no such file, the media is found by the YouTube id that the path holds. Also as COCO's `images`
      and `annotations`.
    - captions: `caption`, `captions` (a list), `caption_1`, `caption_2`, ... Empty ones are dropped.

    Captions of a clip stay together in their order, equal ones too; clips keep the order in which they first appear. A
    clip whose media is not found, or whose row is wrong, has `path` None and says why in `error`. Raises UsageError for
    a file that cannot be read, that has no usable columns (no captions either, if `captioned`) or no rows, and when
    `media` is no folder.
    """
    if media is not None and not media.is_dir():
        raise UsageError(f"{media}: is no folder", "give the folder that holds the manifest's media")
    table = read_table(path, is_known)
    check_columns(path, table, captioned)
    bases = list(dict.fromkeys((path.parent if media is None else media, path.parent)))
    clips = collect(path, table, bases)
    if not clips:
        raise UsageError(f"{path}: has no clips in it", "add rows")
    return find_entries(clips, bases)


def find_entries(clips: list[Clip], bases: Sequence[Path]) -> list[Entry]:
    """Looks where the manifest points, then below the first of `bases` for files named by id."""
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
    """The file at the clip's path; spelled as it is first, then as other systems spell it."""
    if not clip.path:
        return None
    spellings = [clip.path, clip.path.strip(), clip.path.strip().replace("\\", "/")]
    if not clip.path.isascii():  # macOS takes accents apart, most others keep them together
        spellings += [unicodedata.normalize(form, spellings[-1]) for form in ("NFC", "NFD")]
    for spelling in dict.fromkeys(spellings):
        for base in bases:
            for parts in ((spelling,), (_WAVEFORMS, spelling)):
                if os.path.isfile(os.path.join(base, *parts)):
                    return Match(base.joinpath(*parts))
    return None


def _search(clip: Clip, index: MediaIndex, bases: Sequence[Path]) -> Match:
    """The file named by the clip's id, or everything that was tried."""
    match = index.find(clip.id, clip.file_start, clip.is_part) if clip.id else Match(None)
    if match.path is not None or not clip.path:
        return match
    tried = ", nor ".join(dict.fromkeys(str(base / clip.path.strip()) for base in bases))
    return Match(None, f"no such file: {tried}" + (f"; {match.error}" if match.error else ""))


def _part_of(clip: Clip, match: Match) -> tuple[Match, float | None, float | None]:
    """The part of the found file that is meant: a file that begins in the video's middle has a clock of its own."""
    if match.path is None or not clip.is_part:
        return match, None, None
    if not match.begins or clip.file_start is None:
        return match, clip.start, clip.end
    start = 0.0 if clip.start is None else clip.start - clip.file_start
    end = None if clip.end is None else clip.end - clip.file_start
    if start < 0 or (end is not None and end <= start):
        return Match(None, f"{match.path} begins after the part that is meant"), None, None
    if start == 0 and (clip.end is None or match.ends(clip.end)):
        return match, None, None
    return match, start, end


class _Pictures:
    """AVCap's frames of sound files; a video has its own."""

    def __init__(self, bases: Sequence[Path]) -> None:
        self._folders = [base / _FRAMES for base in bases]
        self._read: dict[Path, FrameFolders] = {}

    def find(self, clip: Clip, path: Path) -> tuple[Path, ...]:
        """The pictures called as the manifest says, or as the file in `waveforms/` is."""
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
