"""Media files that are damaged on purpose: parts of real ones cut, flipped, swapped and spliced. The same seed, the
same files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evacap_cli.errors import MediaError
from evacap_cli.features import FeatureSettings
from evacap_cli.media import DecodePool, NoAudioError, Outcome, read_frames
from evacap_cli.tasks.captioning.inputs.clip_reader import read_source, read_source_carefully
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.clips import Clip, ClipSettings, load_clip, load_clip_carefully

from .clips import write

# suffix, picture, sound, its rate
SEEDS: Sequence[tuple[str, str | None, str | None, int]] = (
    ("mp4", "libx264", "aac", 16_000),
    ("mov", "mjpeg", "pcm_s16le", 8000),
    ("mkv", "libx264", "flac", 8000),
    ("webm", "libvpx-vp9", "libopus", 48_000),
    ("avi", "mpeg4", "libmp3lame", 16_000),
    ("ts", "mpeg2video", "mp2", 32_000),
    ("flv", "flv", "libmp3lame", 44_100),
    ("mpg", "mpeg1video", "mp2", 32_000),
    ("wmv", "wmv2", "libmp3lame", 16_000),
    ("m4a", None, "alac", 8000),
    ("ogg", None, "vorbis", 16_000),
    ("opus", None, "libopus", 48_000),
    ("wav", None, "pcm_s16le", 8000),
    ("aiff", None, "pcm_s16be", 8000),
    ("flac", None, "flac", 8000),
    ("mp3", None, "libmp3lame", 16_000),
    ("gif", "gif", None, 0),
)
MUXING = {
    "ogg": {"page_duration": "100000"},  # microseconds: else one page holds all
    "opus": {"page_duration": "100000"},
    "mov": {"movflags": "faststart"},  # an index in front; that of the mp4 is at its end
}
ODD_NUMBERS = (0, 1, -1, 2**7, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, -(2**63))

FEATURES = FeatureSettings(seconds=2.0, audio_frames=200, mel_bins=64, frames=4, image_size=32)
SETTINGS = ClipSettings(FEATURES)
SEGMENTS = ClipSettings(FEATURES, segment=1.0, hop=0.5)

Mutation = Callable[[np.random.Generator, bytes, bytes], bytes]


@dataclass(frozen=True)
class Row:
    """What came of one file. how: `ok`, `heard` (no picture could be shown), `failed` or `lost` (a worker died, hung or
    grew too large); why: in one line."""

    path: Path
    how: str
    why: str = ""


def make_seeds(folder: Path) -> dict[str, bytes]:
    """A small whole file of each kind, by suffix."""
    seeds = {}
    for suffix, video, audio, rate in SEEDS:
        pixels = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(video or "", "yuv420p")
        path = folder / f"seed.{suffix}"
        write(
            path,
            0.8,
            video=video,
            audio=audio,
            rate=rate,
            fps=25,
            size=(32, 24),
            pixels=pixels,
            options=MUXING.get(suffix),
        )
        seeds[suffix] = path.read_bytes()
        path.unlink()
    return seeds


def fuzz(folder: Path, seeds: dict[str, bytes], count: int, seed: int) -> Iterator[Path]:
    """Writes `count` files, of all kinds and ways in turn; the way is part of the name."""
    kinds, ways = sorted(seeds), sorted(MUTATIONS)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        kind, way = kinds[number % len(kinds)], ways[number // len(kinds) % len(ways)]
        data = seeds[kind]
        for _ in range(1 if rng.random() < 0.8 else 3):
            data = MUTATIONS[way](rng, data, seeds[kinds[rng.integers(len(kinds))]])
        path = folder / f"{number:05d}-{way}.{kind}"
        path.write_bytes(data)
        yield path


def _place(rng: np.random.Generator, data: bytes) -> int:
    """A place in a file, most often where it says what it holds: at its beginning or its end."""
    where, size = rng.random(), max(1, len(data))
    if where < 0.4:
        return int(rng.integers(min(size, 600)))
    if where < 0.6:
        return size - 1 - int(rng.integers(min(size, 900)))
    return int(rng.integers(size))


def _cut(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    return data[: 1 + _place(rng, data)]


def _behead(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    return data[_place(rng, data) :] or b"\0"


def _flip(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    flipped = bytearray(data)
    for _ in range(2 ** int(rng.integers(8))):
        flipped[_place(rng, data)] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


def _number(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    """Some numbers are now zero, negative or huge, in either order of bytes."""
    changed = bytearray(data)
    for _ in range(2 ** int(rng.integers(5))):
        place, value = _place(rng, data), ODD_NUMBERS[rng.integers(len(ODD_NUMBERS))]
        size = int(rng.choice([2, 4, 8]))
        raw = (value % 2 ** (8 * size)).to_bytes(size, "big" if rng.random() < 0.5 else "little")
        changed[place : place + size] = raw[: len(changed) - place]
    return bytes(changed)


def _swap(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    a, b, c = sorted(_place(rng, data) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _repeat(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    a, b = sorted(_place(rng, data) for _ in range(2))
    return data[:b] + data[a:b] * min(int(rng.integers(1, 200)), 1 + 200_000 // max(1, b - a)) + data[b:]


def _blank(rng: np.random.Generator, data: bytes, _: bytes) -> bytes:
    a, b = sorted(_place(rng, data) for _ in range(2))
    fill = rng.bytes(b - a) if rng.random() < 0.5 else bytes([rng.choice([0, 255])]) * (b - a)
    return data[:a] + fill + data[b:]


def _splice(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data[: 1 + _place(rng, data)] + other[_place(rng, other) :]


def _graft(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    place, (a, b) = _place(rng, data), sorted(_place(rng, other) for _ in range(2))
    return data[:place] + other[a:b] + data[place + (b - a if rng.random() < 0.5 else 0) :]


MUTATIONS: dict[str, Mutation] = {
    "cut": _cut,
    "behead": _behead,
    "flip": _flip,
    "number": _number,
    "swap": _swap,
    "repeat": _repeat,
    "blank": _blank,
    "splice": _splice,
    "graft": _graft,
}


def read_clip(path: Path) -> Clip:
    """As captioning reads a file; of one without sound, the pictures are looked at all the same."""
    try:
        return load_clip(path, SETTINGS)
    except NoAudioError:
        with suppress(MediaError):
            read_frames(path, [0.1, 0.5], np.mean)
        raise


def read_clip_carefully(path: Path) -> Clip:
    return load_clip_carefully(path, SETTINGS)


def read_segments(path: Path) -> Iterator[Clip | None]:
    result = read_source(Source(str(path), str(path)), SEGMENTS)
    assert isinstance(result, Iterator)
    return result


def read_segments_carefully(path: Path) -> Iterator[Clip | None]:
    result = read_source_carefully(Source(str(path), str(path)), SEGMENTS)
    assert isinstance(result, Iterator)
    return result


def outcomes(
    paths: Iterable[Path],
    workers: int,
    timeout: float,
    memory: int,
    segments: bool = False,
    careful: bool = False,
) -> Iterator[Row]:
    """A row per file, in order, through the pool that captioning uses. Without its rescue, so that every loss is seen;
    `careful`: by the rescue itself."""
    function = (
        (read_segments_carefully if careful else read_segments)
        if segments
        else (read_clip_carefully if careful else read_clip)
    )
    with DecodePool(workers, function, timeout=timeout, memory=memory) as pool:
        row: Row | None = None
        for outcome in pool.imap(paths):
            row = _row(outcome, row)
            if outcome.last:
                yield row
                row = None


def _row(outcome: Outcome[Path, Clip], before: Row | None) -> Row:
    path, clip, error = outcome.item, outcome.value, outcome.error
    if error is not None:
        lost = error.startswith(("decoding took more than", "decoding ended its process"))
        return Row(path, "lost" if lost else "failed", error)
    if clip is None:
        return before or Row(path, "failed", "no clip was read from it")
    check(clip)
    if clip.frames is None and clip.picture_error:
        return Row(path, "heard", clip.picture_error)
    return before or Row(path, "ok")


def check(clip: Clip) -> None:
    """What a model relies on."""
    assert clip.fbank.dtype == np.float32
    assert clip.fbank.shape[1] == FEATURES.mel_bins
    assert np.isfinite(clip.fbank).all()
    assert 0 <= clip.start < clip.end < np.inf
    assert clip.end - clip.start <= FEATURES.seconds + 1e-6
    if clip.frames is not None:
        assert clip.frames.dtype == np.uint8
        assert clip.frames.shape == (FEATURES.frames, 3, FEATURES.image_size, FEATURES.image_size)


def table(rows: Iterable[Row]) -> str:
    """How many of each kind ended how."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.path.suffix[1:], Counter())[row.how] += 1
        counts.setdefault("all", Counter())[row.how] += 1
    lines = [f"{'kind':8}{'files':>7}{'ok':>7}{'heard':>7}{'failed':>7}{'lost':>7}"]
    for kind in sorted(counts, key=lambda kind: (kind == "all", kind)):
        of = counts[kind]
        lines.append(
            f"{kind:8}{of.total():7}" + "".join(f"{of[how]:7}" for how in ("ok", "heard", "failed", "lost"))
        )
    return "\n".join(lines)
