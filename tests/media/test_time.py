"""How long files are, and when what is: headers that do not know, clocks that start again, places not found."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from av.container import InputContainer

from evacap_cli.features import FeatureSettings
from evacap_cli.media import SAMPLE_RATE, container, find_window, probe, read_audio
from evacap_cli.tasks.clips import ClipSettings, load_clip

from .clips import write
from .kinds import FILMS, LOUDEST, SOUND, SOUNDS, films
from .spoken import check_picture, check_sound, joined, part, second_heard

QUICK = ("ts-joined", "mkv-joined", "mp4-edited", "sound-in-time-of-day")


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOUNDS)
def test_audio_has_its_true_length(tmp_path: Path, kind: str) -> None:
    check_sound(SOUNDS[kind](tmp_path), SOUND, LOUDEST)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in FILMS]
)
def test_audio_and_frames_stay_synchronous(tmp_path: Path, kind: str) -> None:
    path = FILMS[kind](tmp_path)
    check_sound(path, SOUND, LOUDEST)
    check_picture(path, SOUND)


def test_of_three_joined_matroska_files_two_are_played(tmp_path: Path) -> None:
    """FFmpeg and its players skip the third; a note gives the length that is read."""
    path = joined(tmp_path / "a.mkv", (2, 3, 4), 3, video="mpeg4", audio="flac", rate=48_000)
    check_sound(path, 5, 3)
    check_picture(path, 5)
    assert re.fullmatch(r"joined: [45]\d% of its bytes are read, as in players", probe(path).note)


# suffix, sound, picture: kinds that say how much the encoder put in front
PRIMED = [("mp4", "aac", "libx264"), ("mov", "aac", "libx264"), ("m4a", "aac", None), ("mkv", "aac", "libx264"),
          ("mp3", "libmp3lame", None), ("mkv", "libmp3lame", "libx264"), ("mp4", "libmp3lame", "libx264"),
          ("opus", "libopus", None), ("webm", "libopus", "libvpx-vp9"), ("mp4", "libopus", "libx264")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "codec", "video"), PRIMED)
def test_encoder_delay_is_removed(tmp_path: Path, suffix: str, codec: str, video: str | None) -> None:
    """Edit lists, LAME's header, pre-skip and codec delay: sound is not 20 to 48 ms late, from the start or later."""
    rate, late = 48_000, 0.0
    clicks = np.zeros((2, 3 * rate))
    for at in (0.25, 1.25, 2.25):
        first = round(at * rate)
        clicks[:, first : first + 480] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(480) / rate)
    path = write(tmp_path / f"a.{suffix}", 3.0, video=video, audio=codec, rate=rate, wave=clicks)
    whole = read_audio(path)
    for at, wave in ((0.25, whole), (2.25, whole[2 * SAMPLE_RATE :]), (2.25, read_audio(path, 2.0, 2.9))):
        wave = np.abs(wave[: SAMPLE_RATE // 2])
        late = float(np.argmax(wave > 0.25 * wave.max())) / SAMPLE_RATE - at % 1
        assert abs(late) < 0.003, f"the click at {at} s is {1000 * late:.0f} ms late"


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording that goes on: each time that the file is opened, there is more of it."""
    path = films("ts", "mpeg2video", "mp2", 9)(tmp_path)
    data, opened = path.read_bytes(), 0
    path.write_bytes(data[: len(data) // 3])
    opening = container.open_container

    def growing(path: Path) -> AbstractContextManager[InputContainer]:
        nonlocal opened
        opened += 1
        path.write_bytes(data[: len(data) * (2 + opened) // 8])
        return opening(path)

    monkeypatch.setattr(container, "open_container", growing)
    clip = load_clip(path, ClipSettings(FeatureSettings()))
    assert opened
    assert 2 < clip.end <= SOUND
    assert clip.frames is not None
    for second, wave in ((0, read_audio(path, 0.2, 0.8)), (1, read_audio(path, 1.2, 1.8))):
        assert abs(second_heard(wave) - second) < 0.25


@pytest.mark.slow
def test_a_truncated_file_reports_its_remaining_length(tmp_path: Path) -> None:
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
