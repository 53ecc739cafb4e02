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
LONGEST = 7 * 86_400.0  # seconds: what a file says of later times is not believed
LAST_TICK = 2**63 - 1
LARGEST_PICTURE = 8192 * 8192  # pixels; more are not decoded: a small file can claim a frame of gigabytes

DEMUXERS = """
    mov matroska avi asf asf_o flv live_flv mpeg mpegts mpegvideo ogg gif apng nut rm ivr mxf gxf wtv dv dhav nsv ivf
    obu h261 h263 h264 hevc vvc m4v mjpeg vc1 vc1test yuv4mpegpipe swf smjpeg
    wav w64 aiff aac loas ac3 eac3 dts dtshd truehd mlp flac mp3 ape tta wv tak mpc mpc8 amr amrnb amrwb au caf dsf iff
    voc ircam sox qcp qoa shn xwma
    png_pipe jpeg_pipe webp_pipe bmp_pipe tiff_pipe
"""
# Only kinds of file that hold what they show. Playlists (HLS, DASH, concat), session descriptions (SDP), numbered
# pictures and some subtitles name other files and addresses, which FFmpeg would open: a file may be called clip.mp4 and
# be one of them.
_SAFELY = {
    "format_whitelist": ",".join(DEMUXERS.split()),
    "protocol_whitelist": "file",
    "max_pixels": str(LARGEST_PICTURE),
}


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
    seconds: float | None  # by the container's header; None where it does not say or cannot be right

    def use_only(self, stream: Stream) -> None:
        """Lets the demuxer pass over what belongs to other streams."""
        for other in self.container.streams:
            if other is not stream:
                other.discard = Discard.all

    def packets(self, *streams: Stream) -> Iterator[Packet]:
        """The streams' packets; a file that breaks off ends there."""
        with suppress(*READ_ERRORS):
            yield from self.container.demux(*streams)

    def rewind(self) -> None:
        """To where the file starts; one that can be read only once is left where it is."""
        with suppress(*READ_ERRORS):
            self.container.seek(self.container.start_time or 0)

    def seek(self, stream: Stream, seconds: float) -> None:
        """To the last entry point at or before `seconds` on this clock; before the first one: to the
        first.
        """
        assert stream.time_base is not None
        ticks = round((seconds + self.origin) / float(stream.time_base))
        first = stream.start_time if stream.start_time is not None else ticks
        self.container.seek(min(max(ticks, first), LAST_TICK), stream=stream, backward=True)


@contextmanager
def open_media(path: str | Path) -> Iterator[Media]:
    """Opens a file for reading. Raises MediaError, with one line that says why, when it is not a readable
    media file.
    """
    path = Path(path)
    check_readable(path)
    try:
        # the prefix keeps a colon in a name from being taken for a protocol
        container = av.open(f"file:{path}", metadata_errors="replace", options=_SAFELY)
    except av.error.ArgumentError as error:  # what FFmpeg says of a kind that is not in the list
        raise MediaError(
            "not a media file: a playlist, damaged, or of a kind that is not read",
            "convert it to another kind",
        ) from error
    except (*READ_ERRORS, UnicodeError) as error:
        raise MediaError(
            f"not a media file: {one_line(error)}", "check that it plays, or convert it again"
        ) from error
    try:
        audio = min(container.streams.audio, key=_preference, default=None)
        pictures = [stream for stream in container.streams.video if not _is_cover(stream)]
        video = min(pictures, key=_preference, default=None)
        for stream in (audio, video):
            if stream is not None and stream.codec_context is not None:
                stream.codec_context.options = {"max_pixels": str(LARGEST_PICTURE)}
        seconds = container.duration / 1e6 if container.duration and container.duration > 0 else None
        if seconds is not None and seconds > LONGEST:
            seconds = None
        yield Media(path, container, audio, video, _origin(audio, video), seconds)
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


def _origin(*streams: Stream | None) -> float:
    """Seconds at which the earliest of the streams starts: the first of them if they claim to lie too far apart."""
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in streams
        if stream is not None and stream.start_time is not None and stream.time_base is not None
    ]
    earliest = min(starts, default=0.0)
    return earliest if not starts or starts[0] - earliest <= LONGEST else starts[0]


def _is_cover(stream: VideoStream) -> bool:
    """Whether a picture track is album art or a chapter's thumbnails: not what happens while the sound
    plays.
    """
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _preference(stream: Stream) -> tuple[bool, bool, int]:
    """Sort key: what a player would choose, the default track that can be decoded, comes first."""
    return (stream.codec_context is None, not stream.disposition & Disposition.default, stream.index)
