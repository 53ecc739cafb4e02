"""Describes the contents of media files; suffixes of media files."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from av.audio.frame import AudioFrame

from evacap_cli.errors import MediaError
from evacap_cli.media.container import READ_ERRORS, check_readable, open_container, open_media

# Suffixes of FFmpeg's demuxers and muxers for the formats in `container.DEMUXERS`, plus other common ones, without
# pictures and ambiguous suffixes (`tests/media/test_probe.py` compares them).
_VIDEO = """
    264 265 266 3g2 3gp 3gp2 3gpp amv asf avc avi dav dif divx dv dvd evo f4v flv gxf h261 h263 h264 h265 h266 h26l hevc
    ismv ivf ivr m1v m2p m2t m2ts m2v m4v mj2 mjpeg mjpg mk3d mkv mov mp4 mp4v mpe mpeg mpg mpv mts mxf nsv nut obu ogm
    ogv qt rcv rm rmvb tod tp trp ts vc1 vob vro vvc webm wm wmv wtv xvid y4m
"""
_AUDIO = """
    aac aax ac3 adts aif aifc aiff amr ape apl au awb caf dff dsf dts dtshd eac3 ec3 flac ircam isma latm loas m2a
    m4a m4b m4p m4r mac mka mlp mp1 mp2 mp3 mpa mpc mpga oga ogg ogx opus qcp qoa ra rf64 shn snd sox spx tak thd tta
    voc w64 wav wave weba wma wv xwma
"""
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _VIDEO.split())
AUDIO_SUFFIXES = frozenset(f".{suffix}" for suffix in _AUDIO.split())
MEDIA_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES
MAX_PROBED_PACKETS = 30  # packets that `holds_sound` decodes


@dataclass(frozen=True)
class MediaInfo:
    """Contents of a file. `seconds`: end of the later of sound and picture; `heard`: end of the sound. `width` and
    `height`: size of the coded picture, before rotation, or 0 without a picture. `note`: see `Media`.
    """

    path: Path
    seconds: float
    has_audio: bool
    has_video: bool
    width: int = 0
    height: int = 0
    fps: float = 0.0  # average, for information only
    sample_rate: int = 0
    channels: int = 0
    heard: float = 0.0
    note: str = ""


def probe(path: str | Path, track: str | None = None) -> MediaInfo:
    """Reads the contents of a file from its headers; reads the whole file once if they do not state its exact length.
    `track`: see `open_media`. Raises MediaError.
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


def holds_sound(path: str | Path) -> bool:
    """Whether a file is media with sound, by its content: most of its first audio packets can be decoded.

    A header is not enough: FFmpeg detects some programs and archives as MP3. Returns False for unreadable files.
    """
    path = Path(path)
    good = bad = 0
    with suppress(MediaError, *READ_ERRORS):
        check_readable(path)
        with open_container(path) as container:
            sounds = [stream for stream in container.streams.audio if stream.codec_context]
            for packet in itertools.islice(container.demux(sounds), MAX_PROBED_PACKETS) if sounds else ():
                try:
                    good += any(isinstance(f, AudioFrame) and f.samples > 0 for f in packet.decode())
                except READ_ERRORS:
                    bad += 1
    return good > bad
