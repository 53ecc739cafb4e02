"""Selects the audio and picture tracks of a file: those that a player would select, unless they are silent or empty."""

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
MIN_PEAK = 2.0**-15  # of full scale: a peak below one 16-bit step counts as silence
MAX_LISTED_TRACKS = 12  # tracks that a message lists at most
MAX_TRIED_TRACKS = 16  # tracks that are decoded at most: a file can claim thousands

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
    """The selected audio track. index: of its stream, or None if the file has no sound. note: which of several tracks
    it is, and why others were skipped.
    """

    index: int | None
    note: str = ""


def choose_video(container: InputContainer) -> VideoStream | None:
    """Returns the default picture track that can be decoded, or the largest, or the first. Album art and chapter
    pictures are excluded: they do not show what happens while the sound plays.
    """

    def preference(stream: VideoStream) -> tuple[bool, bool, int, int]:
        context = stream.codec_context
        size = context.width * context.height if context else 0
        return context is None, not stream.disposition & Disposition.default, -size, stream.index

    pictures = [stream for stream in container.streams.video if not stream.disposition & _NOT_THE_PICTURE]
    return min(pictures, key=preference, default=None)


TRACKS = "a number, from 1 on, or a language as the file names it, such as eng"


def is_track(name: str) -> bool:
    """Whether `name` is a valid track number or language; see `TRACKS`."""
    return int(name) > 0 if name.isdecimal() else name[:1].isalpha()


def choose_audio(container: InputContainer, track: str | None, reopen: Open) -> Heard:
    """Selects the audio track; `track`: its number (from 1) or its language; None for a player's choice.

    A player prefers, in this order, a track that can be decoded, is not a commentary, is the default, has the most
    channels, or is the first. Tracks without samples, or with only digital silence, are skipped if another one has
    sound; to check, `reopen` opens the file again. Raises MediaError if `track` does not exist.
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
    described = "; ".join(
        f"{streams.index(stream) + 1} {why}" for stream, why in passed.items() if stream is not chosen
    )
    number = streams.index(chosen) + 1
    note = f"audio track {number} of {len(streams)}{_described(chosen)}"
    return Heard(chosen.index, f"{note}; {described}" if described else note)


def _with_sound(order: Sequence[AudioStream], reopen: Open) -> tuple[AudioStream, dict[AudioStream, str]]:
    """Returns the first track with sound, and why the tracks before it were skipped."""
    passed: dict[AudioStream, str] = {}
    for stream in order[:MAX_TRIED_TRACKS]:
        with reopen() as container:
            peak = _peak(container, stream.index)
        if peak is not None and peak >= MIN_PEAK:
            return stream, passed
        passed[stream] = "has no sound in it" if peak is None else "is silent"
    silent = [stream for stream, why in passed.items() if why == "is silent"]
    return (silent or list(order))[0], passed


def _peak(container: InputContainer, index: int) -> float | None:
    """Returns the peak of a track relative to full scale, up to the first packet with sound; None without samples."""
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
            if peak is not None and peak >= MIN_PEAK:
                break
    return peak


def _peak_of(frame: AudioFrame) -> float:
    """Peak over all channels: their mean may be silent although they are not."""
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
    """Whether a track has this number or language; `en` also matches `en-GB`."""
    if track.isdecimal():
        return number == int(track)
    spoken, wanted = _language(stream).lower(), track.lower()
    return spoken == wanted or spoken.startswith(f"{wanted}-")


def _language(stream: Stream) -> str:
    language = stream.metadata.get("language", "")
    return language if language.isascii() and language.isprintable() and language != "und" else ""


def _listed(streams: Sequence[AudioStream]) -> str:
    named = [f"{number}{_described(stream)}" for number, stream in enumerate(streams[:MAX_LISTED_TRACKS], 1)]
    more = ", ..." if len(streams) > MAX_LISTED_TRACKS else ""
    return f"{'is' if len(streams) == 1 else 'are'} {', '.join(named)}{more}"


def _described(stream: AudioStream) -> str:
    """Language, channels and flags of a track, in brackets."""
    count = _channels(stream)
    parts = (
        _language(stream)[:20],
        f"{count} channel{'s' * (count != 1)}" if count else "",
        "default" if stream.disposition & Disposition.default else "",
        "commentary" if stream.disposition & Disposition.comment else "",
    )
    described = ", ".join(filter(None, parts))
    return f" ({described})" if described else ""
