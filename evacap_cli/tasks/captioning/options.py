"""How to caption: one frozen set of settings, checked as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from evacap_cli.errors import UsageError
from evacap_cli.media import TRACKS, WINDOW_MODES, is_track

MIN_SEGMENT = 0.1  # seconds of a segment, and between two


@dataclass(frozen=True)
class CaptionOptions:
    """None is what suits the model (`frames`) or the machine (`batch_size`, `workers`), or what was not asked for.

    Raises UsageError naming everything that is wrong.
    """

    frames: int | None = None
    beam: int = 4
    max_words: int = 20
    batch_size: int | None = None
    workers: int | None = None
    """Decoding processes; 0 decodes in this one, without limits of time and memory."""
    window: str = "loudest"
    audio_only: bool = False
    timeout: float = 300.0
    """Seconds that decoding one clip may take."""
    memory: float = 4.0
    """GiB that one decoding process may hold; 0: no limit."""
    segment: float | None = None
    """Seconds of a piece, each of which gets a row of its own, unless it is silent."""
    hop: float | None = None
    """Seconds from the beginning of a piece to that of the next; None: `segment`."""
    min_rms: float | None = None
    """dBFS; pieces that are quieter get no row."""
    same_frames: float = 0.0
    """Levels of 255 by which a picture may differ from the one before, in the mean, and not be looked at again."""
    audio_track: str | None = None
    """The sound track that is heard: its number, from 1 on, or its language; None: what a player takes."""

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
            wrong.append(f"--min-rms {self.min_rms:g} must be below 0, the loudest that there is (dBFS)")
        if self.audio_track is not None and not is_track(self.audio_track):
            wrong.append(f"--audio-track {self.audio_track!r} must be {TRACKS}")
        wrong += [
            f"--{name.replace('_', '-')} is of segments: give --segment, too"
            for name in ("hop", "min_rms")
            if getattr(self, name) is not None and self.segment is None
        ]
        if wrong:
            raise UsageError("; ".join(wrong))
