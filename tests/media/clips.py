"""Small media files whose pictures and sounds say what time it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.frame import Frame
from av.stream import Disposition, Stream

STEP = 0.25  # seconds for which the tone keeps its pitch
SOUND_OPTIONS = {
    "vorbis": {"strict": "-2"},  # FFmpeg's own encoder counts as an experiment
    "libopus": {"mapping_family": "255"},  # any number of channels, without names
}
FAST = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libsvtav1": {"preset": "11"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
COUNTING = ("mpeg1video", "mpeg2video", "mpeg4", "flv", "wmv2", "gif")
# AVI counts frames, the clock of MPEG-4 has 16 bits, and others know a few rates only
TICKS = 90_000  # of the picture's clock, a second
DARK, SLOPE = 20, 55  # greys: that of 0 s, and how much lighter a second later is
TOP, BOTTOM = 220, 30  # left half: this grey on top of that one (says which way is up); right half: the time


def picture(t: float, width: int = 64, height: int = 48) -> np.ndarray:
    """(H, W, 3) uint8; the grey of the right half says the time, 0 to 4 s."""
    frame = np.empty((height, width, 3), dtype=np.uint8)
    frame[: height // 2, : width // 2] = TOP
    frame[height // 2 :, : width // 2] = BOTTOM
    frame[:, width // 2 :] = round(DARK + SLOPE * t)
    return frame


def time_shown(frame: np.ndarray) -> float:
    """What `picture` says, read back from the middle of its right half; good to about 0.05 s."""
    height, width, _ = frame.shape
    patch = frame[height // 4 : -(height // 4) or None, width * 5 // 8 : width * 7 // 8]
    return (float(patch.mean()) - DARK) / SLOPE


def pitch(t: float) -> float:
    """The tone at time t, in Hz."""
    return 400.0 + 200.0 * int(t / STEP + 1e-6)


def tone(seconds: float, rate: int, channels: int = 1, start: float = 0.0) -> np.ndarray:
    """(channels, S) float64 in [-0.5, 0.5]: the tone that `pitch` names."""
    t = start + np.arange(round(seconds * rate)) / rate
    hertz = 400.0 + 200.0 * np.floor(t / STEP + 1e-6)
    return np.repeat(0.5 * np.sin(2 * np.pi * hertz * (t % STEP))[None], channels, axis=0)


def heard(samples: np.ndarray, rate: int = 16_000) -> float:
    """The strongest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate / len(samples)


def packed(wave: np.ndarray, name: str) -> np.ndarray:
    """(C, S) in [-1, 1] as (1, S * C) numbers of a packed FFmpeg sample format."""
    if name == "u8":
        out = np.round(wave * 127 + 128).astype(np.uint8)
    elif name in ("s16", "s32"):
        top = {"s16": 2**15, "s32": 2**31}[name]
        out = np.round(wave * (top - 1)).astype({"s16": np.int16, "s32": np.int32}[name])
    else:
        out = wave.astype({"flt": np.float32, "dbl": np.float64}[name])
    return np.ascontiguousarray(out.T).reshape(1, -1)


def write(
    path: Path,
    seconds: float = 2.0,
    *,
    video: str | None = "libx264",
    audio: str | None = "aac",
    times: Sequence[float] | None = None,
    fps: float = 10.0,
    size: tuple[int, int] = (64, 48),
    draw: Callable[[float, int, int], np.ndarray] = picture,
    pixels: str = "yuv420p",
    gop: int = 5,
    video_options: dict[str, str] | None = None,
    matrix: Sequence[int] | None = None,
    pixel: Fraction | None = None,
    rate: int = 44_100,
    layout: str = "stereo",
    samples: str | None = None,
    wave: np.ndarray | None = None,
    audio_start: float = 0.0,
    gap: tuple[float, float] = (0.0, 0.0),
    options: dict[str, str] | None = None,
    cover: bool = False,
) -> Path:
    """Pictures at `times` (or `fps`) and, but for the `gap`, the tone (or `wave`) from `audio_start` on."""
    with av.open(str(path), "w", options=options or {}) as out:
        events: list[tuple[float, Stream, Frame]] = []
        if video:
            pictures = _picture_track(out, video, fps, size, pixels, gop, video_options or {}, matrix)
            if pixel is not None:  # width over height of one
                pictures.codec_context.sample_aspect_ratio = pixel
            tick = pictures.codec_context.time_base
            for t in times if times is not None else [i / fps for i in range(round(seconds * fps))]:
                frame = av.VideoFrame.from_ndarray(draw(t, *size), format="rgb24")
                frame.time_base, frame.pts = tick, round(t / tick)
                events.append((t, pictures, frame))
        if audio:
            sound = out.add_stream(audio, rate=rate, layout=layout, options=SOUND_OPTIONS.get(audio, {}))
            if samples:
                sound.codec_context.format = samples
            if wave is None:
                wave = tone(seconds - audio_start, rate, sound.codec_context.layout.nb_channels, audio_start)
            for t, frame in _sound_frames(sound, wave, rate, audio_start):
                if not gap[0] <= t < gap[1]:
                    events.append((t, sound, frame))
        if cover:
            image = out.add_stream("mjpeg", rate=1)
            image.width, image.height, image.pix_fmt = *size, "yuvj420p"
            image.disposition = Disposition.attached_pic
            events.insert(0, (-1.0, image, av.VideoFrame.from_ndarray(draw(0, *size), format="rgb24")))
        for _, stream, frame in sorted(events, key=lambda event: event[0]):
            out.mux(stream.encode(frame))
        for stream in out.streams:
            out.mux(stream.encode())
    return path


def _picture_track(out, codec, fps, size, pixels, gop, options, matrix):  # type: ignore[no-untyped-def]
    rate = Fraction(fps).limit_denominator(1001)
    stream = out.add_stream(codec, rate=rate, options=FAST.get(codec, {}) | options)
    stream.width, stream.height, stream.pix_fmt = *size, pixels
    stream.codec_context.gop_size = gop
    stream.codec_context.bit_rate = 0 if codec.startswith("lib") else 4_000_000
    stream.codec_context.time_base = 1 / rate if codec in COUNTING else Fraction(1, TICKS)
    if matrix is not None:
        stream.set_display_matrix(matrix)
    return stream


def _sound_frames(stream, wave, rate, start):  # type: ignore[no-untyped-def]
    context = stream.codec_context
    context.open(strict=False)
    size = context.frame_size or 1024
    for first in range(0, wave.shape[1], size):
        kind = context.format.packed.name  # PyAV makes planes of it where the encoder wants them
        block = packed(wave[:, first : first + size], kind)
        frame = av.AudioFrame.from_ndarray(block, format=kind, layout=context.layout.name)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(start * rate) + first
        yield start + first / rate, frame
