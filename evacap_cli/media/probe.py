"""What a media file holds, and which suffixes media have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evacap_cli.errors import MediaError
from evacap_cli.media.container import LONGEST, Media, open_media

_VIDEO = "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv"
_AUDIO = "aac ac3 aif aiff flac m4a mka mp3 oga ogg opus wav wma"
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _VIDEO.split())
AUDIO_SUFFIXES = frozenset(f".{suffix}" for suffix in _AUDIO.split())
MEDIA_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds. `width` and `height` are the coded picture's, before rotation; 0 where there is
    none.
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


def probe(path: str | Path) -> MediaInfo:
    """What a file holds, by its headers; read through once where they do not give a length. Raises
    MediaError.
    """
    with open_media(path) as media:
        if media.audio is None and media.video is None:
            raise MediaError("neither sound nor picture in it")
        seconds = media.seconds if media.seconds is not None else _measure(media)
        audio, video = media.audio, media.video
        sound = audio.codec_context if audio else None
        picture = video.codec_context if video else None
        return MediaInfo(
            path=media.path,
            seconds=seconds,
            has_audio=audio is not None,
            has_video=video is not None,
            width=picture.width if picture else 0,
            height=picture.height if picture else 0,
            fps=float(video.average_rate or 0) if video else 0.0,
            sample_rate=sound.sample_rate if sound else 0,
            channels=sound.layout.nb_channels if sound else 0,
        )


def _measure(media: Media) -> float:
    """The end of the last packet, in seconds, at most `LONGEST`: live recordings, among others, have no length in
    their header.
    """
    end = 0.0
    for packet in media.packets(*filter(None, (media.audio, media.video))):
        if packet.pts is not None and packet.time_base:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - media.origin)
    return min(end, LONGEST)
