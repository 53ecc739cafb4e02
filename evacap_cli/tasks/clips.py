"""One file to what a model takes: where media and features meet. Runs in worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evacap_cli.errors import MediaError
from evacap_cli.features import FeatureSettings, crop_frame, fbank, frame_times
from evacap_cli.features.settings import WINDOW_SECONDS
from evacap_cli.media import READERS, SAMPLE_RATE, find_window, probe, read_audio, read_frames


@dataclass(frozen=True)
class ClipSettings:
    """How files become clips. `frames`: how many pictures, None for the features' own number, 0 for none."""

    features: FeatureSettings
    frames: int | None = None
    window: str = "loudest"


@dataclass(frozen=True)
class Clip:
    """fbank: float32 (T, F), normalised. frames: uint8 (N, 3, S, S), None without a picture, and then `picture_error`
    says why (empty when the file has none). start and end in seconds."""

    fbank: np.ndarray
    frames: np.ndarray | None
    start: float
    end: float
    picture_error: str = ""


def load_clip(path: str | Path, settings: ClipSettings, readers: Sequence[str] = READERS) -> Clip:
    """Decodes the part of a file that is captioned. Raises MediaError; a picture that cannot be read is no error."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # a worker a core
    features = settings.features
    start, end = find_window(path, features.seconds, settings.window)
    wave = read_audio(path, start, end)
    if len(wave) < WINDOW_SECONDS * SAMPLE_RATE:
        raise MediaError(
            f"only {len(wave) / SAMPLE_RATE * 1000:.0f} ms of sound: shorter than 25 ms, one analysis window"
        )
    heard = fbank(torch.from_numpy(wave), features)[0].numpy()
    frames, error = None, ""
    if settings.frames != 0:
        times = [start + t for t in frame_times(end - start, features, settings.frames)]
        try:
            if probe(path).has_video:
                crops = read_frames(
                    path, times, lambda frame: crop_frame(frame, features.image_size).numpy(), readers
                )
                frames = np.stack(crops)
        except Exception as reason:  # whatever it is: the clip can still be heard
            error = reason.message if isinstance(reason, MediaError) else f"{type(reason).__name__}: {reason}"
    return Clip(heard, frames, start, end, error)


def load_clip_carefully(path: str | Path, settings: ClipSettings) -> Clip:
    """For files on which a worker was lost: without decord, the reader known to crash and hang."""
    return load_clip(path, settings, readers=("pyav",))
