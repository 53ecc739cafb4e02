"""Reads frames with PyAV: by timestamp, upright, with seeks over long distances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from evacap_cli.media.container import LARGEST_PICTURE, READ_ERRORS, Media, one_line

MIN_SEEK = 3.0  # seconds: over longer distances, seek instead of decoding every frame
STEPS_BACK = (0.0, 2.0, 10.0, 60.0)  # seconds before the target to try in turn if a seek lands after it
UPRIGHT = (1, 0, 0, 1)
MAX_PIXEL_RATIO = 4  # largest accepted ratio of a pixel's sides
TIME_TOLERANCE = 1e-5  # seconds: equal times differ by less


class Cursor:
    """Moves forward through the picture track of an open file and returns the frame shown at a time.

    Holds two decoded frames: the current one and the next. Decodes on one thread, because many files are read in
    parallel. Raises RuntimeError if nothing can be decoded.
    """

    def __init__(self, media: Media) -> None:
        assert media.video is not None
        self.media, self.stream = media, media.video
        self.zero = media.clock.zero(media.video)
        if self.stream.codec_context is None:
            raise RuntimeError("no decoder for it")
        width, height = self.stream.codec_context.width, self.stream.codec_context.height
        if width * height > LARGEST_PICTURE:
            raise RuntimeError(f"{width} x {height} pixels are more than can be decoded")
        self.stream.codec_context.thread_count = 1
        self.leap = MIN_SEEK
        self.error: Exception | None = None
        self.frames = self._decode()
        self.now: tuple[float, VideoFrame] | None = None
        self.next = next(self.frames, None)
        if self.next is None:
            raise RuntimeError(one_line(self.error) if self.error else "it has no frames")
        self.first_time, first = self.next
        self.shape = shown_shape(self.stream)
        self.upright = _orientation(first) == UPRIGHT

    def shown_at(self, time: float) -> VideoFrame:
        """Returns the last frame at or before `time`, or the first frame; `time` must not decrease between calls."""
        if self.media.seekable and self.next is not None and time - self.next[0] > self.leap:
            self._seek(time)
        while self.next is not None and (self.now is None or self.next[0] <= time + TIME_TOLERANCE):
            self.now, self.next = self.next, next(self.frames, None)
        assert self.now is not None
        return self.now[1]

    @property
    def end(self) -> float:
        """End of the current frame in seconds: after its duration, or one frame interval if that is not stated."""
        assert self.now is not None
        time, frame = self.now
        stays = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        return time + max(stays, 1 / float(self.stream.average_rate or 25))

    def is_over(self, time: float) -> bool:
        """Whether the picture has ended by `time`, the time of the last `shown_at`."""
        if self.next is not None or self.now is None or time <= self.end:
            return False
        if self.error is not None:
            return True
        if self.now[0] == self.first_time:
            return False  # one picture for the whole sound
        start, duration, base = self.stream.start_time or 0, self.stream.duration, self.stream.time_base
        return duration is None or base is None or time > float((start + duration) * base) - self.zero

    def _seek(self, time: float) -> None:
        """Continues from a key frame before `time`; moves only forward, unless the file's index is wrong."""
        assert self.next is not None
        reached = self.next[0]
        for back in STEPS_BACK:
            with suppress(*READ_ERRORS):
                self.media.seek(self.stream, time - back)
                self.frames = self._decode()
                landed = next(self.frames, None)
                if landed is not None and landed[0] <= time:
                    break
        else:
            self.media.rewind()
            self.frames = self._decode()
            landed = next(self.frames, None)
        if landed is None:  # a file that cannot be rewound ends here
            return
        if landed[0] <= reached:
            self.leap *= 4  # key frames are far apart: the seek saved nothing
        self.next = landed

    def _decode(self) -> Iterator[tuple[float, VideoFrame]]:
        """Yields (seconds, frame) in display order; skips damaged packets."""
        tick = 1 / float(self.stream.average_rate or 25)
        time = -tick
        for frame in self._frames():
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is not None and frame.time_base is not None:
                time = stamp * float(frame.time_base) - self.zero
            else:
                time += tick
            yield time, frame

    def _frames(self) -> Iterator[VideoFrame]:
        for packet in self.media.packets(self.stream):
            try:
                frames = packet.decode()
            except READ_ERRORS as error:
                self.error = error
                continue
            if frames:
                self.error = None
            yield from frames
        with suppress(*READ_ERRORS):  # flush the decoder after a truncated file
            yield from self.stream.codec_context.decode(None)


def read_with_pyav(cursor: Cursor, times: Sequence[float]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (n, frame): the upright frame, (H, W, 3) uint8, shown at the next n of the ascending `times`."""
    count, shown = 0, None
    for time in times:
        frame = cursor.shown_at(time)
        if shown is not None and frame is not shown:
            yield count, upright(shown, cursor.shape)
            count = 0
        count, shown = count + 1, frame
    if shown is not None:
        yield count, upright(shown, cursor.shape)


def shown_shape(stream: VideoStream) -> Fraction:
    """Returns the displayed width over height of a pixel of the coded picture, before rotation.

    1 if it is not stated or implausible (real values: DVD 8:9 to 16:11, HDV 4:3, half-width pictures 2 to 3).
    """
    ratio = stream.sample_aspect_ratio
    return ratio if ratio and 1 / MAX_PIXEL_RATIO <= ratio <= MAX_PIXEL_RATIO else Fraction(1)


def shown_size(width: int, height: int, shape: Fraction) -> tuple[int, int]:
    """Width and height with square pixels: enlarges one side, as players do, or reduces the other if the picture would
    exceed `LARGEST_PICTURE`."""
    if (shape > 1) == (width * height * max(shape, 1 / shape) <= LARGEST_PICTURE):
        return max(1, round(width * shape)), height
    return width, max(1, round(height / shape))


def _orientation(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Signs of the upper left 2 x 2 of the display matrix, rows (a, b) and (c, d): x' = a x + c y, y' = b x + d y."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()  # type: ignore[call-overload]
    if abs(b) > abs(a):
        return 0, (b > 0) - (b < 0), (c > 0) - (c < 0), 0
    return (a >= 0) - (a < 0), 0, 0, (d >= 0) - (d < 0)


def upright(frame: VideoFrame, shape: Fraction) -> np.ndarray:
    """(H, W, 3) uint8 with square pixels, rotated and mirrored by the file's display matrix.

    `shape`: width over height of the coded pixels.
    """
    width, height = shown_size(frame.width, frame.height, shape)
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    a, b, c, d = _orientation(frame)
    if b and c:
        pixels = pixels.transpose(1, 0, 2)
    if a + c < 0:
        pixels = pixels[:, ::-1]
    if b + d < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
