"""Which track of a file is heard and which is seen: what a player would choose, if there is something in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from evacap_cli.errors import MediaError
from evacap_cli.media.limits import READ_ERRORS

Open = Callable[[], AbstractContextManager[InputContainer]]
QUIETEST = 2.0**-15  # of full scale: what stays below is less than one step of 16 bits, and counts as silence
NAMED = 12  # tracks that a message lists
MOST_TRIED = 16  # tracks that are looked into: a file can claim thousands

_NOT_THE_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails
_NOT_THE_SOUND = (
    Disposition.comment
    | Disposition.karaoke
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
    | Disposition.clean_effects
    | Disposition.descriptions
    | Disposition.dependent
)


@dataclass(frozen=True)
class Heard:
    """The track that is heard. index: of its stream, or None if the file has no sound. note: which of several tracks it
    is, and why earlier ones are passed over.
    """

    index: int | None
    note: str = ""


def choose_video(container: InputContainer) -> VideoStream | None:
    """The default picture track that can be decoded, or the largest, or the first; never album art, or the pictures of
    chapters: they do not show what happens while the sound plays.
    """

    def preference(stream: VideoStream) -> tuple[bool, bool, int, int]:
        context = stream.codec_context
        size = context.width * context.height if context else 0
        return context is None, not stream.disposition & Disposition.default, -size, stream.index

    pictures = [stream for stream in container.streams.video if not stream.disposition & _NOT_THE_PICTURE]
    return min(pictures, key=preference, default=None)


TRACKS = "a number, from 1 on, or a language as the file names it, such as eng"


def is_track(name: str) -> bool:
    """Whether a file can have a track of that name; see `TRACKS`."""
    return int(name) > 0 if name.isdecimal() else name[:1].isalpha()


def choose_audio(container: InputContainer, track: str | None, reopen: Open) -> Heard:
    """The sound track that is heard; `track`: its number, from 1 on, or its language; None for a player's choice.

    A player takes a track that can be decoded, is no commentary, is the default, has most channels, in this order, or
    the first. Of several, those without samples, or with nothing but digital silence, are passed over if another has
    sound; for that, `reopen` opens the file once more. Raises MediaError when `track` is not there.
    """
    streams = list(container.streams.audio)
    order = sorted(streams, key=_preference)
    if track is not None and streams:
        order = [stream for stream in order if _is_meant(stream, streams.index(stream) + 1, track)]
        if not order:
            raise MediaError(
                f"no audio track {track!r}: there {_listed(streams)}",
                "give --audio-track one of these, or leave it out",
            )
    if len(streams) < 2:
        return Heard(order[0].index if order else None)
    chosen, passed = _with_sound(order, reopen) if len(order) > 1 else (order[0], {})
    said = "; ".join(
        f"{streams.index(stream) + 1} {why}" for stream, why in passed.items() if stream is not chosen
    )
    number = streams.index(chosen) + 1
    note = f"audio track {number} of {len(streams)}{_described(chosen)}"
    return Heard(chosen.index, f"{note}; {said}" if said else note)


def _with_sound(order: Sequence[AudioStream], reopen: Open) -> tuple[AudioStream, dict[AudioStream, str]]:
    """The first in which something is heard, and why those before it are not taken."""
    passed: dict[AudioStream, str] = {}
    for stream in order[:MOST_TRIED]:
        with reopen() as container:
            peak = _peak(container, stream.index)
        if peak is not None and peak >= QUIETEST:
            return stream, passed
        passed[stream] = "has no sound in it" if peak is None else "is silent"
    silent = [stream for stream, why in passed.items() if why == "is silent"]
    return (silent or list(order))[0], passed


def _peak(container: InputContainer, index: int) -> float | None:
    """The loudest sample of a track, of full scale, or the first that is no silence; None without samples."""
    for stream in container.streams:
        if stream.index != index:
            stream.discard = av.stream.Discard.all
    stream, peak = container.streams[index], None
    with suppress(*READ_ERRORS):
        for packet in container.demux(stream):
            with suppress(*READ_ERRORS):
                for frame in packet.decode():
                    if isinstance(frame, AudioFrame) and frame.samples:
                        peak = max(peak or 0.0, _peak_of(frame))
            if peak is not None and peak >= QUIETEST:
                break
    return peak


def _peak_of(frame: AudioFrame) -> float:
    """Over all channels: their mean may be silent where they are not."""
    (packed,) = av.AudioResampler(format="flt").resample(frame)
    return float(np.nan_to_num(np.abs(packed.to_ndarray()), nan=0.0, posinf=1.0).max())


def _preference(stream: AudioStream) -> tuple[bool, bool, bool, int, int]:
    context = stream.codec_context
    return (
        context is None,
        bool(stream.disposition & _NOT_THE_SOUND) or "commentary" in stream.metadata.get("title", "").lower(),
        not stream.disposition & Disposition.default,
        -_channels(stream),
        stream.index,
    )


def _channels(stream: AudioStream) -> int:
    return stream.codec_context.layout.nb_channels if stream.codec_context else 0


def _is_meant(stream: Stream, number: int, track: str) -> bool:
    """Whether a track is the one of that number, or of that language, `en` being `en-GB`, too."""
    if track.isdecimal():
        return number == int(track)
    spoken, wanted = _language(stream).lower(), track.lower()
    return spoken == wanted or spoken.startswith(f"{wanted}-")


def _language(stream: Stream) -> str:
    said = stream.metadata.get("language", "")
    return said if said.isascii() and said.isprintable() and said != "und" else ""


def _listed(streams: Sequence[AudioStream]) -> str:
    named = [f"{number}{_described(stream)}" for number, stream in enumerate(streams[:NAMED], 1)]
    more = ", ..." if len(streams) > NAMED else ""
    return f"{'is' if len(streams) == 1 else 'are'} {', '.join(named)}{more}"


def _described(stream: AudioStream) -> str:
    """In brackets: language, channels, whether a player takes it by default, and what it is called."""
    count = _channels(stream)
    parts = (
        _language(stream)[:20],
        f"{count} channel{'s' * (count != 1)}" if count else "",
        "default" if stream.disposition & Disposition.default else "",
        "commentary" if stream.disposition & Disposition.comment else "",
    )
    said = ", ".join(filter(None, parts))
    return f" ({said})" if said else ""
