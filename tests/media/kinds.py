"""Media files of kinds that are easily heard or seen wrongly, each made by a recipe that the tests know by name.

`benchmarks/media_kinds.py` shows what any version of evacap makes of them. All are made with PyAV or byte by byte;
where FFmpeg's command line makes a larger one, how it does stands beside: `-f lavfi -i sine` is any sound, `-f lavfi -i
testsrc` any picture.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from .clips import packed
from .spoken import joined, part, with_byte_rate

Make = Callable[[Path], Path]

# Time ---------------------------------------------------------------------------------------------------------------

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


# Tracks -------------------------------------------------------------------------------------------------------------

TRACK_RATE = 48_000
Track = tuple[float, str, int]  # Hz, 0: silence, -1: nothing at all; language; flags of `Disposition`


def film(path: Path, *tracks: Track) -> Path:
    """`ffmpeg -f lavfi -i anullsrc -f lavfi -i sine -map 0 -map 1 -t 2 a.mkv`"""
    with av.open(str(path), "w") as out:
        streams = []
        for _, language, flags in tracks:
            stream = out.add_stream("mp2", rate=TRACK_RATE, layout="stereo")
            stream.disposition = Disposition(flags)
            stream.metadata["language"] = language
            streams.append(stream)
        t = np.arange(2 * TRACK_RATE) / TRACK_RATE
        for first in range(0, len(t), 1152):
            for stream, (hertz, _, _) in zip(streams, tracks, strict=True):
                if hertz < 0:
                    continue
                wave = np.repeat(0.5 * np.sin(2 * np.pi * hertz * t[None, first : first + 1152]), 2, axis=0)
                frame = av.AudioFrame.from_ndarray(packed(wave, "s16"), format="s16", layout="stereo")
                frame.sample_rate, frame.time_base, frame.pts = TRACK_RATE, Fraction(1, TRACK_RATE), first
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
