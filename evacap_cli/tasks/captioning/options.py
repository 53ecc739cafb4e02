"""Settings of a captioning run, checked as a whole."""

from __future__ import annotations

import os
from dataclasses import dataclass

from evacap_cli.errors import UsageError
from evacap_cli.media import TRACKS, WINDOW_MODES, is_track

MIN_SEGMENT = 0.1  # seconds: the shortest segment and hop


@dataclass(frozen=True)
class CaptionOptions:
    """Settings of a captioning run. None means the model's value (`frames`), a value that suits the machine
    (`batch_size`, `workers`), or off.

    Raises UsageError that lists all invalid settings.
    """

    frames: int | None = None
    beam: int = 4
    max_words: int = 20
    batch_size: int | None = None
    workers: int | None = None
    """Decoding processes; 0 decodes in this process, without limits on time and memory."""
    window: str = "loudest"
    audio_only: bool = False
    timeout: float = 300.0
    """Time limit for decoding one clip, in seconds."""
    memory: float = 4.0
    """Memory limit of one decoding process in GiB; 0: no limit."""
    segment: float | None = None
    """Length of a segment in seconds. Each segment gets its own row unless it is silent."""
    hop: float | None = None
    """Seconds from the start of a segment to the start of the next; None: `segment`."""
    min_rms: float | None = None
    """dBFS; quieter segments get no row."""
    same_frames: float = 0.0
    """A frame whose mean difference from the previous one is at most this (0-255) is not encoded again."""
    audio_track: str | None = None
    """The audio track: its number, from 1, or its language; None: the default track."""

    def __post_init__(self) -> None:
        wrong = [
            f"--{name.replace('_', '-')} {value} must be {least} or more"
            for name, least in (
                ("frames", 1),
                ("beam", 1),
                ("max_words", 1),
                ("batch_size", 1),
                ("workers", 0),
                ("memory", 0),
                ("segment", MIN_SEGMENT),
                ("hop", MIN_SEGMENT),
                ("same_frames", 0),
            )
            if (value := getattr(self, name)) is not None and not value >= least
        ]
        if not self.timeout > 0:
            wrong.append(f"--timeout {self.timeout:g} must be more than 0")
        if self.window not in WINDOW_MODES:
            wrong.append(f"--window {self.window} must be one of {', '.join(WINDOW_MODES)}")
        if self.min_rms is not None and not self.min_rms < 0:
            wrong.append(f"--min-rms {self.min_rms:g} must be below 0 (dBFS)")
        if self.audio_track is not None and not is_track(self.audio_track):
            wrong.append(f"--audio-track {self.audio_track!r} must be {TRACKS}")
        wrong += [
            f"--{name.replace('_', '-')} needs --segment"
            for name in ("hop", "min_rms")
            if getattr(self, name) is not None and self.segment is None
        ]
        if wrong:
            raise UsageError("; ".join(wrong))

    @property
    def processes(self) -> int:
        """The number of decoding processes."""
        return max(1, (os.cpu_count() or 2) - 1) if self.workers is None else self.workers
