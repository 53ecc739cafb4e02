"""Small copies of clips that a page can play: WebM with VP8 and Opus, which all browsers support."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np

from evacap_cli.errors import MediaError
from evacap_cli.media import SAMPLE_RATE, probe, read_audio, read_frames

HEIGHT, RATE = 160, 6  # pixels, and frames per second
PICTURE_BITS, SOUND_BITS = 120_000, 32_000  # per second
OPUS_RATE = 48_000  # Hz


def small_copy(path: str, start: float, end: float) -> bytes:
    """A part of a file as WebM, with a picture if one can be decoded. Raises MediaError."""
    wave = read_audio(path, start, end)
    end = start + len(wave) / SAMPLE_RATE
    frames: list[np.ndarray] = []
    if probe(path).has_video:
        try:
            times = [start + (i + 0.5) / RATE for i in range(max(1, int((end - start) * RATE)))]
            frames = list(read_frames(path, times, _shrink))
        except Exception:  # the copy then contains only the sound
            frames = []
    return _encode(wave, frames)


def _shrink(frame: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3), at most `HEIGHT` pixels high, with even sides."""
    from PIL import Image

    height, width = frame.shape[:2]
    scale = min(1.0, HEIGHT / height)
    size = tuple(max(2, round(side * scale / 2) * 2) for side in (width, height))
    return np.asarray(Image.fromarray(np.asarray(frame)).resize((size[0], size[1])))


def _encode(wave: np.ndarray, frames: list[np.ndarray]) -> bytes:
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="webm") as out:
            sound = out.add_stream("libopus", rate=OPUS_RATE, layout="mono")
            sound.bit_rate = SOUND_BITS
            picture = None
            if frames:
                picture = out.add_stream("libvpx", rate=RATE)
                picture.height, picture.width = frames[0].shape[:2]
                picture.pix_fmt = "yuv420p"
                picture.bit_rate = PICTURE_BITS
                picture.options = {"deadline": "realtime", "cpu-used": "8"}
                for number, pixels in enumerate(frames):
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    frame.pts, frame.time_base = number, Fraction(1, RATE)
                    out.mux(picture.encode(frame))
                out.mux(picture.encode(None))
            samples = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(wave[None], np.float32), format="flt", layout="mono"
            )
            samples.sample_rate, samples.pts = SAMPLE_RATE, 0
            resampler = av.AudioResampler(format="flt", layout="mono", rate=OPUS_RATE)
            for piece in (*resampler.resample(samples), *resampler.resample(None)):
                out.mux(sound.encode(piece))
            out.mux(sound.encode(None))
    except av.FFmpegError as error:
        raise MediaError(f"no copy could be made: {error}") from error
    return file.getvalue()
