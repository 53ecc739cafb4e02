"""Opens media files: their streams, their clock, and the errors for files that cannot be read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.stream import VideoStream

from evacap_cli.errors import MediaError
from evacap_cli.media.clock import Clock
from evacap_cli.media.large_wav import large_wav
from evacap_cli.media.limits import MAX_TIME as MAX_TIME
from evacap_cli.media.limits import READ_ERRORS as READ_ERRORS
from evacap_cli.media.survey import Survey, survey, use_only

LONGEST_MESSAGE = 160  # characters
SURVEYS = 8  # cached surveys of unchanged files: each file is opened several times
LAST_TICK = 2**63 - 1
LARGEST_PICTURE = (
    8192 * 8192
)  # pixels; larger pictures are not decoded: a small file can claim a frame of gigabytes

DEMUXERS = """
    mov matroska avi asf asf_o flv live_flv mpeg mpegts mpegvideo ogg gif apng nut rm ivr mxf gxf wtv dv dhav nsv ivf
    obu h261 h263 h264 hevc vvc m4v mjpeg vc1 vc1test yuv4mpegpipe swf smjpeg
    wav w64 aiff aac loas ac3 eac3 dts dtshd truehd mlp flac mp3 ape tta wv tak mpc mpc8 amr amrnb amrwb au caf dsf iff
    voc ircam sox qcp qoa shn xwma
    png_pipe jpeg_pipe webp_pipe bmp_pipe tiff_pipe
"""
# Only formats that contain their own media. Playlists (HLS, DASH, concat), session descriptions (SDP), numbered
# pictures and some subtitles refer to other files and addresses, which FFmpeg would open, even if the file is called
# clip.mp4.
_SAFELY = {
    "format_whitelist": ",".join(DEMUXERS.split()),
    "protocol_whitelist": "file",
    "max_pixels": str(LARGEST_PICTURE),
}


class NoAudioError(MediaError):
    """The file has no audio track, so there is nothing to caption."""

    def __init__(self, message: str = "no audio track") -> None:
        super().__init__(message, "add a sound track: captions are of what is heard")


@dataclass(frozen=True)
class Media:
    """An open file. Time 0 s of its `clock` is the start of the earlier of sound and picture."""

    path: Path
    container: InputContainer
    audio: AudioStream | None
    video: VideoStream | None
    clock: Clock
    seconds: float | None
    """End of the later of sound and picture, from the header or measured; None if unknown."""
    heard: float | None
    """End of the sound, likewise."""
    seekable: bool
    """Whether timestamps are correct after a seek."""
    note: str
    """The audio track in use if there are several; the available part of a truncated file. May be empty."""

    def use_only(self, stream: Stream) -> None:
        """Makes the demuxer discard the packets of other streams."""
        use_only(self.container, stream.index)

    def packets(self, *streams: Stream) -> Iterator[Packet]:
        """Yields the streams' packets on one clock (`Clock.zero` is its start), up to the end or the first read error.

        Sound without a picture needs no correction here: its reader continues at restarts, exact to the sample.
        """
        mends = self.clock.restarts and self.video is not None
        with suppress(*READ_ERRORS):
            packets = self.container.demux(*streams)
            yield from self.clock.mend(packets) if mends else packets

    def rewind(self) -> None:
        """Seeks to the start of the file, if it supports seeking."""
        with suppress(*READ_ERRORS):
            self.container.seek(self.container.start_time or 0)

    def seek(self, stream: Stream, seconds: float) -> None:
        """Seeks to the last entry point at or before `seconds` on this clock, or to the first one."""
        assert stream.time_base is not None
        ticks = round((seconds + self.clock.zero(stream)) / float(stream.time_base))
        first = stream.start_time if stream.start_time is not None else ticks
        self.container.seek(min(max(ticks, first), LAST_TICK), stream=stream, backward=True)


@contextmanager
def open_media(path: str | Path, track: str | None = None) -> Iterator[Media]:
    """Opens a file for reading. `track`: the number (from 1) or the language of the audio track; None for a player's
    default. Raises MediaError, with a one-line reason, if it is not a readable media file or lacks the track.
    """
    path = Path(path)
    seen = survey_file(path, track)
    with open_container(path) as container:
        yield _media(path, container, seen)


@contextmanager
def open_media_twice(path: str | Path, track: str | None = None) -> Iterator[tuple[Media, Media]]:
    """Opens a file for a reader of its sound and a reader of its picture, each at its own position. `track` and errors:
    see `open_media`.

    The survey's container is used again for the picture if the file supports seeks. Sound cannot use it: decoders of
    AAC and others give other first samples after a seek to the start.
    """
    path = Path(path)
    check_readable(path)
    reopen = partial(open_container, path)
    with open_container(path) as surveyed, open_container(path) as fresh, ExitStack() as opened:
        seen = survey(surveyed, track, reopen)
        if seen.seekable:
            shown = _media(path, surveyed, seen)
            for stream in surveyed.streams:
                stream.discard = Discard.default
            shown.rewind()
        else:
            shown = _media(path, opened.enter_context(reopen()), seen)
        yield _media(path, fresh, seen), shown


def _media(path: Path, container: InputContainer, seen: Survey) -> Media:
    streams = container.streams
    audio = None if seen.audio is None else next((s for s in streams.audio if s.index == seen.audio), None)
    video = None if seen.video is None else next((s for s in streams.video if s.index == seen.video), None)
    for stream in (audio, video):
        if stream is not None and stream.codec_context is not None:
            stream.codec_context.options = {"max_pixels": str(LARGEST_PICTURE)}
    return Media(
        path, container, audio, video, seen.clock, seen.seconds, seen.heard, seen.seekable, seen.note
    )


def survey_file(path: str | Path, track: str | None = None) -> Survey:
    """Returns a file's length, clock and tracks. `track`: see `open_media`. The last `SURVEYS` results are cached until
    the file changes. Raises MediaError.
    """
    path = Path(path)
    check_readable(path)
    state = os.stat(path)
    return _survey(path, track, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(SURVEYS)
def _survey(path: Path, track: str | None, state: tuple[int, ...]) -> Survey:
    """Cached `survey`; `state` identifies the version of the file."""
    reopen = partial(open_container, path)
    with reopen() as container:
        return survey(container, track, reopen)


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Opens a file with FFmpeg, but no other file that it refers to. Raises MediaError."""
    with ExitStack() as opened:
        try:
            source = opened.enter_context(large_wav(path))
            # the prefix prevents FFmpeg from reading a colon in the name as a protocol
            container = av.open(source or f"file:{path}", "r", metadata_errors="replace", options=_SAFELY)
        except av.error.ArgumentError as error:  # FFmpeg's error for a format outside the list
            raise MediaError(
                "not a media file: a playlist, damaged, or an unsupported format",
                "convert it to another format",
            ) from error
        except (*READ_ERRORS, UnicodeError) as error:
            raise MediaError(
                f"not a media file: {one_line(error)}", "check that it plays, or convert it again"
            ) from error
        opened.callback(container.close)
        yield container


def check_readable(path: Path) -> None:
    """Raises MediaError unless `path` is a regular, readable file that is not empty."""
    try:
        if path.is_dir():
            raise MediaError("a folder, not a file")
        if path.exists() and not path.is_file():
            raise MediaError("not a regular file")  # reading a pipe could block forever
        with path.open("rb") as file:
            if not file.read(1):
                raise MediaError("the file is empty")
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise MediaError(f"cannot be read: {reason}") from error


def one_line(error: BaseException | str) -> str:
    """Returns an error's message as one printable line of bounded length, without source positions and file names."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: |\[file:.*?\] ?", "", text)  # decord's
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text[:LONGEST_MESSAGE] or type(error).__name__
