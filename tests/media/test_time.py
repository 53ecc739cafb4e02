"""How long files are, and when what is: headers that do not know, clocks that start again, places not found."""

from __future__ import annotations

from pathlib import Path

import pytest

from evacap_cli.media import find_window, probe

from .kinds import LOUDEST, SOUND, SOUNDS
from .spoken import check_picture, check_sound, joined, part


@pytest.mark.parametrize("kind", SOUNDS)
def test_sound_is_as_long_as_it_is(tmp_path: Path, kind: str) -> None:
    check_sound(SOUNDS[kind](tmp_path), SOUND, LOUDEST)


VIDEOS = {
    "ts": ("mp2", "mpeg2video"),
    "mpg": ("mp2", "mpeg2video"),
    "mkv": ("flac", "mpeg4"),
}


@pytest.mark.parametrize(
    ("suffix", "counts"),
    [("ts", (4, 5)), ("ts", (2, 3, 4)), ("mpg", (4, 5)), ("mpg", (2, 3, 4)), ("mkv", (4, 5))],
)
def test_sound_and_picture_of_joined_films_stay_together(
    tmp_path: Path, suffix: str, counts: tuple[int, ...]
) -> None:
    """`cat a.ts b.ts > joined.ts`"""
    audio, video = VIDEOS[suffix]
    path = joined(tmp_path / f"joined.{suffix}", counts, LOUDEST, video=video, audio=audio, rate=48_000)
    check_sound(path, SOUND, LOUDEST)
    check_picture(path, SOUND)


def test_of_a_file_that_was_cut_it_is_said_how_much_is_there(tmp_path: Path) -> None:
    """`head -c` of an MP4 with its index in front"""
    path = part(tmp_path / "a.mp4", 0, SOUND, "libx264", "aac", options={"movflags": "faststart"})
    assert probe(path).note == ""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    info = probe(path)
    assert info.heard < 6
    assert info.note == f"cut: {info.seconds:.1f} of 9.0 s are there"
    start, end = find_window(path, 2.0, "middle")
    assert (start + end) / 2 == pytest.approx(info.heard / 2)
