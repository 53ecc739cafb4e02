"""Decodes media files to waveforms and frames: PyAV for sound; decord, then PyAV, for pictures."""

from evacap_cli.media.audio import MAX_PADDING, SAMPLE_RATE, WINDOW_MODES, SoundPass, find_window, read_audio
from evacap_cli.media.container import Media, NoAudioError, open_media, open_media_twice, survey_file
from evacap_cli.media.frame_stream import follow_frames
from evacap_cli.media.frames import READERS, read_frames
from evacap_cli.media.pool import DecodePool, Outcome
from evacap_cli.media.probe import (
    AUDIO_SUFFIXES,
    MEDIA_SUFFIXES,
    VIDEO_SUFFIXES,
    MediaInfo,
    holds_sound,
    probe,
)
from evacap_cli.media.survey import Survey
from evacap_cli.media.tracks import TRACKS, is_track
from evacap_cli.media.worker import start_ahead

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_PADDING",
    "MEDIA_SUFFIXES",
    "READERS",
    "SAMPLE_RATE",
    "TRACKS",
    "VIDEO_SUFFIXES",
    "WINDOW_MODES",
    "DecodePool",
    "Media",
    "MediaInfo",
    "NoAudioError",
    "Outcome",
    "SoundPass",
    "Survey",
    "find_window",
    "follow_frames",
    "holds_sound",
    "is_track",
    "open_media",
    "open_media_twice",
    "probe",
    "read_audio",
    "read_frames",
    "start_ahead",
    "survey_file",
]
