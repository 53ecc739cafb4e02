"""The frames of segments that follow each other, in one pass over the picture."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from av.video.frame import VideoFrame

from evacap_cli.media.container import Media, one_line
from evacap_cli.media.pyav_reader import Cursor, upright

Transform = Callable[[np.ndarray], np.ndarray]


@dataclass
class _Segment:
    times: Sequence[float]
    frames: list[np.ndarray] = field(default_factory=list)
    error: str = ""


def follow_frames(
    media: Media, segments: Iterable[Sequence[float] | None], transform: Transform
) -> Iterator[list[np.ndarray] | str | None]:
    """For each of the `segments`, which are rising times in seconds, what `transform` makes of the frames shown then,
    as `read_frames` with PyAV gives them; or, in one line, why there are none.

    Segments may overlap, but neither begin nor end before the one before them; each is taken when the one before needs
    to know where it begins. None among them is handed through. A segment that begins when the picture is over has no
    frames. Memory: the frames of the segments that overlap.
    """
    looker = _Looker(media, transform)
    waiting: deque[_Segment] = deque()
    for times in segments:
        if times is None:
            yield None
            continue
        waiting.append(_Segment(times))
        while len(waiting) > 1 and waiting[0].times[-1] < times[0]:
            yield looker.look(waiting)
    while waiting:
        yield looker.look(waiting)


class _Looker:
    def __init__(self, media: Media, transform: Transform) -> None:
        self.transform = transform
        self.error = ""
        self._shown: tuple[VideoFrame, np.ndarray] | None = None
        try:
            media.use_only(media.video)  # type: ignore[arg-type]
            self.cursor = Cursor(media)
        except Exception as error:  # whatever it is: all of it can still be heard
            self.error = _undecodable(error)

    def look(self, waiting: deque[_Segment]) -> list[np.ndarray] | str:
        """Takes out the first segment; the others see what is shown until it ends."""
        until = waiting[0].times[-1]
        looks = [
            (time, segment)
            for segment in waiting
            for time in segment.times[len(segment.frames) :]
            if time <= until and not (self.error or segment.error)
        ]
        for time, segment in sorted(looks, key=lambda look: look[0]):
            self._add(time, segment)
        first = waiting.popleft()
        return self.error or first.error or first.frames

    def _add(self, time: float, segment: _Segment) -> None:
        if segment.error:
            return
        try:
            frame = self.cursor.shown_at(time)
            if not segment.frames and self.cursor.is_over(time):
                segment.error = f"the picture ends at {self.cursor.end:.2f} s"
                return
            if self._shown is None or self._shown[0] is not frame:
                self._shown = frame, self.transform(upright(frame, self.cursor.shape))
            segment.frames.append(self._shown[1])
        except Exception as error:  # whatever it is: the segment can still be heard
            segment.error = _undecodable(error)


def _undecodable(error: BaseException) -> str:
    return f"the picture cannot be decoded: pyav: {one_line(error)}"
