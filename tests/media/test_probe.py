from __future__ import annotations

from pathlib import Path

import pytest

from evacap_cli.media import AUDIO_SUFFIXES, MEDIA_SUFFIXES, VIDEO_SUFFIXES, probe

from .clips import write


def test_a_video(tmp_path: Path) -> None:
    info = probe(write(tmp_path / "clip.mp4", 1.5, size=(80, 60)))
    assert info.seconds == pytest.approx(1.5, abs=0.05)
    assert (info.has_audio, info.has_video) == (True, True)
    assert (info.width, info.height, info.fps) == (80, 60, 10.0)
    assert (info.sample_rate, info.channels) == (44_100, 2)


def test_picture_alone_and_sound_alone(tmp_path: Path) -> None:
    info = probe(write(tmp_path / "clip.mp4", 1.0, audio=None))
    assert (info.has_audio, info.has_video, info.sample_rate) == (False, True, 0)
    info = probe(str(write(tmp_path / "clip.flac", 1.0, video=None, audio="flac")))
    assert (info.has_audio, info.has_video, info.width) == (True, False, 0)


@pytest.mark.parametrize(("suffix", "codec"), [("mp3", "libmp3lame"), ("flac", "flac")])
def test_cover_art_is_no_video(tmp_path: Path, suffix: str, codec: str) -> None:
    info = probe(write(tmp_path / f"song.{suffix}", 1.0, video=None, audio=codec, cover=True))
    assert (info.has_audio, info.has_video) == (True, False)
    assert info.seconds == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(("suffix", "video"), [("webm", "libvpx-vp9"), ("mkv", "libx264")])
def test_a_live_recording_has_no_length_in_its_header(tmp_path: Path, suffix: str, video: str) -> None:
    path = write(
        tmp_path / f"clip.{suffix}", 1.5, video=video, audio="libopus", rate=48_000, options={"live": "1"}
    )
    assert probe(path).seconds == pytest.approx(1.5, abs=0.1)


def test_suffixes() -> None:
    assert VIDEO_SUFFIXES | AUDIO_SUFFIXES == MEDIA_SUFFIXES
    assert not VIDEO_SUFFIXES & AUDIO_SUFFIXES
    assert {".mp4", ".mkv", ".webm", ".mov", ".avi", ".wav", ".flac", ".ogg", ".mp3"} <= MEDIA_SUFFIXES
