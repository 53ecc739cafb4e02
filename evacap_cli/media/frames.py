"""Reads the frames shown at given times, upright, from any video file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from evacap_cli.errors import MediaError
from evacap_cli.media.container import Media, one_line, open_media
from evacap_cli.media.decord_reader import opens_only_itself, read_with_decord
from evacap_cli.media.pyav_reader import Cursor, read_with_pyav, shown_shape, shown_size

READERS = ("decord", "pyav")
LONGEST_FOR_DECORD = 600.0  # seconds
LARGEST_FOR_DECORD = 3840 * 2160  # pixels
MAX_DECORD_FRAMES = 1_000_000  # frames that the file claims: decord allocates memory for them


def read_frames(
    path: str | Path,
    times: Sequence[float],
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    readers: Sequence[str] = READERS,
    track: str | None = None,
) -> list[np.ndarray]:
    """Reads the frame shown at each of `times`: RGB uint8 (H, W, 3), upright, square pixels; or its `transform`.

    `times`: seconds from the start of the earlier of sound and picture, in any order. The frame shown is the last one
    whose timestamp is not later; before the first frame, the first. `transform` is applied as frames are decoded, so
    only a few full-size frames are held; a frame shown at several times is transformed once. `readers` are tried in
    order. `track`: the audio track, see `open_media`. Raises MediaError if there is no picture, or, if all readers
    fail, with the message of each.
    """
    if unknown := set(readers) - set(READERS):
        raise ValueError(f"no such reader: {', '.join(sorted(unknown))}; there are {', '.join(READERS)}")
    order = sorted(range(len(times)), key=lambda i: times[i])
    rising = [float(times[i]) for i in order]
    errors = []
    with open_media(path, track) as media:
        if media.video is None:
            raise MediaError("no picture")
        if not rising:
            return []
        media.use_only(media.video)
        cursor = _cursor(media)
        for reader in readers:
            shown: list[np.ndarray] = []
            frames = _read(reader, media, cursor, rising)
            while len(shown) < len(rising):
                try:
                    count, frame = next(frames)
                except Exception as error:  # decord's own errors have no common base
                    errors.append(f"{reader}: {one_line(error)}")
                    break
                shown += [frame if transform is None else transform(frame)] * count
            else:
                by_time = dict(zip(order, shown, strict=True))
                return [by_time[i] for i in range(len(times))]
    raise MediaError("the picture cannot be decoded: " + "; ".join(errors), "convert it again")


def _cursor(media: Media) -> Cursor | RuntimeError:
    try:
        return Cursor(media)
    except RuntimeError as error:
        return error


def _read(
    reader: str, media: Media, cursor: Cursor | RuntimeError, times: Sequence[float]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (n, frame): the frame shown at the next n of the ascending `times`."""
    if reader == "decord":
        start = _trust_decord(media, cursor)
        first = start if isinstance(cursor, RuntimeError) else cursor.first_time
        yield from read_with_decord(media.path, times, start, first, _decord_size(media))
    else:
        if isinstance(cursor, RuntimeError):
            raise cursor
        yield from read_with_pyav(cursor, times)


def _decord_size(media: Media) -> tuple[int, int]:
    """Width and height to request from decord; -1 is the coded size."""
    assert media.video is not None
    shape, codec = shown_shape(media.video), media.video.codec_context
    return (-1, -1) if shape == 1 or codec is None else shown_size(codec.width, codec.height, shape)


def _trust_decord(media: Media, cursor: Cursor | RuntimeError) -> float:
    """Returns the start of the picture track in seconds. Raises RuntimeError in cases where decord is known to fail.

    Observed with decord2 3.4: it applies rotations of 180 degrees, but not of 90; it counts frames that are decoded
    and not shown; it reads a whole file before it returns the first frame; it keeps several full-size frames.
    """
    stream = media.video
    assert stream is not None
    if not opens_only_itself(media.path):
        raise RuntimeError("not used, the file does not start like a container that holds its own pictures")
    if len(media.container.streams.video) > 1:
        raise RuntimeError("not used, the file has several picture tracks")
    if media.clock.restarts:
        raise RuntimeError("not used, the timestamps of the file restart")
    stated = media.container.duration or 0  # decord relies on it, even if it is wrong
    if not 0 < stated / 1e6 <= LONGEST_FOR_DECORD:
        raise RuntimeError("not used, the length of the file is unknown or large")
    if stream.frames > MAX_DECORD_FRAMES:
        raise RuntimeError(f"not used, the file claims {stream.frames} frames")
    if stream.codec_context and stream.codec_context.width * stream.codec_context.height > LARGEST_FOR_DECORD:
        raise RuntimeError("not used, the picture is large")
    if stream.start_time is None or stream.time_base is None:
        raise RuntimeError("not used, the start of the picture is unknown")
    if any(entry.is_discard for entry in stream.index_entries):
        raise RuntimeError("not used, the file has hidden frames")
    if isinstance(cursor, Cursor) and not cursor.upright:
        raise RuntimeError("not used, the picture is rotated or mirrored")
    return float(stream.start_time * stream.time_base) - media.clock.zero(stream)
