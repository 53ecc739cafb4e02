"""PyAV as a reader of frames: by timestamps, upright, and by seeking where the next look is far away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from evacap_cli.media.container import LARGEST_PICTURE, READ_ERRORS, Media, one_line

LEAP = 3.0  # seconds ahead from which on seeking is tried instead of decoding all in between
STEPS_BACK = (0.0, 2.0, 10.0, 60.0)  # seconds before the goal at which to try when a seek lands after it
UPRIGHT = (1, 0, 0, 1)
WIDEST_PIXEL = 4  # times as wide as high, or as high as wide; others are not believed
CLOSE = 1e-5  # seconds: what is meant to be equal differs by less


class Cursor:
    """Moves forward through the picture track of an open file and knows which frame is shown.

    Holds two decoded frames: the one shown and the one after it. Decodes on one thread: many files are read
    side by side. Raises RuntimeError when nothing can be decoded.
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
        self.leap = LEAP
        self.error: Exception | None = None
        self.frames = self._decode()
        self.now: tuple[float, VideoFrame] | None = None
        self.next = next(self.frames, None)
        if self.next is None:
            raise RuntimeError(one_line(self.error) if self.error else "there is no frame in it")
        self.first_time, first = self.next
        self.shape = shown_shape(self.stream)
        self.upright = _orientation(first) == UPRIGHT

    def shown_at(self, time: float) -> VideoFrame:
        """The last frame at or before `time`, or the first of all; `time` must not be before that of the
        last call.
        """
        if self.media.seekable and self.next is not None and time - self.next[0] > self.leap:
            self._seek(time)
        while self.next is not None and (self.now is None or self.next[0] <= time + CLOSE):
            self.now, self.next = self.next, next(self.frames, None)
        assert self.now is not None
        return self.now[1]

    @property
    def end(self) -> float:
        """Where the last frame that was seen ends, in seconds: after its own time or, if it does not say, one tick."""
        assert self.now is not None
        time, frame = self.now
        stays = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        return time + max(stays, 1 / float(self.stream.average_rate or 25))

    def is_over(self, time: float) -> bool:
        """Whether nothing is shown at `time`, that of the last call, any more: the frame before was not to stay."""
        if self.next is not None or self.now is None or time <= self.end:
            return False
        if self.error is not None:
            return True
        if self.now[0] == self.first_time:
            return False  # one picture for all of the sound
        start, duration, base = self.stream.start_time or 0, self.stream.duration, self.stream.time_base
        return duration is None or base is None or time > float((start + duration) * base) - self.zero

    def _seek(self, time: float) -> None:
        """Goes on from a key frame before `time`; forward only, unless the file's index is wrong."""
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
        if landed is None:  # a file that can be read once only ends here
            return
        if landed[0] <= reached:
            self.leap *= 4  # key frames are far apart: seeking gained nothing
        self.next = landed

    def _decode(self) -> Iterator[tuple[float, VideoFrame]]:
        """(seconds, frame) in order of display; damaged packets are passed over."""
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
        with suppress(*READ_ERRORS):  # what the decoder still holds where the file broke off
            yield from self.stream.codec_context.decode(None)


def read_with_pyav(cursor: Cursor, times: Sequence[float]) -> Iterator[tuple[int, np.ndarray]]:
    """(n, frame): the frame, (H, W, 3) uint8 and upright, that is shown at the next n of the rising
    `times`.
    """
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
    """Width over height of a pixel as a player shows it, of the coded picture before it is turned.

    1 where the file does not say, or says what no camera has (DVD 8:9 to 16:11, HDV 4:3, half-width pictures 2 to 3).
    """
    ratio = stream.sample_aspect_ratio
    return ratio if ratio and 1 / WIDEST_PIXEL <= ratio <= WIDEST_PIXEL else Fraction(1)


def shown_size(width: int, height: int, shape: Fraction) -> tuple[int, int]:
    """Width and height with square pixels: the picture is made larger, as players do it; smaller where it would exceed
    `LARGEST_PICTURE`."""
    if (shape > 1) == (width * height * max(shape, 1 / shape) <= LARGEST_PICTURE):
        return max(1, round(width * shape)), height
    return width, max(1, round(height / shape))


def _orientation(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Signs of the display matrix' upper left 2 x 2, rows (a, b) and (c, d): x' = a x + c y, y' = b x + d
    y.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()  # type: ignore[call-overload]
    if abs(b) > abs(a):
        return 0, (b > 0) - (b < 0), (c > 0) - (c < 0), 0
    return (a >= 0) - (a < 0), 0, 0, (d >= 0) - (d < 0)


def upright(frame: VideoFrame, shape: Fraction) -> np.ndarray:
    """(H, W, 3) uint8, with square pixels, turned and mirrored as the file says it is to be shown.

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
