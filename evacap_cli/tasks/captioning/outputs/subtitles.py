"""Writes the rows of one recording as subtitles: SubRip and WebVTT."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from evacap_cli.tasks.captioning.outputs.rows import Row, readable_path
from evacap_cli.tasks.captioning.outputs.tables import TableFormat

BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the text direction, which would also affect the following lines."""
FULL_WIDTH = {ord(c): chr(ord(c) + 0xFEE0) for c in "<>{}\\&"}
"""SubRip cannot escape what players take for markup (`<i>`, `{\\an8}`, `\\N`, `&lt;`). Full-width characters look alike
and are never markup."""
ENTITY = re.compile(r"&(?=#?\w+;)")
SRT_ESCAPES = {sign: wide for sign, wide in FULL_WIDTH.items() if sign != ord("&")}
VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class Cue(NamedTuple):
    start: int  # milliseconds
    end: int
    text: str


def srt_text(rows: Iterable[Row], table_format: TableFormat) -> Iterator[str]:
    """Yields a SubRip file. Failed rows are left out. Without captions the file is empty, which is valid."""
    for number, cue in enumerate(_cues(list(rows)), 1):
        text = ENTITY.sub(FULL_WIDTH[ord("&")], cue.text).translate(SRT_ESCAPES)
        yield f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n"


def vtt_text(rows: Iterable[Row], table_format: TableFormat) -> Iterator[str]:
    """Yields a WebVTT file: failed rows as notes, then the cues."""
    kept = list(rows)
    yield "WEBVTT\n\n"
    for row in kept:
        if row.status == "failed":
            note = f"{_line(row.video)}: {_line(row.error)}"
            yield f"NOTE failed: {note.translate(VTT_ESCAPES)}\n\n"
    for cue in _cues(kept):
        text = cue.text.translate(VTT_ESCAPES)
        yield f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n\n"


def _cues(rows: Sequence[Row]) -> Iterator[Cue]:
    """Yields cues in order of time. A cue ends when the next one starts."""
    cues = [
        Cue(max(0, round(row.start * 1000)), round(row.end * 1000), text)
        for row in rows
        if row.start is not None and row.end is not None and (text := _line(row.caption))
    ]
    cues.sort(key=lambda cue: cue.start)
    for cue, following in zip_longest(cues, cues[1:]):
        end = cue.end if following is None else min(cue.end, following.start)
        if end > cue.start:
            yield cue._replace(end=end)


def _line(text: str) -> str:
    """Returns text as one line. Control characters become spaces."""
    plain = (c if unicodedata.category(c) not in ("Cc", "Zl", "Zp") else " " for c in readable_path(text))
    return " ".join("".join(c for c in plain if c not in BIDI_CONTROLS).split())


def _clock(milliseconds: int, mark: str) -> str:
    """Returns HH:MM:SS, `mark` and milliseconds."""
    seconds, thousandths = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{thousandths:03}"
