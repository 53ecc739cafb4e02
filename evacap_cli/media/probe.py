"""What a media file holds, and which suffixes media have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evacap_cli.errors import MediaError
from evacap_cli.media.container import open_media

_VIDEO = "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv"
_AUDIO = "aac ac3 aif aiff flac m4a mka mp3 oga ogg opus wav wma"
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _VIDEO.split())
AUDIO_SUFFIXES = frozenset(f".{suffix}" for suffix in _AUDIO.split())
MEDIA_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds. `seconds`: to the end of the longer of sound and picture; `heard`: to that of the sound.
    `width` and `height` are the coded picture's, before rotation; 0 where there is none. `note`: see `Media`.
    """

    path: Path
    seconds: float
    has_audio: bool
    has_video: bool
    width: int = 0
    height: int = 0
    fps: float = 0.0  # average; nothing here relies on it
    sample_rate: int = 0
    channels: int = 0
    heard: float = 0.0
    note: str = ""


def probe(path: str | Path, track: str | None = None) -> MediaInfo:
    """What a file holds, by its headers; read through once where they do not count its length. `track`: see
    `open_media`. Raises MediaError.
    """
    with open_media(path, track) as media:
        if media.audio is None and media.video is None:
            raise MediaError("neither sound nor picture in it")
        audio, video = media.audio, media.video
        sound = audio.codec_context if audio else None
        picture = video.codec_context if video else None
        return MediaInfo(
            path=media.path,
            seconds=media.seconds or 0.0,
            has_audio=audio is not None,
            has_video=video is not None,
            width=picture.width if picture else 0,
            height=picture.height if picture else 0,
            fps=float(video.average_rate or 0) if video else 0.0,
            sample_rate=sound.sample_rate if sound else 0,
            channels=sound.layout.nb_channels if sound else 0,
            heard=media.heard or 0.0,
            note=media.note,
        )
