"""Which of several tracks is heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from evacap_cli.errors import MediaError
from evacap_cli.media import probe, read_audio

from .clips import heard
from .kinds import CHOICES, DEFAULT, with_tracks


@pytest.mark.parametrize("kind", CHOICES)
def test_the_chosen_track(tmp_path: Path, kind: str) -> None:
    tracks, track, hertz = CHOICES[kind]
    path = with_tracks(tmp_path / "a.mkv", *tracks)
    assert heard(read_audio(path, 0.5, 1.5, track)) == pytest.approx(hertz, abs=10)
    number = [each[0] for each in tracks].index(hertz) + 1
    assert probe(path, track).note.startswith(f"audio track {number} of 2")


def test_skipped_tracks_are_reported(tmp_path: Path) -> None:
    path = with_tracks(tmp_path / "a.mkv", (0.0, "eng", DEFAULT), (900.0, "ger", 0))
    assert probe(path).note == "audio track 2 of 2 (ger, 2 channels); 1 is silent"


@pytest.mark.parametrize("track", ["3", "fre"])
def test_a_missing_track(tmp_path: Path, track: str) -> None:
    path = with_tracks(tmp_path / "a.mkv", (500.0, "eng", DEFAULT), (900.0, "ger", 0))
    with pytest.raises(
        MediaError, match=r"no audio track .*: there are 1 .eng, 2 channels, default., 2 .ger"
    ):
        read_audio(path, track=track)
