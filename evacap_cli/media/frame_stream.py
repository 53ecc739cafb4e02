"""Reads the frames of consecutive segments in one pass over the picture."""

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
    """For each segment (ascending times in seconds), yields the transformed frames shown at these times, as
    `read_frames` with PyAV returns them; or a one-line error.

    Segments may overlap, but must not start or end before the previous one; each is requested as late as possible. A
    None among them is passed through. A segment that starts after the end of the picture has no frames. Holds the
    frames of overlapping segments.
    """
    collector = _FrameCollector(media, transform)
    waiting: deque[_Segment] = deque()
    for times in segments:
        if times is None:
            yield None
            continue
        waiting.append(_Segment(times))
        while len(waiting) > 1 and waiting[0].times[-1] < times[0]:
            yield collector.look(waiting)
    while waiting:
        yield collector.look(waiting)


class _FrameCollector:
    def __init__(self, media: Media, transform: Transform) -> None:
        self.transform = transform
        self.error = ""
        self._shown: tuple[VideoFrame, np.ndarray] | None = None
        try:
            media.use_only(media.video)  # type: ignore[arg-type]
            self.cursor = Cursor(media)
        except Exception as error:  # the sound can still be captioned
            self.error = _undecodable(error)

    def look(self, waiting: deque[_Segment]) -> list[np.ndarray] | str:
        """Removes and completes the first segment; adds the frames shown until its end to the others."""
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
        except Exception as error:  # the sound of the segment can still be captioned
            segment.error = _undecodable(error)


def _undecodable(error: BaseException) -> str:
    return f"the picture cannot be decoded: pyav: {one_line(error)}"
