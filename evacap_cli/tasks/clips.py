"""One file to what a model takes: where media and features meet. Runs in worker processes."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from evacap_cli.errors import MediaError
from evacap_cli.features import FeatureSettings, crop_frame, fbank, frame_times
from evacap_cli.features.settings import WINDOW_SECONDS
from evacap_cli.media import (
    PADDING,
    READERS,
    SAMPLE_RATE,
    Survey,
    find_window,
    read_audio,
    read_frames,
    survey_file,
)

if TYPE_CHECKING:  # a worker needs nothing that reads manifests or, unless it prepares, stores
    from evacap_cli.data.manifest import Entry
    from evacap_cli.data.store import Sample

DITHER = 2.5 / 2**15
"""Peak, of full scale, up to which sound is silence (-82 dBFS): dither of 16 bits reaches 1 step, and up to 2.3 when it
was coded with losses or resampled."""
CAREFUL = ("pyav",)
"""Readers for files on which a worker was lost: without decord, which is known to crash and hang."""


@dataclass(frozen=True)
class ClipSettings:
    """How files become clips. `frames`: how many pictures, None for the features' own number, 0 for none.

    segment: seconds of each of the clips that a recording is cut into; None makes one clip of it, its `window`. hop:
    seconds from the start of one to that of the next, None for `segment`. min_rms: dBFS below which a segment is left
    out. audio_track: number, from 1 on, or language of the sound track that is heard; None for what a player takes.
    silence: whether what is silent, see `is_silent`, makes a clip, too; without it, silence is no sound: an error,
    or, in a recording that is cut into segments, a stretch that is left out.
    """

    features: FeatureSettings
    frames: int | None = None
    window: str = "loudest"
    segment: float | None = None
    hop: float | None = None
    min_rms: float | None = None
    audio_track: str | None = None
    silence: bool = True


@dataclass(frozen=True)
class Clip:
    """fbank: float32 (T, F), normalised. frames: uint8 (N, 3, S, S), None without a picture, and then `picture_error`
    says why (empty when the file has none). start and end in seconds. note: see `Media`."""

    fbank: np.ndarray
    frames: np.ndarray | None
    start: float
    end: float
    picture_error: str = ""
    note: str = ""


def load_clip(
    path: str | Path,
    settings: ClipSettings,
    readers: Sequence[str] = READERS,
    start: float | None = None,
    end: float | None = None,
    pictures: Sequence[Path] = (),
) -> Clip:
    """Decodes the part of a file that is captioned. Raises MediaError; a picture that cannot be read is no error.

    `start`, `end`: the part in seconds where it is known, of which the features' seconds from its start are taken.
    `pictures`: image files, in order, to look at instead of what the file shows.
    """
    stay_on_one_core()
    features, track = settings.features, settings.audio_track
    whole = start is None and end is None and settings.window == "loudest"
    seen = survey_file(path, track)
    if start is None and end is None:
        start, end = find_window(path, features.seconds, settings.window, track)
    else:
        start, end = _part(seen, start or 0.0, end, features.seconds)
    wave = read_audio(path, start, end, track)
    heard = hear(wave, features)
    if not settings.silence and is_silent(wave):
        raise no_sound() if whole else no_sound(start, end)
    end = _measured(end, start + len(wave) / SAMPLE_RATE)
    frames, error = None, ""
    if settings.frames != 0:
        try:
            if pictures:
                frames = _images(pictures, features, settings.frames)
            elif seen.video is not None:
                times = [start + t for t in frame_times(end - start, features, settings.frames)]
                crops = read_frames(
                    path, times, lambda frame: crop_frame(frame, features.image_size).numpy(), readers, track
                )
                frames = np.stack(crops)
        except Exception as reason:  # whatever it is: the clip can still be heard
            error = reason.message if isinstance(reason, MediaError) else f"{type(reason).__name__}: {reason}"
    return Clip(heard, frames, start, end, error, seen.note)


def hear(wave: np.ndarray, features: FeatureSettings) -> np.ndarray:
    """(T, F) float32, the fbank of a waveform. Raises MediaError for what is too short."""
    if len(wave) < WINDOW_SECONDS * SAMPLE_RATE:
        raise too_short(len(wave))
    return fbank(torch.from_numpy(wave), features)[0].numpy()


def is_silent(wave: np.ndarray) -> bool:
    """Whether a waveform (S,) is zeros, a constant offset, or as faint as the dither of 16 bits."""
    return not len(wave) or float(wave.max()) - float(wave.min()) <= 2 * DITHER


def no_sound(start: float = 0.0, end: float = math.inf) -> MediaError:
    """What is said of a track that is silent, or of the part of it from `start` to `end` seconds."""
    if start <= 0 and math.isinf(end):
        return MediaError(
            "no sound: the track is silent", "check that it plays; captions are of what is heard"
        )
    part = f"from {start:g} s on" if math.isinf(end) else f"from {start:g} to {end:g} s"
    return MediaError(f"no sound: the track is silent {part}", "name another part, or use --window loudest")


def too_short(samples: int) -> MediaError:
    return MediaError(
        f"only {samples / SAMPLE_RATE * 1000:.0f} ms of sound: shorter than 25 ms, one analysis window"
    )


def stay_on_one_core() -> None:
    """A worker a core; the process that people started keeps its own."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)


def load_clip_carefully(path: str | Path, settings: ClipSettings) -> Clip:
    """For files on which a worker was lost."""
    return load_clip(path, settings, readers=CAREFUL)


def load_entry(entry: Entry, settings: ClipSettings, readers: Sequence[str] = READERS) -> Sample:
    """One clip of a manifest as a sample. Raises MediaError."""
    from evacap_cli.data.store import Sample

    if entry.path is None:
        raise MediaError(entry.error or "there is no file")
    clip = load_clip(entry.path, settings, readers, entry.start, entry.end, entry.pictures)
    return Sample(
        clip.fbank, clip.frames, clip.start, clip.end, picture_error=clip.picture_error, note=clip.note
    )


def _part(seen: Survey, start: float, end: float | None, seconds: float) -> tuple[float, float]:
    """(start, end) of what is taken of the part that was asked for. Raises MediaError where the file has none of it."""
    start, total = max(0.0, start), seen.heard or seen.seconds or 0.0
    if end is not None and end <= start:
        raise MediaError(f"the part from {start:g} to {end:g} s is empty")
    if start >= total:
        raise MediaError(f"the part from {start:g} s on is not in it: it ends at {total:.2f} s")
    return start, min(start + seconds, total, total if end is None else end)


def _measured(end: float, decoded: float) -> float:
    """Where a clip ends, in seconds: where its sound does, unless that is as it was to be but for a codec's padding."""
    return decoded if end - decoded > PADDING else end


def _images(paths: Sequence[Path], features: FeatureSettings, count: int | None) -> np.ndarray:
    """uint8 (N, 3, S, S) of image files: as many as a clip has, spread evenly over those that there are."""
    count = features.frames if count is None else count
    crops = []
    for i in range(count):
        path = paths[int((i + 0.5) * len(paths) / count)]
        try:
            with Image.open(path) as image:
                crops.append(crop_frame(np.array(image.convert("RGB")), features.image_size).numpy())
        except (OSError, ValueError) as error:
            raise MediaError(f"{path.name} cannot be read: {error}") from error
    return np.stack(crops)
