"""Opening a media file: what stands in it, when it starts, and in what words it is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from evacap_cli.errors import MediaError
from evacap_cli.media.clock import Clock
from evacap_cli.media.limits import LONGEST as LONGEST
from evacap_cli.media.limits import READ_ERRORS as READ_ERRORS
from evacap_cli.media.survey import Survey, survey, use_only

LONGEST_MESSAGE = 160  # characters
SURVEYS = 8  # files that are not surveyed again while they stay as they are: one is opened several times
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
    """An open file. Its `clock` starts (0 s) where the earlier of sound and picture starts."""

    path: Path
    container: InputContainer
    audio: AudioStream | None
    video: VideoStream | None
    clock: Clock
    seconds: float | None
    """Where the later of sound and picture ends: counted by the header, or measured; None where nothing says it."""
    heard: float | None
    """Where the sound ends, likewise."""
    seekable: bool
    """Whether stamps are right after a seek."""
    note: str
    """Which of several sound tracks is heard; how much is there of a file that was cut. Empty: nothing to say."""

    def use_only(self, stream: Stream) -> None:
        """Lets the demuxer pass over what belongs to other streams."""
        use_only(self.container, stream.index)

    def packets(self, *streams: Stream) -> Iterator[Packet]:
        """The streams' packets, on one clock (`Clock.zero` is its start); a file that breaks off ends there.

        Sound alone needs no mending: what reads it lets it go on where stamps start again, to the sample.
        """
        mends = self.clock.restarts and self.video is not None
        with suppress(*READ_ERRORS):
            packets = self.container.demux(*streams)
            yield from self.clock.mend(packets) if mends else packets

    def rewind(self) -> None:
        """To where the file starts; one that can be read only once is left where it is."""
        with suppress(*READ_ERRORS):
            self.container.seek(self.container.start_time or 0)

    def seek(self, stream: Stream, seconds: float) -> None:
        """To the last entry point at or before `seconds` on this clock; before the first one: to the
        first.
        """
        assert stream.time_base is not None
        ticks = round((seconds + self.clock.zero(stream)) / float(stream.time_base))
        first = stream.start_time if stream.start_time is not None else ticks
        self.container.seek(min(max(ticks, first), LAST_TICK), stream=stream, backward=True)


@contextmanager
def open_media(path: str | Path, track: str | None = None) -> Iterator[Media]:
    """Opens a file for reading. `track`: the number, from 1 on, or the language of the sound track that is heard; None
    for what a player takes. Raises MediaError, with one line that says why, when it is not a readable media file, or
    the track is not in it.
    """
    path = Path(path)
    seen = survey_file(path, track)
    with open_container(path) as container:
        streams = container.streams
        audio = (
            None if seen.audio is None else next((s for s in streams.audio if s.index == seen.audio), None)
        )
        video = (
            None if seen.video is None else next((s for s in streams.video if s.index == seen.video), None)
        )
        for stream in (audio, video):
            if stream is not None and stream.codec_context is not None:
                stream.codec_context.options = {"max_pixels": str(LARGEST_PICTURE)}
        yield Media(
            path, container, audio, video, seen.clock, seen.seconds, seen.heard, seen.seekable, seen.note
        )


def survey_file(path: str | Path, track: str | None = None) -> Survey:
    """How long a file is, by which clock, and which of its tracks are played. `track`: see `open_media`. What was seen
    last is kept as long as the files stay as they are. Raises MediaError.
    """
    path = Path(path)
    check_readable(path)
    state = os.stat(path)
    return _survey(path, track, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(SURVEYS)
def _survey(path: Path, track: str | None, state: tuple[int, ...]) -> Survey:
    """`survey` of a file in a certain state."""
    reopen = partial(open_container, path)
    with reopen() as container:
        return survey(container, track, reopen)


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """A file as FFmpeg opens it, with nothing else that it names. Raises MediaError."""
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
        yield container
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
