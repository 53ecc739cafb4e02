"""Media files to waveforms and frames: PyAV for sound, decord and then PyAV for pictures. Knows nothing of
models.
"""

from evacap_cli.media.audio import SAMPLE_RATE, WINDOW_MODES, find_window, read_audio
from evacap_cli.media.container import NoAudioError
from evacap_cli.media.frames import READERS, read_frames
from evacap_cli.media.pool import DecodePool, Outcome
from evacap_cli.media.probe import (
    AUDIO_SUFFIXES,
    MEDIA_SUFFIXES,
    VIDEO_SUFFIXES,
    MediaInfo,
    find_media,
    probe,
)

__all__ = [
    "AUDIO_SUFFIXES",
    "MEDIA_SUFFIXES",
    "READERS",
    "SAMPLE_RATE",
    "VIDEO_SUFFIXES",
    "WINDOW_MODES",
    "DecodePool",
    "MediaInfo",
    "NoAudioError",
    "Outcome",
    "find_media",
    "find_window",
    "probe",
    "read_audio",
    "read_frames",
]
