"""Decodes the sound of a file to 16 kHz mono, with each sample at its timestamp."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.frame import Frame

from evacap_cli.errors import MediaError
from evacap_cli.media.container import (
    MAX_TIME,
    READ_ERRORS,
    Media,
    NoAudioError,
    one_line,
    open_media,
    survey_file,
)
from evacap_cli.media.mixing import channels_of, find_weights, loudness, mix

SAMPLE_RATE = 16_000  # Hz
WINDOW_MODES = ("loudest", "start", "middle")
ENERGY_STEP = 0.1  # seconds: resolution of the energy in `find_window`
PREROLL = (
    0.5  # seconds decoded before the requested start: codecs with overlap need a pre-roll (Opus: 0.08 s)
)
MIN_GAP = 0.05  # seconds: a larger timestamp difference counts as a gap (Matroska rounds to 0.001)
MAX_PADDING = (
    0.1  # seconds: the decoded sound of some codecs exceeds the stated length by this much empty padding
)
BLOCK_SECONDS = 0.5  # seconds of sound processed at once
MIXING_SECONDS = 60.0  # seconds of sound that share one set of mixing weights ...
MAX_HELD_SAMPLES = 1 << 26  # ... up to this many samples: 256 MiB
LONGEST_GAP = 60.0  # seconds: longest accepted gap if the file does not state its length
PLAUSIBLE_RATES = range(100, 1_000_001)  # Hz; other rates are not plausible and would need unbounded memory
MAX_SEARCHED_SAMPLES = (
    6 * 3600 * 48_000
)  # samples that `find_window` searches at most: a small file can hold days of silence


class Block(NamedTuple):
    """A block of decoded sound."""

    time: float  # of its first sample, in seconds
    samples: np.ndarray  # (S, C) float32 in [-1, 1]
    rate: int  # Hz
    follows: bool  # whether it continues the previous block without a gap


def read_audio(
    path: str | Path, start: float = 0.0, end: float | None = None, track: str | None = None
) -> np.ndarray:
    """Reads the sound from `start` to `end` seconds, or to its end: (S,) float32 in [-1, 1], 16 kHz mono.

    Time 0 is the start of the earlier of sound and picture. A late start and gaps are filled with silence. Nothing is
    added after the end of the sound, so the result may have fewer samples than requested, or none. Channels are
    averaged, or added if averaging would cancel them (see `find_weights`); this is decided once per minute of sound.
    `track`: see `open_media`. Raises NoAudioError (`no audio track`) or MediaError.
    """
    with open_media(path, track) as media:
        return _waveform(_blocks(media, max(0.0, start), end), start, end)


class SoundPass:
    """Reads the sound of an open file in one pass from `start` seconds on, and buffers only the current part.

    `end`: end of the sound in seconds; None until it is known.
    """

    def __init__(self, media: Media, start: float) -> None:
        self.end: float | None = None
        self._coming = _from(media, start)
        self._held: deque[Block] = deque()

    def read(self, start: float, end: float) -> np.ndarray:
        """Returns the same samples as `read_audio`. `start` must not decrease between calls. Raises NoAudioError and
        MediaError.
        """
        self._forget(start)
        while self.end is None and (not self._held or self._held[-1].time < end + PREROLL):
            block = next(self._coming, None)
            if block is not None:
                self._held.append(block)
                self._forget(start)
            else:
                self.end = _end(self._held[-1]) if self._held else 0.0
        return _waveform(_joined(_until(iter(self._held), end)), start, end)

    def resumes(self, time: float) -> float:
        """Returns the first time from `time` on at which the buffer has sound, or `time` if there is none."""
        return next((max(time, block.time) for block in self._held if _end(block) > time), time)

    def _forget(self, start: float) -> None:
        """Drops the blocks before the pre-roll of `start`, so that the result equals that of a seek to `start`."""
        while start > 2 * PREROLL and len(self._held) > 1 and self._held[1].time <= start - PREROLL:
            self._held.popleft()


def _end(block: Block) -> float:
    return block.time + len(block.samples) / block.rate


def _waveform(blocks: Iterable[Block], start: float, end: float | None) -> np.ndarray:
    """(S,) float32: the part of `blocks` from `start` to `end`."""
    pieces: list[tuple[int, np.ndarray]] = []
    for at, samples in _resample(_mixed(blocks, start, end)):
        first = round((at - start) * SAMPLE_RATE)
        samples = samples[max(0, -first) :]
        if len(samples):
            pieces.append((max(0, first), samples))
    length = max((first + len(samples) for first, samples in pieces), default=0)
    if end is not None:
        length = min(length, max(0, round((end - start) * SAMPLE_RATE)))
    waveform = np.zeros(length, dtype=np.float32)
    for first, samples in pieces:
        piece = waveform[first : first + len(samples)]
        piece[:] = samples[: len(piece)]
    return np.clip(waveform, -1.0, 1.0, out=waveform)


def _mixed(blocks: Iterable[Block], start: float, end: float | None) -> Iterator[Block]:
    """Mixes each block down to one channel, (S, 1). Blocks with the same number of channels share the weights of the
    sound from `start` to `end`, or of each `MIXING_SECONDS` seconds of it. Holds at most `MAX_HELD_SAMPLES` samples.
    """
    held: list[Block] = []
    limit, size = math.inf if end is None else end, 0

    def mixed() -> Iterator[Block]:
        kinds = {block.samples.shape[1] for block in held}
        weights = {
            kind: find_weights(_inside(b, start, limit) for b in held if b.samples.shape[1] == kind)
            for kind in kinds
        }
        for block in held:
            yield block._replace(samples=mix(block.samples, weights[block.samples.shape[1]])[:, None])
        held.clear()

    for block in blocks:
        full = size > MAX_HELD_SAMPLES or (held and block.time >= held[0].time + MIXING_SECONDS)
        if full or (held and _end(held[-1]) < start - PREROLL):
            yield from mixed()
            size = 0
        held.append(block)
        size += block.samples.size
    yield from mixed()


def _inside(block: Block, start: float, end: float) -> np.ndarray:
    """(S, C): the part of a block between `start` and `end` seconds."""
    first, last = (
        math.ceil(min(max(0.0, (time - block.time) * block.rate), len(block.samples)))
        for time in (start, end)
    )
    return block.samples[first:last]


def find_window(
    path: str | Path, seconds: float = 10.0, mode: str = "loudest", track: str | None = None
) -> tuple[float, float]:
    """Returns (start, end) in seconds of the window that is captioned if the sound is longer than `seconds`.

    `loudest`: the window with the most energy, to 0.1 s; the first one of equals. It takes one pass over the sound (at
    most its first 6 hours at 48 kHz), keeps 8 bytes per 0.1 s, and also measures where the sound ends. `start` and
    `middle` need no pass. Shorter sound gives (0, its length). `track`: see `open_media`. Raises ValueError for an
    unknown mode, NoAudioError and MediaError.
    """
    if mode not in WINDOW_MODES:
        raise ValueError(f"mode {mode!r}: one of {', '.join(WINDOW_MODES)}")
    seen = survey_file(path, track)
    if seen.audio is None:
        raise NoAudioError
    total = seen.heard if seen.heard is not None else seen.seconds or 0.0
    if total <= seconds:
        return 0.0, total
    if mode == "start":
        return 0.0, seconds
    if mode == "middle":
        start = (total - seconds) / 2
        return start, start + seconds
    with open_media(path, track) as media:
        energy, end = _energies(_blocks(media, 0.0, None))
    if end is not None and abs(end - total) > MAX_PADDING:
        total = end
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    width = min(max(1, round(seconds / ENERGY_STEP)), len(energy))
    loudness = sums[width:] - sums[:-width]
    # equal up to rounding of the sums: take the first
    best = int(np.argmax(loudness >= loudness.max() * (1 - 1e-9)))
    start = max(0.0, min(round(best * ENERGY_STEP, 3), total - seconds))
    return start, min(start + seconds, total)


def _energies(blocks: Iterable[Block]) -> tuple[np.ndarray, float | None]:
    """Returns the energy in each ENERGY_STEP, (ceil(end / ENERGY_STEP),) float64, independent of the sample rate; and
    the end of the sound in seconds, or None if it was not reached.
    """
    energy = np.zeros(1024)
    used, seen, end = 1, 0, 0.0
    for block in blocks:
        seen += len(block.samples)
        if seen > MAX_SEARCHED_SAMPLES:
            return energy[:used], None
        end = _end(block)
        bins = ((block.time + np.arange(len(block.samples)) / block.rate) / ENERGY_STEP).astype(np.int64)
        first, last = max(0, int(bins[0])), int(bins[-1])
        if last < 0:
            continue
        if last >= len(energy):
            energy = np.concatenate([energy, np.zeros(max(last + 1 - len(energy), len(energy)))])
        sums = np.bincount(np.maximum(bins - first, 0), loudness(block.samples))
        energy[first : first + len(sums)] += sums / block.rate
        used = max(used, last + 1)
    return energy[:used], end


def _resample(blocks: Iterable[Block]) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (time of the first sample, (S,) float32 at 16 kHz). Each run without gaps is resampled as one.

    Each run starts on a sample that coincides with a 16 kHz sample, padded with silence if necessary. The result
    therefore does not depend on where reading started.
    """
    resampler: av.AudioResampler | None = None
    rate, at, done, silent = 0, 0.0, 0, 0  # of the run: its rate, its start, samples done, samples before it

    def pieces(frame: AudioFrame | None) -> Iterator[tuple[float, np.ndarray]]:
        nonlocal done
        assert resampler is not None
        for out in filter(None, resampler.resample(frame)):  # at 16 kHz, a flush returns its None
            samples = out.to_ndarray().reshape(-1)
            first = min(len(samples), max(0, silent - done))
            if first < len(samples):
                yield at + (done + first) / SAMPLE_RATE, samples[first:]
            done += len(samples)

    for block in blocks:
        if resampler is None or not block.follows or block.rate != rate:
            if resampler is not None:
                yield from pieces(None)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            rate, done = block.rate, 0
            number = round(block.time * rate)
            before = number % (rate // math.gcd(rate, SAMPLE_RATE))
            at, silent = (number - before) / rate, math.ceil(before * SAMPLE_RATE / rate)
            block = block._replace(samples=np.pad(block.samples, ((before, 0), (0, 0))))
        frame = AudioFrame.from_ndarray(block.samples.T, format="flt", layout="mono")
        frame.sample_rate = block.rate
        yield from pieces(frame)
    if resampler is not None:
        yield from pieces(None)


def _blocks(media: Media, start: float, end: float | None) -> Iterator[Block]:
    """Yields the sound from before `start` (or from its own start) to `end`, in order, with plausible times."""
    return _joined(_until(_from(media, start), end))


def _from(media: Media, start: float) -> Iterator[Block]:
    """Yields all blocks from one before `start`, or from the first."""
    if media.audio is None:
        raise NoAudioError
    if start > 2 * PREROLL and media.seekable:
        media.use_only(media.audio)
        with suppress(*READ_ERRORS):  # some files can only be read from their beginning
            media.seek(media.audio, start - PREROLL)
        blocks = _placed(_decoded(media), media.seconds)
        first = next(blocks, None)
        if first is not None and first.time <= start:
            yield first
            yield from blocks
            return
        # The seek went too far, or there is a gap: only reading from the beginning can distinguish them.
        media.rewind()
    media.use_only(media.audio)
    yield from _placed(_decoded(media), media.seconds)


def _until(blocks: Iterator[Block], end: float | None) -> Iterator[Block]:
    """Yields blocks that start before `end`, plus enough for the resampler."""
    for block in blocks:
        if end is not None and block.time >= end + PREROLL:
            return
        yield block


def _placed(frames: Iterable[tuple[float | None, np.ndarray, int]], seconds: float | None) -> Iterator[Block]:
    """Places blocks at their times. Gaps are kept; jitter and implausible jumps are read as continuous sound."""
    expected: float | None = None
    shift = 0.0  # correction of the times since the last rejected jump
    for stamp, samples, rate in frames:
        time = expected if stamp is None else stamp + shift
        if time is None or (expected is None and abs(time) > MAX_TIME):
            shift -= time or 0.0
            time = 0.0
        follows = expected is not None and abs(time - expected) <= MIN_GAP
        if expected is not None and not follows:
            limit = seconds + 1.0 if seconds is not None else expected + LONGEST_GAP
            if not expected < time < limit:
                shift += expected - time
                follows = True
        if follows and expected is not None:
            time = expected
        if time >= MAX_TIME:
            return
        yield Block(time, samples, rate, follows)
        expected = time + len(samples) / rate


def _joined(blocks: Iterable[Block]) -> Iterator[Block]:
    """Merges blocks to about `BLOCK_SECONDS` seconds and replaces NaN by silence."""
    held: list[Block] = []
    length = 0
    for block in blocks:
        if held and (
            not block.follows
            or block.rate != held[0].rate
            or block.samples.shape[1] != held[0].samples.shape[1]
            or length >= BLOCK_SECONDS * block.rate
        ):
            yield _join(held)
            held, length = [], 0
        held.append(block)
        length += len(block.samples)
    if held:
        yield _join(held)


def _join(blocks: list[Block]) -> Block:
    samples = np.concatenate([block.samples for block in blocks])
    np.nan_to_num(samples, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
    return blocks[0]._replace(samples=np.clip(samples, -1.0, 1.0, out=samples))


def _decoded(media: Media) -> Iterator[tuple[float | None, np.ndarray, int]]:
    """Yields (seconds or None, (S, C) float32, rate) of each frame, or each second of it. Skips damaged packets.

    Raises MediaError if nothing can be decoded.
    """
    assert media.audio is not None
    zero = media.clock.zero(media.audio)
    decoded, error = 0, None
    for packet in media.packets(media.audio):
        try:
            frames: list[Frame] = list(packet.decode())
            sounds = [_sound(frame) for frame in frames if isinstance(frame, AudioFrame)]
        except READ_ERRORS as caught:
            error = caught
            continue
        for time, samples, rate in sounds:
            for first in range(0, len(samples), rate):
                origin = None if first or time is None else time - zero
                yield origin, samples[first : first + rate], rate
                decoded += 1
    if not decoded and error is not None:
        raise MediaError(f"the sound cannot be decoded: {one_line(error)}", "convert it again") from error


def _sound(frame: AudioFrame) -> tuple[float | None, np.ndarray, int]:
    """(seconds on the container's clock or None, (S, C) float32, rate). ValueError for implausible rates."""
    if frame.samples and frame.sample_rate not in PLAUSIBLE_RATES:
        raise ValueError(f"it claims {frame.sample_rate} samples a second")
    time = frame.pts * float(frame.time_base) if frame.pts is not None and frame.time_base else None
    return time, channels_of(frame) if frame.samples else np.zeros((0, 1), np.float32), frame.sample_rate
