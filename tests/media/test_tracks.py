"""Which of several tracks is heard."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from evacap_cli.errors import MediaError
from evacap_cli.media import probe, read_audio

from .clips import heard, packed

RATE = 48_000
Track = tuple[float, str, int]  # Hz, 0: silence, -1: nothing at all; language; flags of `Disposition`


def film(path: Path, *tracks: Track) -> Path:
    """`ffmpeg -f lavfi -i anullsrc -f lavfi -i sine -map 0 -map 1 -t 2 a.mkv`"""
    with av.open(str(path), "w") as out:
        streams = []
        for _, language, flags in tracks:
            stream = out.add_stream("mp2", rate=RATE, layout="stereo")
            stream.disposition = Disposition(flags)
            stream.metadata["language"] = language
            streams.append(stream)
        t = np.arange(2 * RATE) / RATE
        for first in range(0, len(t), 1152):
            for stream, (hertz, _, _) in zip(streams, tracks, strict=True):
                if hertz < 0:
                    continue
                wave = np.repeat(0.5 * np.sin(2 * np.pi * hertz * t[None, first : first + 1152]), 2, axis=0)
                frame = av.AudioFrame.from_ndarray(packed(wave, "s16"), format="s16", layout="stereo")
                frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), first
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode())
    return path


DEFAULT, COMMENT = Disposition.default.value, Disposition.comment.value
CHOICES = {
    "the first": ([(500.0, "eng", 0), (900.0, "ger", 0)], None, 500.0),
    "the default": ([(500.0, "eng", 0), (900.0, "ger", DEFAULT)], None, 900.0),
    "no commentary": ([(500.0, "eng", COMMENT), (900.0, "eng", 0)], None, 900.0),
    "not the silent one": ([(0.0, "eng", DEFAULT), (900.0, "ger", 0)], None, 900.0),
    "not the empty one": ([(-1.0, "eng", DEFAULT), (900.0, "ger", 0)], None, 900.0),
    "by number": ([(500.0, "eng", DEFAULT), (900.0, "ger", 0)], "2", 900.0),
    "by language": ([(500.0, "eng", DEFAULT), (900.0, "ger", 0)], "GER", 900.0),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_the_track_that_is_heard(tmp_path: Path, kind: str) -> None:
    tracks, track, hertz = CHOICES[kind]
    path = film(tmp_path / "a.mkv", *tracks)
    assert heard(read_audio(path, 0.5, 1.5, track)) == pytest.approx(hertz, abs=10)
    number = [each[0] for each in tracks].index(hertz) + 1
    assert probe(path, track).note.startswith(f"audio track {number} of 2")


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", (0.0, "eng", DEFAULT), (900.0, "ger", 0))
    assert probe(path).note == "audio track 2 of 2 (ger, 2 channels); 1 is silent"


@pytest.mark.parametrize("track", ["3", "fre"])
def test_a_track_that_is_not_there(tmp_path: Path, track: str) -> None:
    path = film(tmp_path / "a.mkv", (500.0, "eng", DEFAULT), (900.0, "ger", 0))
    with pytest.raises(
        MediaError, match=r"no audio track .*: there are 1 .eng, 2 channels, default., 2 .ger"
    ):
        read_audio(path, track=track)
