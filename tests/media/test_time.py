"""How long files are, and when what is: headers that do not know, clocks that start again, places that are not found.

Every file is made here, with PyAV or byte by byte. The recipes for FFmpeg's command line stand beside them, for whoever
wants larger ones; `-f lavfi -i sine` stands for any sound, `-f lavfi -i testsrc` for any picture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evacap_cli.media import find_window, probe

from .spoken import check_picture, check_sound, joined, part, with_byte_rate

Make = Callable[[Path], Path]
SOUND, LOUDEST = 9, 7  # seconds of sound in every file, and the one that is loudest


def raw(suffix: str, codec: str, rate: int = 44_100, **options: object) -> Make:
    """`ffmpeg -f lavfi -i sine -t 9 a.aac` (or .ac3, .mp2, ...): no header says how long it is."""
    return lambda folder: part(folder / f"a.{suffix}", 0, SOUND, None, codec, rate, loud=LOUDEST, **options)


def joint(
    suffix: str, codec: str, rate: int = 44_100, counts: tuple[int, ...] = (4, 5), **options: object
) -> Make:
    """`cat a.opus b.opus > joined.opus`"""
    return lambda folder: joined(
        folder / f"joined.{suffix}", counts, LOUDEST, video=None, audio=codec, rate=rate, **options
    )


def riff(codec: str, times: float, rate: int = 16_000) -> Make:
    """`ffmpeg -f lavfi -i sine -t 9 -c:a adpcm_ms a.wav`, and another number at byte 28."""
    return lambda folder: with_byte_rate(
        part(folder / "a.wav", 0, SOUND, None, codec, rate, "mono", LOUDEST), times
    )


SOUNDS: dict[str, Make] = {
    "aac": raw("aac", "aac"),
    "aac-joined": joint("aac", "aac"),
    "ac3": raw("ac3", "ac3"),
    "eac3": raw("eac3", "eac3"),
    "mp2": raw("mp2", "mp2"),
    "mp3-vbr": raw("mp3", "libmp3lame", options={"write_xing": "0", "id3v2_version": "0"}),
    "mp3-xing": raw("mp3", "libmp3lame"),
    "mp3-joined": joint("mp3", "libmp3lame"),
    "opus-chained": joint("opus", "libopus", 48_000),
    "opus-chained-thrice": joint("opus", "libopus", 48_000, (2, 3, 4)),
    "vorbis-chained": joint("ogg", "vorbis"),
    "flac-ogg": raw("oga", "flac"),
    "flac-ogg-chained": joint("oga", "flac"),
    "flac": raw("flac", "flac"),
    "mka-joined": joint("mka", "flac"),
    "ts-sound": joint("ts", "aac"),
    "adpcm_ms": riff("adpcm_ms", 1.0),
    "adpcm_ms-low": riff("adpcm_ms", 0.1),
    "adpcm_ms-high": riff("adpcm_ms", 7.0),
    "adpcm_ima_wav-low": riff("adpcm_ima_wav", 0.3),
    "adpcm_ima_wav-high": riff("adpcm_ima_wav", 3.0),
    "g722-low": riff("g722", 0.5),
    "g722-high": riff("g722", 2.0),
    "adpcm_yamaha-low": riff("adpcm_yamaha", 0.5),
    "wav": riff("pcm_s16le", 1.0),
    "wav-low": riff("pcm_s16le", 0.5),
    "wav-high": riff("pcm_mulaw", 2.0),
    "mp4": raw("mp4", "aac"),
    "m4a-alac": raw("m4a", "alac", samples="s16p"),
    "mp4-fragments": raw("mp4", "aac", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "aiff": raw("aiff", "pcm_s16be"),
    "caf": raw("caf", "pcm_s16be"),
    "au": raw("au", "pcm_s16be"),
    "w64": raw("w64", "pcm_s16le"),
    "wv": raw("wv", "wavpack"),
    "tta": raw("tta", "tta"),
    "flv": raw("flv", "aac"),
    "avi": raw("avi", "libmp3lame"),
    "mka-live": raw("mka", "aac", options={"live": "1"}),
}


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
