"""Decodes a file into the features of a clip. Runs in worker processes."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Sequence
from contextlib import ExitStack
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
    MAX_PADDING,
    READERS,
    SAMPLE_RATE,
    Survey,
    find_window,
    read_audio,
    read_frames,
    survey_file,
)

if TYPE_CHECKING:  # keeps workers from importing the code of manifests and stores
    from evacap_cli.data.manifest import Entry
    from evacap_cli.data.store import Sample

DITHER = 2.5 / 2**15
"""Peak up to which audio counts as silence (-82 dBFS): 16-bit dither reaches 1 step, and up to 2.3 after lossy coding
or resampling."""
SAFE_READERS = ("pyav",)
"""Readers for files on which a worker crashed: without decord, which can crash and hang."""


@dataclass(frozen=True)
class ClipSettings:
    """How files are read as clips. `frames`: frames per clip, None for the features' number, 0 for none.

    segment: length of the segments of a recording in seconds; None: one clip, its `window`. hop: seconds from the start
    of one segment to that of the next, None for `segment`. min_rms: segments below this level in dBFS are left out.
    audio_track: number, from 1, or language of the audio track; None for the default track. silence: whether silent
    clips (see `is_silent`) are kept; if not, silence is an error, or the silent segments are left out.
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
    """A clip. fbank: float32 (T, F), normalized. frames: uint8 (N, 3, S, S), None without a picture; `picture_error`
    is the reason, empty if the file has no video. start and end in seconds. note: see `Media`."""

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
    sound: str | Path | None = None,
) -> Clip:
    """Decodes the part of a file that is captioned. Raises MediaError, but not for an unreadable picture.

    `start`, `end`: the part in seconds; its first `features.seconds` are used. `pictures`: image files, in order, that
    replace the frames of the file. `sound`: a file that replaces the sound of the file.
    """
    use_one_thread()
    shown, path = path, path if sound is None else sound
    features, track = settings.features, settings.audio_track
    whole = start is None and end is None and settings.window == "loudest"
    survey = survey_file(path, track)
    if start is None and end is None:
        start, end = find_window(path, features.seconds, settings.window, track)
    else:
        start, end = _clamp_part(survey, start or 0.0, end, features.seconds)
    wave = read_audio(path, start, end, track)
    mel = compute_fbank(wave, features)
    if not settings.silence and is_silent(wave):
        raise silence_error() if whole else silence_error(start, end)
    end = _end_of(end, start + len(wave) / SAMPLE_RATE)
    frames, error = None, ""
    if settings.frames != 0:
        try:
            if pictures:
                frames = _read_images(pictures, features, settings.frames)
            elif (survey if sound is None else survey_file(shown)).video is not None:
                times = [start + t for t in frame_times(end - start, features, settings.frames)]
                crops = read_frames(
                    shown,
                    times,
                    lambda frame: crop_frame(frame, features.image_size).numpy(),
                    readers,
                    track if sound is None else None,
                )
                frames = np.stack(crops)
        except Exception as reason:  # of any kind: the clip still has its audio
            error = reason.message if isinstance(reason, MediaError) else f"{type(reason).__name__}: {reason}"
    return Clip(mel, frames, start, end, error, survey.note)


def compute_fbank(wave: np.ndarray, features: FeatureSettings) -> np.ndarray:
    """Returns the fbank of a waveform, float32 (T, F). Raises MediaError if it is too short."""
    if len(wave) < WINDOW_SECONDS * SAMPLE_RATE:
        raise too_short_error(len(wave))
    return fbank(torch.from_numpy(wave), features)[0].numpy()


def is_silent(wave: np.ndarray) -> bool:
    """Whether a waveform (S,) is zero, constant, or no louder than 16-bit dither."""
    return not len(wave) or float(wave.max()) - float(wave.min()) <= 2 * DITHER


def silence_error(start: float = 0.0, end: float = math.inf) -> MediaError:
    """Returns the error for a silent track, or for its silent part from `start` to `end` seconds."""
    if start <= 0 and math.isinf(end):
        return MediaError("no sound: the track is silent", "check that it plays; evacap captions sound only")
    part = f"from {start:g} s on" if math.isinf(end) else f"from {start:g} to {end:g} s"
    return MediaError(f"no sound: the track is silent {part}", "use another part, or --window loudest")


def too_short_error(samples: int) -> MediaError:
    return MediaError(
        f"only {samples / SAMPLE_RATE * 1000:.0f} ms of sound: shorter than 25 ms, one analysis window"
    )


def use_one_thread() -> None:
    """Limits a worker process to one thread; the main process keeps its threads."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)


def load_clip_carefully(path: str | Path, settings: ClipSettings) -> Clip:
    """Reads a file on which a worker crashed."""
    return load_clip(path, settings, readers=SAFE_READERS)


def load_entry(entry: Entry, settings: ClipSettings, readers: Sequence[str] = READERS) -> Sample:
    """Reads a clip of a manifest as a sample. Raises MediaError."""
    from evacap_cli.data.store import Sample

    if entry.path is None:
        raise MediaError(entry.error or "no such file")
    with ExitStack() as opened:
        path, sound = Path(entry.path), None
        if (member := entry.member) is not None:
            from evacap_cli.data.bulk.members import member_file, sound_file

            shard = str(entry.path)
            path = opened.enter_context(member_file(shard, member, entry.mtime_ns))
            sound = opened.enter_context(
                sound_file(shard, member, entry.mtime_ns, path, settings.audio_track)
            )
        clip = load_clip(path, settings, readers, entry.start, entry.end, entry.pictures, sound)
    return Sample(
        clip.fbank, clip.frames, clip.start, clip.end, picture_error=clip.picture_error, note=clip.note
    )


def _clamp_part(survey: Survey, start: float, end: float | None, seconds: float) -> tuple[float, float]:
    """Returns (start, end) of the part to decode. Raises MediaError if the file does not have the part."""
    start, total = max(0.0, start), survey.heard or survey.seconds or 0.0
    if end is not None and end <= start:
        raise MediaError(f"the part from {start:g} to {end:g} s is empty")
    if start >= total:
        raise MediaError(f"the part from {start:g} s on is not in it: it ends at {total:.2f} s")
    return start, min(start + seconds, total, total if end is None else end)


def _end_of(end: float, decoded: float) -> float:
    """Returns the end of a clip in seconds: that of its decoded audio, unless only codec padding is missing."""
    return decoded if end - decoded > MAX_PADDING else end


def _read_images(paths: Sequence[Path], features: FeatureSettings, count: int | None) -> np.ndarray:
    """Reads image files as frames, uint8 (N, 3, S, S), sampled evenly to the number of frames of a clip."""
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
