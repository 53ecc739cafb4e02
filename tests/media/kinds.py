"""Media files of kinds that are easily heard or seen wrongly, each made by a recipe that the tests know by name.

`benchmarks/media_kinds.py` shows what any version of evacap makes of them. All are made with PyAV or byte by byte;
where FFmpeg's command line makes a larger one, how it does stands beside: `-f lavfi -i sine` is any sound, `-f lavfi -i
testsrc` any picture.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from .clips import packed
from .crafted import element, matroska, picture_track, sound_track
from .spoken import DARK, SLOPE, joined, part, seconds_tone, with_byte_rate

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
    "flac-joined": joint("flac", "flac"),
    "flac-joined-thrice": joint("flac", "flac", counts=(3, 3, 3)),
    "amr": raw("amr", "libopencore_amrnb", 8000, layout="mono"),
    "amr-joined": joint("amr", "libopencore_amrnb", 8000, layout="mono"),
    "ac3-joined": joint("ac3", "ac3"),
    "eac3-joined": joint("eac3", "eac3"),
    "mp2-joined": joint("mp2", "mp2"),
    "nut-joined": joint("nut", "mp2"),
    "mov-adpcm": raw("mov", "adpcm_ima_qt"),
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


def film(suffix: str, video: str, audio: str, rate: int = 48_000, **options: object) -> Make:
    """`ffmpeg -f lavfi -i testsrc -f lavfi -i sine -t 9 a.ts`"""
    return lambda folder: part(folder / f"a.{suffix}", 0, SOUND, video, audio, rate, loud=LOUDEST, **options)


def films(suffix: str, video: str, audio: str, *counts: int) -> Make:
    """`cat a.ts b.ts > joined.ts`"""
    return lambda folder: joined(
        folder / f"joined.{suffix}", counts, LOUDEST, video=video, audio=audio, rate=48_000
    )


def second_as_jpeg(second: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (round(DARK + SLOPE * second),) * 3).save(file, "jpeg")
    return file.getvalue()


def two_clocks(sound: float, picture: float, more: bytes = b"") -> Make:
    """Matroska whose sound and picture begin at these stamps, in seconds; `more`: see `matroska`."""

    def make(folder: Path) -> Path:
        rate = 8000
        wave = packed(seconds_tone(0, SOUND, rate, loud=LOUDEST), "s16")[0]
        blocks = []
        for ms in range(0, 1000 * SOUND, 100):
            samples = wave[ms * rate // 1000 : (ms + 100) * rate // 1000]
            blocks.append((1, round(sound * 1000) + ms, samples.tobytes()))
            blocks.append((2, round(picture * 1000) + ms, second_as_jpeg(ms // 1000)))
        tracks = [sound_track(rate=rate), picture_track(width=64, height=48)]
        path = folder / "clocks.mkv"
        path.write_bytes(matroska(tracks, blocks, more=more))
        return path

    return make


def ordered_chapters() -> bytes:
    """Two editions of chapters, the default one ordered: seconds 5 to 9, and then 0 to 5."""

    def edition(flags: bytes, *spans: tuple[int, int]) -> bytes:
        atoms = [
            element("b6", element("73c4", n), element("91", start * 10**9), element("92", end * 10**9))
            for n, (start, end) in enumerate(spans, 1)
        ]
        return element("45b9", flags, *atoms)

    ordered = element("45db", 1), element("45dd", 1)  # the default edition; its order counts
    return element("1043a770", edition(b"".join(ordered), (5, 9), (0, 5)), edition(b"", (0, 3), (3, 9)))


def edited(suffix: str) -> Make:
    """`ffmpeg -ss 2 -i a.mp4 -c copy b.mp4`: an edit list leaves out the first two seconds of both tracks."""

    def make(folder: Path) -> Path:
        path = part(folder / f"a.{suffix}", -2, 2 + SOUND, "libx264", "aac", loud=LOUDEST)
        data, at = bytearray(path.read_bytes()), 0
        while (at := data.find(b"trak", at + 1)) > 0:
            (clock,) = struct.unpack_from(">I", data, data.index(b"mdhd", at) + 16)
            length, begin = (data.index(b"elst", at) + offset for offset in (12, 16))
            for place, more in ((length, -2 * 1000), (begin, 2 * clock)):  # the film's clock has 1000 ticks
                (value,) = struct.unpack_from(">I", data, place)
                struct.pack_into(">I", data, place, value + more)
        path.write_bytes(data)
        return path

    return make


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of the boxes of an MP4 file with 32-bit sizes."""
    at = 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        yield name, data[at + 8 : at + size]
        at += size


def in_64_bits(folder: Path) -> Path:
    """As FFmpeg writes an MP4 over 4 GiB: a `mdat` with a 64-bit size, and offsets in `co64`."""

    def rebuilt(data: bytes) -> bytes:
        out = b""
        for name, content in boxes(data):
            if name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                content = rebuilt(content)
            elif name == b"stco":
                count = len(content) // 4 - 2
                places = (place + 8 for place in struct.unpack_from(f">{count}I", content, 8))
                name, content = b"co64", content[:8] + struct.pack(f">{count}Q", *places)
            large = struct.pack(">I4sQ", 1, name, len(content) + 16)
            out += (large if name == b"mdat" else struct.pack(">I4s", len(content) + 8, name)) + content
        return out

    path = part(folder / "a.mp4", 0, SOUND, "libx264", "aac", 48_000, loud=LOUDEST)
    path.write_bytes(rebuilt(path.read_bytes()))
    return path


UNEVEN = [0, 1, 1.01, 1.5, 2, 3, 4, 5, 5.001, 6, 7, 8, 8.9]  # seconds, of the frames of a recorded screen
INTERLACED = {"flags": "+ildct+ilme"}
WRAP = 2**33 / 90_000  # seconds after which the stamps of MPEG start again
FILMS: dict[str, Make] = {
    "ts-joined": films("ts", "mpeg2video", "mp2", 4, 5),
    "ts-joined-thrice": films("ts", "mpeg2video", "mp2", 2, 3, 4),
    "mpg-joined": films("mpg", "mpeg2video", "mp2", 4, 5),
    "mpg-joined-thrice": films("mpg", "mpeg2video", "mp2", 2, 3, 4),
    "ts-h264-joined": films("ts", "libx264", "aac", 4, 5),
    "m2ts-joined": films("m2ts", "libx264", "ac3", 4, 5),
    "vob-joined": films("vob", "mpeg2video", "ac3", 4, 5),
    "webm-joined": films("webm", "libvpx-vp9", "libopus", 4, 5),
    "mp4-64-bits": in_64_bits,
    "mxf": film("mxf", "mpeg2video", "pcm_s16le", fps=25),
    "mkv-joined": films("mkv", "mpeg4", "flac", 4, 5),
    "avi-joined": films("avi", "mpeg4", "libmp3lame", 4, 5),
    "ts-wraps": film("ts", "mpeg2video", "mp2", options={"output_ts_offset": f"{WRAP - 4:.3f}"}),
    "ts-wraps-soon": film("ts", "libx264", "aac", options={"output_ts_offset": f"{WRAP - 1.5:.3f}"}),
    "mpg-wraps": film("mpg", "mpeg2video", "mp2", options={"output_ts_offset": f"{WRAP - 4:.3f}"}),
    "sound-in-time-of-day": two_clocks(36_000, 0),
    "picture-in-time-of-day": two_clocks(0, 36_000),
    "both-in-time-of-day": two_clocks(36_000, 36_000),
    "ordered-chapters": two_clocks(0, 0, ordered_chapters()),  # FFmpeg's players pass over the order, too
    "mp4-edited": edited("mp4"),
    "mov-edited": edited("mov"),
    "mp4-fragments-edited": film("mp4", "libx264", "aac", options={"movflags": "frag_keyframe+delay_moov"}),
    "mp4-uneven-frames": film("mp4", "libx264", "aac", times=UNEVEN),
    "mkv-uneven-frames": film("mkv", "libx264", "aac", times=UNEVEN),
    "mp4-interlaced": film(
        "mp4", "libx264", "aac", video_options={"x264-params": "log-level=none:tff=1:interlaced=1"}
    ),
    "mpg-interlaced": film("mpg", "mpeg2video", "mp2", fps=25, video_options=INTERLACED),
    "ts-interlaced": film("ts", "mpeg2video", "mp2", fps=25, video_options=INTERLACED),
    "3gp-amr": lambda folder: part(
        folder / "a.3gp", 0, SOUND, "mpeg4", "libopencore_amrnb", 8000, "mono", LOUDEST
    ),
}


# Tracks -------------------------------------------------------------------------------------------------------------

TRACK_RATE = 48_000
Track = tuple[float, str, int]  # Hz, 0: silence, -1: nothing at all; language; flags of `Disposition`


def with_tracks(path: Path, *tracks: Track) -> Path:
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
