"""One continuous clock per file: its start, the points where timestamps restart, and the corrected packet times.

In concatenated files (MPEG-TS, MPEG-PS, Ogg, Matroska), timestamps restart at each joint. The clock continues: each
piece starts at the end of the previous one and keeps the offset between its sound and picture. Gaps are kept: of any
length in a single track, up to `MAX_GAP` in all tracks at once. Tracks with unrelated clocks (sound in time of day,
pictures from 0) start together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from av.audio.frame import AudioFrame
from av.frame import Frame
from av.packet import Packet
from av.stream import Stream

from evacap_cli.media.limits import READ_ERRORS

MAX_REORDERING = 0.5  # seconds by which a packet may precede earlier packets: they are stored out of order
MAX_GAP = 60.0  # seconds without packets that still count as a gap, not as another clock
MAX_START_DIFFERENCE = (
    60.0  # seconds between the starts of two tracks of one clock; if further apart, they must overlap
)
MAX_CONTINUATION = (
    3.0  # seconds: if another track continues longer than this after a jump, the jump is damage, not a joint
)
MIN_RUN = 0.5  # seconds: a shorter run between two jumps is damage
MAX_JUMPS = 1000  # in a file; with more, the timestamps cannot be corrected


@dataclass(frozen=True)
class Piece:
    """A part of a file with timestamps of one clock. first: its first byte. begins: its start in seconds on the file's
    clock. zeros: by stream index, the timestamp in seconds at that moment.
    """

    first: int
    begins: float
    zeros: Mapping[int, float]

    def zero(self, index: int) -> float:
        return self.zeros.get(index, min(self.zeros.values(), default=0.0))


@dataclass(frozen=True)
class Clock:
    """A file's clock: at least one piece, in the order of the file."""

    pieces: tuple[Piece, ...]

    @property
    def restarts(self) -> bool:
        return len(self.pieces) > 1

    def zero(self, stream: Stream) -> float:
        """Returns the timestamp in seconds, after `mend`, of 0 s on the file's clock."""
        return self.pieces[0].zero(stream.index)

    def mend(self, packets: Iterable[Packet]) -> Iterable[Packet]:
        """Yields the packets, which start with the file's first, with continuous timestamps."""
        place: dict[int, int] = {}
        firsts = [piece.first for piece in self.pieces]
        for packet in packets:
            index, base = packet.stream.index, packet.time_base
            if packet.pos is not None:
                place[index] = max(place.get(index, 0), bisect_right(firsts, packet.pos) - 1)
            piece = self.pieces[place.get(index, 0)]
            later = (piece.begins - piece.zero(index)) - (self.pieces[0].begins - self.pieces[0].zero(index))
            if later and base:
                ticks = round(later / float(base))
                if packet.pts is not None:
                    packet.pts += ticks
                if packet.dts is not None:
                    packet.dts += ticks
            yield packet


def simple_clock(starts: Mapping[int, float]) -> Clock:
    """Returns the clock of a file without restarts; `starts`: seconds, by stream index."""
    zero = min(starts.values(), default=0.0)
    return Clock((Piece(0, 0.0, dict.fromkeys(starts, zero)),))


@dataclass
class _Run:
    """Packets of one track without a jump. Seconds, as stamped; `reached`: where the next packet is expected."""

    stream: int
    first: int
    start: float
    end: float
    reached: float

    @property
    def length(self) -> float:
        return self.end - self.start


@dataclass
class _Jump:
    """A jump of a track at byte `first`, which ends its run, and the positions of the other tracks at that point."""

    first: int
    ended: _Run
    others: list[tuple[_Run, float]]

    @property
    def is_joint(self) -> bool:
        return all(run.reached - reached <= MAX_CONTINUATION for run, reached in self.others)


@dataclass
class Timeline:
    """Measures a file's clock and length from all packets of some tracks, added in file order."""

    starts: Mapping[int, float] = field(default_factory=dict)
    """Start timestamps of tracks in seconds, if the file states them."""

    def __post_init__(self) -> None:
        self._now: dict[int, _Run] = {}
        self._runs: list[_Run] = []
        self._jumps: list[_Jump] = []
        self.reached = 0
        """The last byte at which a packet starts."""

    def add(self, packet: Packet) -> None:
        """Adds a packet; ignores empty ones, which end a track."""
        if not packet.size or not packet.time_base:
            return
        base = float(packet.time_base)
        index, run = packet.stream.index, self._now.get(packet.stream.index)
        self.reached = max(self.reached, packet.pos or 0)
        decoded = packet.dts if packet.dts is not None else packet.pts
        shown = packet.pts if packet.pts is not None else packet.dts
        length = float(packet.duration or 0) * base
        if decoded is None or shown is None:
            time = start = run.reached if run is not None else self.starts.get(index, 0.0)
            length = length or _decoded_seconds(packet)
        else:
            time, start = decoded * base, shown * base
        jumps = run is not None and not run.reached - MAX_REORDERING <= time <= run.reached + MAX_GAP
        if run is not None and jumps and len(self._jumps) < MAX_JUMPS:
            others = [(other, other.reached) for at, other in self._now.items() if at != index]
            self._jumps.append(_Jump(self.reached, run, others))
            run = None
        if run is None:
            run = self._now[index] = _Run(index, self.reached, start, start + length, time)
            self._runs.append(run)
        run.start, run.end = min(run.start, start), max(run.end, start + length)
        run.reached = time + length

    def clock(self) -> Clock:
        return Clock(tuple(piece for piece, _ in self._pieces()))

    def ends(self) -> dict[int, float]:
        """Returns the end of each track with packets, by stream index, in seconds on the file's clock."""
        ends: dict[int, float] = {}
        for piece, spans in self._pieces():
            for index, (_, end) in spans.items():
                ends[index] = max(ends.get(index, 0.0), piece.begins + end - piece.zero(index))
        return ends

    def _joints(self) -> list[int]:
        """Returns the first byte of each piece, in ascending order."""
        joints, explained = [0], set[int]()
        for jump in self._jumps if len(self._jumps) < MAX_JUMPS else []:
            if id(jump.ended) not in explained and jump.is_joint and jump.first > joints[-1]:
                joints.append(jump.first)
                explained.update(id(run) for run, _ in jump.others)  # their own jump follows shortly
        return joints

    def _pieces(self) -> list[tuple[Piece, dict[int, tuple[float, float]]]]:
        """Returns each piece with the (start, end) timestamps of its tracks."""
        joints = self._joints()
        found: list[dict[int, list[_Run]]] = [{} for _ in joints]
        for run in self._runs:
            found[bisect_right(joints, run.first) - 1].setdefault(run.stream, []).append(run)
        pieces, begins = [], 0.0
        for number, (first, tracks) in enumerate(zip(joints, found, strict=True)):
            spans = {index: _span(runs) for index, runs in tracks.items()}
            if number == 0:  # a decoder may drop the start: the stated start counts
                spans = {i: (self.starts.get(i, start), end) for i, (start, end) in spans.items()}
            zeros = _zeros(spans)
            pieces.append((Piece(first, begins, zeros), spans))
            begins += max((end - zeros[index] for index, (_, end) in spans.items()), default=0.0)
        return pieces


def _decoded_seconds(packet: Packet) -> float:
    """Decodes a sound packet without a stated duration to measure it. At the joint of two FLAC files, one packet holds
    all data that the parser has not yet split.
    """
    with suppress(*READ_ERRORS):
        frames: list[Frame] = list(packet.decode())
        sounds = [frame for frame in frames if isinstance(frame, AudioFrame) and frame.sample_rate]
        return sum(frame.samples / frame.sample_rate for frame in sounds)
    return 0.0


def _span(runs: list[_Run]) -> tuple[float, float]:
    """(start, end) of a track in a piece, without damaged runs."""
    longest = max(run.length for run in runs)
    whole = [run for run in runs if run.length >= min(MIN_RUN, longest)]
    return min(run.start for run in whole), max(run.end for run in whole)


def _zeros(spans: Mapping[int, tuple[float, float]]) -> dict[int, float]:
    """Returns the start timestamp of the clock by stream index: one for all tracks unless their clocks differ."""
    earliest = min((start for start, _ in spans.values()), default=0.0)
    first_end = min((end for _, end in spans.values()), default=0.0)
    common = all(start - earliest <= MAX_START_DIFFERENCE or start < first_end for start, _ in spans.values())
    return {index: earliest if common else start for index, (start, _) in spans.items()}
