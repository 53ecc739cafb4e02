"""Determines a file's length, clock and tracks.

A header is trusted if it counts samples and the samples exist; everything else is measured by reading all packets once,
without decoding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Stream

from evacap_cli.media.clock import MAX_REORDERING, MAX_START_DIFFERENCE, Clock, Timeline, simple_clock
from evacap_cli.media.limits import MAX_TIME, READ_ERRORS
from evacap_cli.media.tracks import Open, choose_audio, choose_video

# Formats (FFmpeg's demuxer names) that state their exact length. Others have no such field (raw streams, MPEG-TS, Ogg)
# or only an estimate (MP3).
EXACT = frozenset({"mov", "matroska", "avi", "flac", "w64", "aiff", "caf", "au", "iff", "dsf", "tta", "ape"})
# Of these, formats that FFmpeg reads past the end that the header states; only reading detects a second file appended
# to the first. (MP4, AVI, WAV, AIFF and others end where the first file ends, in players as well.)
JOINED = frozenset({"flac"})
# Formats with timestamps on all packets, or an index, so that seeks are exact. In other formats FFmpeg seeks by the
# average bit rate and assumes the requested time.
SEEKABLE = EXACT | {"asf", "flv", "mpegts", "mpeg", "nut", "mxf", "mp3"}
PARSED = ("opus", "vorbis")  # codecs whose packets in Ogg state their duration
END_TOLERANCE = 1.0  # seconds before the stated end that must contain packets; also the tolerance of the end
MAX_UNREAD_SHARE = 0.05  # share of a file after its last packet that is too large for an index
MAX_END_PACKETS = 5000  # packets in the last second


@dataclass(frozen=True)
class Survey:
    """audio, video: indices of the selected streams. seconds: end of the later one; heard: end of the sound; None if
    unknown. seekable: whether reading may start anywhere. note: the audio track in use if there are several, the
    available part of a truncated file.
    """

    audio: int | None
    video: int | None
    clock: Clock
    seconds: float | None
    heard: float | None
    seekable: bool
    note: str


def survey(container: InputContainer, track: str | None, reopen: Open) -> Survey:
    """Surveys an open file and changes its read position. `track`: see `choose_audio`. Raises MediaError."""
    chosen = choose_audio(container, track, reopen)
    audio = None if chosen.index is None else container.streams[chosen.index]
    video = choose_video(container)
    streams = [stream for stream in (audio, video) if stream is not None]
    starts = {stream.index: start for stream in streams if (start := _start(stream)) is not None}
    notes = [chosen.note]

    stated = _header_end(container)
    clock = simple_clock(
        {stream.index: starts.get(stream.index, 0.0) for stream in streams} if starts else {}
    )
    near = max(starts.values(), default=0.0) - min(starts.values(), default=0.0) <= MAX_START_DIFFERENCE
    believed = stated is not None and near and _is_exact(container, audio)
    complete = believed and _kind(container) not in JOINED
    if complete and stated is not None and streams and _reaches_end(container, streams[0], stated):
        zero = min(starts.values(), default=0.0)
        seconds: float | None = stated - (container.start_time or 0) / 1e6
        heard = seconds if audio is None or (end := _track_end(audio)) is None else end - zero
    else:
        timeline = Timeline(starts)
        with reopen() as again:
            _read_all(again, [stream.index for stream in streams], timeline)
        clock, ends = timeline.clock(), timeline.ends()
        seconds = min(max(ends.values(), default=0.0), MAX_TIME) or None
        heard = None if audio is None or audio.index not in ends else min(ends[audio.index], MAX_TIME)
        if believed and stated is not None:
            notes.append(_cut(seconds or 0.0, stated - (container.start_time or 0) / 1e6))
        if clock.restarts and container.size - timeline.reached > MAX_UNREAD_SHARE * container.size:
            notes.append(
                f"joined: {timeline.reached / container.size:.0%} of its bytes are read, as in players"
            )
    return Survey(
        audio.index if audio else None,
        video.index if video else None,
        clock,
        seconds,
        heard,
        not clock.restarts and _is_sought(container, audio, video),
        "; ".join(filter(None, notes)),
    )


def _kind(container: InputContainer) -> str:
    return container.format.name.split(",")[0]


def _codec(stream: Stream | None) -> str:
    return stream.codec_context.name if stream is not None and stream.codec_context else ""


def _is_exact(container: InputContainer, audio: Stream | None) -> bool:
    return _kind(container) in EXACT or _is_plain_wav(container, audio)


def _is_plain_wav(container: InputContainer, audio: Stream | None) -> bool:
    """Whether a WAV file holds PCM at the byte rate in its header, which FFmpeg uses for seeks."""
    context = audio.codec_context if isinstance(audio, AudioStream) else None
    if context is None or _kind(container) != "wav":
        return False
    found = re.fullmatch(r"pcm_(?:[fsu](\d+)\w*|alaw|mulaw)", context.name)
    return found is not None and context.bit_rate == (
        context.sample_rate * context.layout.nb_channels * int(found[1] or 8)
    )


def _is_sought(container: InputContainer, audio: Stream | None, video: Stream | None) -> bool:
    kind = _kind(container)
    if kind == "ogg":
        return video is None and _codec(audio) in PARSED
    return kind in SEEKABLE or _is_plain_wav(container, audio)


def _start(stream: Stream) -> float | None:
    if stream.start_time is None or stream.time_base is None:
        return None
    return float(stream.start_time * stream.time_base)


def _header_end(container: InputContainer) -> float | None:
    """End timestamp of a file in seconds, from its header."""
    if not container.duration or not 0 < container.duration / 1e6 <= MAX_TIME:
        return None
    return ((container.start_time or 0) + container.duration) / 1e6


def _track_end(stream: Stream) -> float | None:
    """End timestamp of a track in seconds, if the header states its length."""
    if not stream.duration or stream.time_base is None:
        return None
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base)


def _reaches_end(container: InputContainer, stream: Stream, end: float) -> bool:
    """Whether a track's packets reach the end in its header, with none after it and none of a second file."""
    end = min(end, _track_end(stream) or end)
    if stream.time_base is None:
        return False
    use_only(container, stream.index)
    reached, count = 0.0, 0
    with suppress(*READ_ERRORS):
        ticks = max(round((end - END_TOLERANCE) / float(stream.time_base)), stream.start_time or 0)
        container.seek(ticks, stream=stream, backward=True)
        for packet in container.demux(stream):
            count += 1
            if packet.size and packet.pts is not None and not packet.is_corrupt:
                time = float((packet.pts + (packet.duration or 0)) * stream.time_base)
                if time < reached - MAX_REORDERING or count > MAX_END_PACKETS:
                    return False
                reached = max(reached, time)
        return abs(reached - end) <= END_TOLERANCE
    return False


def _read_all(container: InputContainer, indices: Sequence[int], timeline: Timeline) -> None:
    use_only(container, *indices)
    if not indices:
        return
    with suppress(*READ_ERRORS):
        for packet in container.demux([container.streams[index] for index in indices]):
            timeline.add(packet)


def use_only(container: InputContainer, *indices: int) -> None:
    """Makes the demuxer discard the packets of other streams."""
    for stream in container.streams:
        if stream.index not in indices:
            stream.discard = Discard.all


def _cut(seconds: float, stated: float) -> str:
    return f"cut: {seconds:.1f} of {stated:.1f} s are there" if stated - seconds > END_TOLERANCE else ""
