"""Opening a media file: what stands in it, when it starts, and in what words it is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from evacap_cli.errors import MediaError

# Failures of FFmpeg as PyAV raises them: most are FFmpegError; some reach Python as its own kinds of error.
READ_ERRORS = (av.error.FFmpegError, OSError, ValueError, RuntimeError)
LONGEST_MESSAGE = 160  # characters


class NoAudioError(MediaError):
    """A file without an audio track: there is nothing to caption."""

    def __init__(self, message: str = "no audio track") -> None:
        super().__init__(message, "add a sound track: captions are of what is heard")


@dataclass(frozen=True)
class Media:
    """An open file. Its clock starts (0 s) at `origin`, where the earlier of sound and picture starts."""

    path: Path
    container: InputContainer
    audio: AudioStream | None
    video: VideoStream | None
    origin: float  # seconds on the container's own clock
    seconds: float | None  # by the container's header; None where it does not say

    def use_only(self, stream: Stream) -> None:
        """Lets the demuxer pass over what belongs to other streams."""
        for other in self.container.streams:
            if other is not stream:
                other.discard = Discard.all

    def packets(self, stream: Stream) -> Iterator[Packet]:
        """The stream's packets; a file that breaks off ends there."""
        with suppress(*READ_ERRORS):
            yield from self.container.demux(stream)

    def rewind(self) -> None:
        """To where the file starts."""
        self.container.seek(self.container.start_time or 0)

    def seek(self, stream: Stream, seconds: float) -> None:
        """To the last entry point at or before `seconds` on this clock; before the first one: to the
        first.
        """
        assert stream.time_base is not None
        ticks = round((seconds + self.origin) / float(stream.time_base))
        first = stream.start_time if stream.start_time is not None else ticks
        self.container.seek(max(ticks, first), stream=stream, backward=True)


@contextmanager
def open_media(path: str | Path) -> Iterator[Media]:
    """Opens a file for reading. Raises MediaError, with one line that says why, when it is not a readable
    media file.
    """
    path = Path(path)
    check_readable(path)
    try:
        # the prefix keeps a colon in a name from being taken for a protocol
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (*READ_ERRORS, UnicodeError) as error:
        raise MediaError(
            f"not a media file: {one_line(error)}", "check that it plays, or convert it again"
        ) from error
    try:
        audio = min(container.streams.audio, key=_preference, default=None)
        pictures = [stream for stream in container.streams.video if not _is_cover(stream)]
        video = min(pictures, key=_preference, default=None)
        starts = [
            float(stream.start_time * stream.time_base)
            for stream in (audio, video)
            if stream is not None and stream.start_time is not None and stream.time_base is not None
        ]
        seconds = container.duration / 1e6 if container.duration and container.duration > 0 else None
        yield Media(path, container, audio, video, min(starts, default=0.0), seconds)
    finally:
        container.close()


def check_readable(path: Path) -> None:
    """Raises MediaError unless `path` is a regular, readable file that is not empty."""
    try:
        if path.is_dir():
            raise MediaError("a folder, not a file")
        if path.exists() and not path.is_file():
            raise MediaError("not a regular file")  # reading a pipe could wait for ever
        with path.open("rb") as file:
            if not file.read(1):
                raise MediaError("the file is empty")
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise MediaError(f"cannot be read: {reason}") from error


def one_line(error: BaseException | str) -> str:
    """An error's own words: one printable line of bounded length, without source positions and file names."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: |\[file:.*?\] ?", "", text)  # decord's
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text[:LONGEST_MESSAGE] or type(error).__name__


def _is_cover(stream: VideoStream) -> bool:
    """Whether a picture track is album art or a chapter's thumbnails: not what happens while the sound
    plays.
    """
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _preference(stream: Stream) -> tuple[bool, bool, int]:
    """Sort key: what a player would choose, the default track that can be decoded, comes first."""
    return (stream.codec_context is None, not stream.disposition & Disposition.default, stream.index)
