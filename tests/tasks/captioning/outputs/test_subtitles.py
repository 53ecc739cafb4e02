"""Subtitles are read back by parsers of other people, and by FFmpeg as players use it."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import av
import pytest
import srt
import webvtt

from evacap_cli.tasks.captioning.outputs.rows import Row
from evacap_cli.tasks.captioning.outputs.subtitles import srt_text, vtt_text
from evacap_cli.tasks.captioning.outputs.tables import TableFormat

WRITERS = {"srt": srt_text, "vtt": vtt_text}
ROWS = [
    Row("f.mp4", 0.0, 10.0, "a dog barks", status="ok"),
    Row("f.mp4", 10.0, 20.5, "rain falls & a man says “hello”", status="ok"),
    Row("f.mp4", 3599.9996, 3661.0405, "犬が吠える", status="audio-only", error="no frame"),
    Row("f.mp4", 360_000.0, 360_010.0, "a hundred hours later", status="ok"),
]
HOSTILE = [
    "<b>bold</b> <v Roger>hi</v> <00:00:01.000>",
    "a --> b",
    "00:00:00.000 --> 00:00:10.000",
    "line one\nline two\r\n\r\n2\n00:00:01,000 --> 00:00:02,000\nmore",
    "NOTE not a note",
    "WEBVTT",
    "STYLE ::cue { color: red }",
    "{\\an8}{\\pos(1,2)} {y:i} \\N\\h",
    "&lt;i&gt; &amp; &#60; &nbsp; AT&T; R&D",
    "bell \x07 escape \x1b[31m tab \t null \x00 next \x85 line \u2028 paragraph \u2029 feed \x0c end",
    "\u202eright to left\u202c and \u2066apart\u2069",
    "42",
    "\ufeffbyte order mark",
]


def text_of(kind: str, rows: Iterable[Row]) -> str:
    return "".join(WRITERS[kind](rows, TableFormat()))


def parse_srt(text: str) -> list[tuple[float, float, str]]:
    return [(c.start.total_seconds(), c.end.total_seconds(), c.content) for c in srt.parse(text)]


def parse_vtt(text: str) -> list[tuple[float, float, str]]:
    cues = webvtt.from_buffer(io.StringIO(text)).captions
    times = ((c.start_in_seconds + _part(c.start), c.end_in_seconds + _part(c.end)) for c in cues)
    return [(*time, cue.raw_text) for time, cue in zip(times, cues, strict=True)]


def _part(clock: str) -> float:
    return float("0." + clock.split(".")[1])


def played(path: Path) -> list[tuple[float, float, str]]:
    """What FFmpeg decodes: (start, end, text as a player of ASS would draw it)."""
    shown = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            for subtitle in packet.decode():
                text = subtitle.ass.decode().split(",", 8)[8] if packet.size else ""
                start = float(packet.pts * packet.time_base)
                shown.append((start, start + float(packet.duration * packet.time_base), text))
    return shown


PARSERS: dict[str, Callable[[str], list[tuple[float, float, str]]]] = {"srt": parse_srt, "vtt": parse_vtt}


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles_survive_reading(kind: str, tmp_path: Path) -> None:
    expected = [(0.0, 10.0), (10.0, 20.5), (3600.0, 3661.04), (360_000.0, 360_010.0)]
    text = text_of(kind, ROWS)
    cues = PARSERS[kind](text)
    for (start, end, cue), times, row in zip(cues, expected, ROWS, strict=True):
        assert (start, end) == pytest.approx(times, abs=6e-4)
        assert cue.replace("&amp;", "&") == row.caption
    path = tmp_path / f"f.{kind}"
    path.write_text(text, encoding="utf-8")
    for (start, end, cue), times, row in zip(played(path), expected, ROWS, strict=True):
        assert (start, end) == pytest.approx(times, abs=6e-4)
        assert cue == row.caption


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_captions_are_escaped(kind: str, tmp_path: Path) -> None:
    rows = [Row("f.mp4", 10.0 * i, 10.0 * i + 9, text, status="ok") for i, text in enumerate(HOSTILE)]
    text = text_of(kind, rows)
    cues = PARSERS[kind](text)
    assert [start for start, _, _ in cues] == [row.start for row in rows]
    path = tmp_path / f"f.{kind}"
    path.write_text(text, encoding="utf-8")
    shown = played(path)
    assert len(shown) == len(rows)
    for (_, _, cue), (_, _, drawn), row in zip(cues, shown, rows, strict=True):
        assert "\n" not in cue
        assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in cue)
        assert not any("\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069" for c in cue)
        assert "<" not in cue
        assert "-->" not in cue
        words = "".join(c if unicodedata.category(c) not in ("Cc", "Zl", "Zp") else " " for c in row.caption)
        words = "".join(c for c in words if c not in "\u202e\u202c\u2066\u2069")
        meant = unicodedata.normalize("NFKC", " ".join(words.split()))
        read = cue if kind == "srt" else cue.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        assert unicodedata.normalize("NFKC", read) == meant
        if (
            kind == "srt"
        ):  # WebVTT has no braces and backslashes to obey; FFmpeg's way from there to ASS escapes them
            assert unicodedata.normalize("NFKC", drawn).replace("\ufeff", "") == meant.replace("\ufeff", "")


def test_failures_are_notes_in_formats_that_have_notes() -> None:
    failed = Row("odd --> <name>\n.mp4", error="no audio track -->\n\nWEBVTT")
    text = text_of("vtt", [failed, ROWS[0]])
    assert text.startswith(
        "WEBVTT\n\nNOTE failed: odd --&gt; &lt;name&gt; .mp4: no audio track --&gt; WEBVTT\n\n"
    )
    assert len(parse_vtt(text)) == 1
    assert text_of("srt", [failed, ROWS[0]]) == text_of("srt", [ROWS[0]])


def test_without_captions_the_file_is_valid() -> None:
    rows = [Row("f.mp4", error="no audio track"), Row("f.mp4", 0.0, 10.0, "", status="ok")]
    assert text_of("srt", rows) == ""
    assert parse_srt("") == []
    assert parse_vtt(text_of("vtt", rows)) == []
    assert parse_vtt(text_of("vtt", [])) == []


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_cues_do_not_overlap(kind: str) -> None:
    """Overlapping segments, and parts of a film in any order."""
    starts = [20.0, 0.0, 5.0, 10.0, 10.0]
    rows = [replace(ROWS[0], start=start, end=start + 10, caption=f"from {start:g}") for start in starts]
    assert PARSERS[kind](text_of(kind, rows)) == [
        (0.0, 5.0, "from 0"),
        (5.0, 10.0, "from 5"),
        (10.0, 20.0, "from 10"),
        (20.0, 30.0, "from 20"),
    ]


def test_cues_are_numbered_from_one() -> None:
    assert [cue.index for cue in srt.parse(text_of("srt", ROWS))] == [1, 2, 3, 4]
