"""Small files in which every second of the sound, and of the picture, says which one it is."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evacap_cli.media import SAMPLE_RATE, SoundPass, find_window, probe, read_audio, read_frames
from evacap_cli.media.container import open_media

from .clips import heard, write

LOWEST, STEP = 400.0, 60.0  # Hz, of second 0, and between seconds
DARK, SLOPE = 20.0, 18.0  # greys, of second 0, and between seconds
SOFT, LOUD = 0.1, 0.8  # of full scale


def seconds_tone(
    first: int, count: int, rate: int, channels: int = 1, loud: int | None = None, base: float = LOWEST
) -> np.ndarray:
    """(channels, S) float64: seconds `first`, `first` + 1, ..., each at its own pitch; second `loud` is louder."""
    t = np.arange(count * rate) / rate
    number = first + np.floor(t + 1e-9)
    wave = np.where(number == loud, LOUD, SOFT) * np.sin(2 * np.pi * (base + STEP * number) * (t % 1))
    return np.repeat(wave[None], channels, axis=0)


def part(
    path: Path,
    first: int,
    count: int,
    video: str | None,
    audio: str | None,
    rate: int = 44_100,
    layout: str = "stereo",
    loud: int | None = None,
    **options: Any,
) -> Path:
    """A file of `count` seconds, that are seconds `first` on of what it is a part of."""

    def draw(t: float, width: int, height: int) -> np.ndarray:
        grey = max(0, round(DARK + SLOPE * (first + int(t + 1e-6))))
        return np.full((height, width, 3), grey, np.uint8)

    channels = {"mono": 1, "stereo": 2}[layout]
    wave = seconds_tone(first, count, rate, channels, loud)
    return write(
        path,
        float(count),
        video=video,
        audio=audio,
        rate=rate,
        layout=layout,
        wave=wave,
        draw=draw,
        **options,
    )


def joined(path: Path, counts: Sequence[int], loud: int | None = None, **options: Any) -> Path:
    """Parts of so many seconds, joined byte by byte: `cat a.ts b.ts > joined.ts`."""
    data, first = b"", 0
    for count in counts:
        piece = part(path.with_name(f"part{first}{path.suffix}"), first, count, loud=loud, **options)
        data += piece.read_bytes()
        first += count
    path.write_bytes(data)
    return path


def second_heard(wave: np.ndarray) -> float:
    """Which second it is, by its pitch."""
    return (heard(wave) - LOWEST) / STEP


def second_seen(frame: np.ndarray) -> float:
    return (float(frame[8:-8, 8:-8].mean()) - DARK) / SLOPE


def check_sound(path: Path, seconds: float, loud: int, track: str | None = None) -> None:
    """All ways to read a file agree on how long its sound is, and when each second is."""
    info = probe(path, track)
    assert abs(info.heard - seconds) < 0.12, info
    whole = read_audio(path, track=track)
    assert abs(len(whole) / SAMPLE_RATE - seconds) < 0.12
    with open_media(path, track) as media:
        sound = SoundPass(media, 0.0)
        sound.read(seconds + 50, seconds + 51)
        assert sound.end is not None
        assert abs(sound.end - seconds) < 0.12
    for second in range(int(seconds)):
        alone = read_audio(path, second + 0.2, second + 0.8, track)
        for wave in (whole[round((second + 0.2) * SAMPLE_RATE) : round((second + 0.8) * SAMPLE_RATE)], alone):
            assert abs(second_heard(wave) - second) < 0.25, f"second {second} is {second_heard(wave):.2f}"
    middle = find_window(path, 2.0, "middle", track)
    assert abs(middle[0] - (seconds - 2) / 2) < 0.07
    assert abs(find_window(path, 1.0, "loudest", track)[0] - loud) < 0.15
    assert abs(find_window(path, seconds + 9, "start", track)[1] - seconds) < 0.12


def check_picture(path: Path, seconds: float, exact: bool = True) -> None:
    """Every second is seen when it is heard, by any reader."""
    times = [second + 0.5 for second in range(int(seconds))]
    for readers in (("decord", "pyav"), ("pyav",)):
        for asked in (times, times[-1:], times[::3]):
            seen = [second_seen(frame) for frame in read_frames(path, asked, readers=readers)]
            assert np.allclose(seen, [int(t) for t in asked], atol=0.35), (readers, seen)


def patched(path: Path, before: bytes, offset: int, value: bytes) -> Path:
    """Bytes of a file changed, `offset` after the first `before` ends."""
    data = bytearray(path.read_bytes())
    at = data.index(before) + len(before) + offset
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


def with_byte_rate(path: Path, times: float) -> Path:
    """A WAV whose header has another number of bytes a second."""
    data = path.read_bytes()
    (rate,) = struct.unpack_from("<I", data, data.index(b"fmt ") + 16)
    return patched(path, b"fmt ", 12, struct.pack("<I", round(rate * times)))
