"""Reads the clips of an input: the whole input, or its segments. Runs in worker processes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evacap_cli.errors import MediaError, UsageError
from evacap_cli.features import crop_frame, frame_times
from evacap_cli.features.settings import WINDOW_SECONDS
from evacap_cli.media import (
    MAX_PADDING,
    READERS,
    SAMPLE_RATE,
    Media,
    SoundPass,
    follow_frames,
    open_media,
    open_media_twice,
)
from evacap_cli.tasks.captioning.inputs.local_files import local_file, sound_file
from evacap_cli.tasks.clips import (
    SAFE_READERS,
    Clip,
    ClipSettings,
    compute_fbank,
    is_silent,
    load_clip,
    silence_error,
    too_short_error,
    use_one_thread,
)

if TYPE_CHECKING:  # keeps workers from importing the code that finds inputs
    from evacap_cli.tasks.captioning.inputs.sources import Source

MIN_NEW_SHARE = 0.1  # share of a segment that must be new in the last, shorter one
WORKER_LOST = "a decoder crashed on its frames: captioned from its audio only"


def check_segments(settings: ClipSettings) -> None:
    """Raises UsageError if segments are longer than the model's audio input."""
    most = settings.features.seconds
    if settings.segment is not None and settings.segment > most:
        raise UsageError(
            f"--segment {settings.segment:g}: the model takes at most {most:g} s", f"give at most {most:g}"
        )


def read_source(
    source: Source, settings: ClipSettings, readers: Sequence[str] = READERS
) -> Clip | Iterator[Clip | None]:
    """Returns the clip of an input or, with `settings.segment`, an iterator over its clips. The iterator gives None for
    progress without a clip. Raises MediaError.
    """
    if settings.segment is not None:
        return read_segments(source, settings)
    with local_file(source) as path, sound_file(source, path, settings.audio_track) as sound:
        return load_clip(path, settings, readers, source.start, source.end, sound=sound)


def read_source_carefully(source: Source, settings: ClipSettings) -> Clip | Iterator[Clip | None]:
    """Reads an input on which a worker crashed: without decord or, in segments, without pictures."""
    if settings.segment is None:
        return read_source(source, settings, SAFE_READERS)
    return read_segments(source, replace(settings, frames=0), "" if settings.frames == 0 else WORKER_LOST)


def read_segments(source: Source, settings: ClipSettings, unseen: str = "") -> Iterator[Clip | None]:
    """Reads the segments of a recording in one pass over audio and video, each as `load_clip` reads that part.

    Segments start every `hop` seconds from the source's start, on the file's clock, rounded to 0.001 s, until the audio
    ends. The last one may be shorter; it is kept if at least a tenth of a segment and 25 ms of it are new. Segments
    without audio (gaps; silence, unless `settings.silence`) and those below `min_rms` give None. `unseen`: the reason
    for missing pictures if `settings.frames` is 0. Holds a few segments in memory. Raises MediaError if there is no
    clip.
    """
    use_one_thread()
    features, count = settings.features, settings.frames
    crop = partial(_crop, size=features.image_size)
    with (
        local_file(source) as path,
        sound_file(source, path, settings.audio_track) as sound,
        _open_media(path, sound, settings.audio_track) as (media, pictures),
    ):
        segments = _read_segments(media, source, settings)
        if pictures.video is None or count == 0:
            for segment in segments:
                if segment is not None:
                    error = unseen if pictures.video else ""
                    yield Clip(segment.fbank, None, segment.start, segment.end, error, segment.note)
                else:
                    yield None
            return

        waiting: deque[_Segment] = deque()

        def times() -> Iterator[Sequence[float] | None]:
            for segment in segments:
                if segment is None:
                    yield None
                else:
                    waiting.append(segment)
                    yield [
                        segment.start + t for t in frame_times(segment.end - segment.start, features, count)
                    ]

        for seen in follow_frames(pictures, times(), crop):
            if seen is None:
                yield None
                continue
            segment = waiting.popleft()
            frames, error = (None, seen) if isinstance(seen, str) else (np.stack(seen), "")
            yield Clip(segment.fbank, frames, segment.start, segment.end, error, segment.note)


@contextmanager
def _open_media(path: Path, sound: Path | None, track: str | None) -> Iterator[tuple[Media, Media]]:
    """Opens a file for its sound and for its picture, or, with `sound`, two files. Raises MediaError."""
    with ExitStack() as opened:
        if sound is None:
            yield opened.enter_context(open_media_twice(path, track))
            return
        media = opened.enter_context(open_media(sound, track))
        try:
            pictures = opened.enter_context(open_media(path))
        except MediaError:  # captioned from its sound
            pictures = media
        yield media, pictures


@dataclass(frozen=True)
class _Segment:
    fbank: np.ndarray
    start: float
    end: float
    note: str


def _read_segments(media: Media, source: Source, settings: ClipSettings) -> Iterator[_Segment | None]:
    """Yields the audio of each segment, None for segments that are left out."""
    assert settings.segment is not None
    length, hop = settings.segment, settings.hop or settings.segment
    begin = max(0.0, source.start or 0.0)
    limit = math.inf if source.end is None else source.end
    sound = SoundPass(media, begin)
    number, reached = 0, begin
    made = quiet = most = 0
    while (start := round(begin + number * hop, 3)) < limit:
        wave = sound.read(start, min(start + length, limit))
        if sound.end is not None:
            limit = min(limit, _without_padding(sound.end, media.heard))
        end = round(min(start + length, limit), 3)
        wave = wave[: max(0, round((end - start) * SAMPLE_RATE))]
        number, most = number + 1, max(most, len(wave))
        if len(wave) < WINDOW_SECONDS * SAMPLE_RATE:
            number = max(number, int((sound.resumes(end) - length - begin) / hop))
            yield None
        elif made + quiet and _too_little(end - max(start, reached), end - start, length):
            yield None
        elif _left_out(wave, settings):
            quiet += 1
            yield None
        else:
            made += 1
            yield _Segment(
                compute_fbank(wave, settings.features), start, end, media.note if made == 1 else ""
            )
        reached = max(reached, end)
        if sound.end is not None and start + length >= limit:
            break
    if not made:
        raise _nothing_heard(source, settings, most, quiet, limit)


def _left_out(wave: np.ndarray, settings: ClipSettings) -> bool:
    """Whether a segment is silent or too quiet."""
    if not settings.silence and is_silent(wave):
        return True
    return settings.min_rms is not None and _level(wave) < settings.min_rms


def _too_little(new: float, seconds: float, length: float) -> bool:
    """Whether a segment is shorter than the others and hardly anything in it is new."""
    return seconds < length - 1e-3 and new < max(WINDOW_SECONDS, MIN_NEW_SHARE * length)


def _nothing_heard(source: Source, settings: ClipSettings, most: int, quiet: int, limit: float) -> MediaError:
    """Returns the error for a recording without clips. most: samples of its longest segment."""
    start = source.start or 0.0
    if quiet and settings.min_rms is None:
        return silence_error(start, math.inf if source.end is None else limit)
    if quiet:
        return MediaError(
            f"nothing in it is louder than {settings.min_rms:g} dBFS", "lower --min-rms, or omit it"
        )
    if source.end is not None and source.end <= start:
        return MediaError(f"the part from {start:g} to {source.end:g} s is empty")
    if limit <= start:
        return MediaError(f"the part from {start:g} s on is not in it: it ends at {limit:.2f} s")
    return too_short_error(most)


def _without_padding(end: float, seconds: float | None) -> float:
    """Returns the end of the audio without the encoder's padding. seconds: the duration that the file states."""
    return seconds if seconds is not None and 0 < end - seconds < MAX_PADDING else end


def _level(wave: np.ndarray) -> float:
    """Returns the root mean square level in dBFS."""
    power = float(np.square(wave, dtype=np.float64).mean())
    return 10 * math.log10(power) if power > 0 else -math.inf


def _crop(frame: np.ndarray, size: int) -> np.ndarray:
    return crop_frame(frame, size).numpy()
