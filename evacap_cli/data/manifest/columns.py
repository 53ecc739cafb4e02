"""The forms of manifests: converts rows to clips, without searching for their media."""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evacap_cli.data.manifest.media_index import YOUTUBE
from evacap_cli.data.manifest.tables import Table, plain_name
from evacap_cli.errors import UsageError
from evacap_cli.media import MEDIA_SUFFIXES

# the first non-empty cell of a row is used
_PATHS = ("video", "file_name", "filename", "path", "file", "file_path", "video_path", "audio_path", "wav")
_IDS = ("youtube_id", "ytid", "video_id", "id")
_TIMES = ("start_time", "start", "end")
_CAPTION = re.compile(r"captions?|caption[ _]?\d+")
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

_FORMS = f"""a manifest has one of these forms, as CSV, JSON, JSONL or Parquet:
  video,caption                    paths; several rows per video allowed; start,end (seconds) for segments
  file_name,caption_1,caption_2    paths, all captions in one row
  youtube_id,start_time,caption    AudioCaps; files are found by the id in their names
  audio_path,video_path,caption    AVCap's JSON, with waveforms/ and frames/frame_N/
columns for paths: {", ".join(_PATHS)}; columns for ids: {", ".join(_IDS)}"""


@dataclass
class Clip:
    """A clip as described by a manifest. Times are in seconds."""

    identity: tuple[Any, ...]  # equal for all rows of the same clip
    name: str  # the key is derived from it
    source: str  # the path or id in the manifest
    path: str = ""  # a media file
    id: str = ""  # part of the media file's name
    file_start: float | None = None  # where the media file begins in its video
    start: float | None = None  # segment of the file
    end: float | None = None
    pictures: str = ""  # file name of the extracted frames
    error: str = ""  # what is wrong with the row
    captions: list[str] = field(default_factory=list)

    @property
    def is_part(self) -> bool:
        return self.start is not None or self.end is not None


def is_known(column: str) -> bool:
    """Whether manifests use a column with this `plain_name`."""
    return column in _PATHS or column in _IDS or column in _TIMES or bool(_CAPTION.fullmatch(column))


def is_caption(column: str) -> bool:
    """Whether a column with this `plain_name` has captions."""
    return bool(_CAPTION.fullmatch(column))


def check_columns(path: Path, table: Table, captioned: bool) -> None:
    """Raises UsageError if no column has paths or ids, or if `captioned` and no column has captions."""
    names = [plain_name(name) for name in table.columns]
    lacking = []
    if not any(name in _PATHS or name in _IDS for name in names):
        lacking.append("with paths or ids")
    if captioned and not any(_CAPTION.fullmatch(name) for name in names):
        lacking.append("with captions")
    if lacking:
        found = ", ".join(name.strip() for name in table.columns) or "none"
        raise UsageError(f"{path}: no column {' and none '.join(lacking)}; the columns are: {found}", _FORMS)


def collect(path: Path, table: Table, bases: Sequence[Path]) -> list[Clip]:
    """The clips of a manifest in the order of their first rows, each with the captions of all its rows.

    Absolute paths below one of `bases` equal the relative ones.
    """
    captions = [name for name in map(plain_name, table.columns) if _CAPTION.fullmatch(name)]
    roots = [posixpath.join(os.path.abspath(base).replace(os.sep, "/"), "") for base in bases]
    clips: dict[tuple[Any, ...], Clip] = {}
    for where, row in table.rows:
        cells = _Cells(f"{path}: {where}", row)
        clip = _read_row(where, cells, roots)
        texts = [text for name in captions for text in cells.texts(name)]
        if clip.source or texts:  # otherwise the row is empty
            clips.setdefault(clip.identity, clip).captions += texts
    return list(clips.values())


def _read_row(where: str, cells: _Cells, roots: list[str]) -> Clip:
    paths = [text for name in _PATHS if (text := cells.text(name)).strip()]
    path = next((text for text in paths if not _is_picture(text)), "")
    pictures = next((text.strip() for text in paths if _is_picture(text)), "")
    clip_id = next((text for name in _IDS if (text := cells.text(name).strip())), "")
    if path and not (len(clip_id) == YOUTUBE and clip_id in path):
        clip_id = ""  # next to a path, `id` is often a row number
    wrong: list[str] = []
    times = [cells.seconds(name, wrong) for name in _TIMES]
    file_start, start, end = times
    if end is not None and end <= (start or 0):
        wrong.append(f"end {end:g} is not after start {start or 0:g}")
    if file_start is None and not cells.text("start_time").strip():
        file_start = start
    mistaken = tuple(cells.text(name) for name in _TIMES) if wrong else ()

    identity: tuple[Any, ...]
    if path:
        source = path.strip()
        name = _plain_path(source, roots)
        identity = ("path", name, start, end, mistaken)
        stem, suffix = os.path.splitext(name)
        name = stem if suffix.lower() in MEDIA_SUFFIXES else name
    elif clip_id:
        source = name = clip_id
        identity = ("id", clip_id, file_start, start, end, mistaken)
        if file_start is not None and file_start != start:
            name += f"_{_digits(file_start)}"
    else:
        source, name, identity = pictures, where.replace(" ", "-"), ("none", where)
        wrong.append(f"{where} has {'only pictures, no audio file' if pictures else 'no file and no id'}")
    if start is not None or end is not None:
        name += f"_{_digits(start or 0)}" + (f"_{_digits(end)}" if end is not None else "")
    return Clip(identity, name, source, path, clip_id, file_start, start, end, pictures, "; ".join(wrong))


class _Cells:
    """The cells of one row. `at` is the position of the row for messages."""

    def __init__(self, at: str, row: dict[str, Any]) -> None:
        self._at, self._row = at, row

    def text(self, column: str) -> str:
        """A cell as text, "" if there is none. Whole numbers have no decimals. Raises UsageError for lists."""
        return self._as_text(column, self._row.get(column))

    def texts(self, column: str) -> list[str]:
        """The non-empty texts of a cell, which may be a list."""
        value = self._row.get(column)
        found = (
            self._as_text(column, item).strip() for item in (value if isinstance(value, list) else [value])
        )
        return [text for text in found if text]

    def seconds(self, column: str, wrong: list[str]) -> float | None:
        """A cell as seconds. If it is not a valid time, appends a message to `wrong` and returns None."""
        text = self.text(column).strip()
        if not text:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds >= 0) or "_" in text:  # float() accepts `_`
            wrong.append(f"{column} {text!r} is not a time in seconds")
            return None
        return seconds

    def _as_text(self, column: str, value: Any) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        if isinstance(value, float):
            if math.isnan(value):
                return ""
            # Parquet stores an integer column with gaps as floats
            return str(int(value)) if value.is_integer() else repr(value)
        if isinstance(value, (list, dict, bytes)):
            raise UsageError(f"{self._at}: {column} is neither text nor a number", "give one value per clip")
        return str(value)


def _is_picture(text: str) -> bool:
    return text.strip().lower().endswith(_PICTURES)


def _plain_path(text: str, roots: list[str]) -> str:
    """A normalised path to compare rows: `/` as separator, relative to a root if possible."""
    plain = posixpath.normpath(text.replace("\\", "/"))
    root = next((root for root in roots if plain.startswith(root)), "")
    return plain[len(root) :]


def _digits(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".").replace(".", "-")
