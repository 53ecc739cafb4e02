from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from av.format import ContainerFormat, formats_available

from evacap_cli.media import AUDIO_SUFFIXES, MEDIA_SUFFIXES, VIDEO_SUFFIXES, probe, read_audio
from evacap_cli.media.container import DEMUXERS

from .clips import write

PICTURES = {"avif", "gif", "heic", "heif", "mpo", "psp"}
OTHERS = {"ism", "mks", "sf", "swf"}  # a manifest, subtitles, also signatures, programs


def test_a_video(tmp_path: Path) -> None:
    info = probe(write(tmp_path / "clip.mp4", 1.5, size=(80, 60)))
    assert info.seconds == pytest.approx(1.5, abs=0.05)
    assert (info.has_audio, info.has_video) == (True, True)
    assert (info.width, info.height, info.fps) == (80, 60, 10.0)
    assert (info.sample_rate, info.channels) == (44_100, 2)


def test_video_only_and_audio_only(tmp_path: Path) -> None:
    info = probe(write(tmp_path / "clip.mp4", 1.0, audio=None))
    assert (info.has_audio, info.has_video, info.sample_rate) == (False, True, 0)
    info = probe(str(write(tmp_path / "clip.flac", 1.0, video=None, audio="flac")))
    assert (info.has_audio, info.has_video, info.width) == (True, False, 0)


@pytest.mark.parametrize(("suffix", "codec"), [("mp3", "libmp3lame"), ("flac", "flac")])
def test_cover_art_is_not_video(tmp_path: Path, suffix: str, codec: str) -> None:
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


def test_suffixes_match_the_demuxers() -> None:
    """By the tables of the installed FFmpeg: no kind of file in them is passed over in folders without a reason."""
    ours = set(DEMUXERS.split())
    called: set[str] = set()
    for name in formats_available:
        with contextlib.suppress(ValueError):  # one that is only written
            kind = ContainerFormat(name, "r")
            if ours & set(kind.name.split(",")):
                called |= kind.extensions
    assert {"mp4", "mkv", "ogg", "h264", "flac"} <= called
    assert {suffix for suffix in called if f".{suffix}" not in MEDIA_SUFFIXES} <= PICTURES | OTHERS
    assert not {f".{suffix}" for suffix in PICTURES | OTHERS} & MEDIA_SUFFIXES


@pytest.mark.parametrize(
    "suffixes",
    [
        "3g2 vob f4v wtv divx nut mxf dv m2v m2t m2p rm rmvb gxf mk3d qt mpe dvd ogm ivf y4m",
        "m4b wv tta au dts spx w64 mp2 eac3 voc caf amr ape mpc tak shn ra aifc dsf qoa thd weba snd mpa",
    ],
)
def test_kinds_that_have_no_suffix_in_the_demuxers_tables(suffixes: str) -> None:
    assert {f".{suffix}" for suffix in suffixes.split()} <= MEDIA_SUFFIXES


def test_pictures_subtitles_playlists_and_text_are_not_media() -> None:
    others = "jpg png gif webp heic srt vtt ass m3u8 pls txt csv json pdf zip dat bin"
    assert not {f".{suffix}" for suffix in others.split()} & MEDIA_SUFFIXES


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"),
    [("3g2", "aac", 44_100), ("m4b", "aac", 44_100), ("caf", "pcm_s16be", 44_100), ("w64", "pcm_s16le", 44_100),
     ("au", "pcm_s16be", 44_100), ("tta", "tta", 44_100), ("wv", "wavpack", 44_100), ("nut", "flac", 44_100),
     ("mp2", "mp2", 44_100), ("eac3", "eac3", 48_000), ("voc", "pcm_u8", 22_050), ("aifc", "pcm_s16be", 44_100)],
)  # fmt: skip
def test_files_with_these_suffixes_can_be_read(tmp_path: Path, suffix: str, codec: str, rate: int) -> None:
    path = write(tmp_path / f"clip.{suffix}", 1.0, video=None, audio=codec, rate=rate)
    assert path.suffix in MEDIA_SUFFIXES
    assert probe(path).has_audio
    assert len(read_audio(path)) == pytest.approx(16_000, abs=1000)
