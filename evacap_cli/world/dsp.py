"""Building blocks of synthetic sound: noise, oscillators, filters, envelopes. Mono float32 at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 16_000
Wave = np.ndarray
Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class VoiceInput:
    """The input of a voice: `seconds` of sound with strokes at `hits` (seconds from the start).

    `pitch` is a factor around 1. `g` draws everything that the script does not define.
    """

    seconds: float
    hits: tuple[float, ...]
    pitch: float
    g: np.random.Generator

    @property
    def n(self) -> int:
        return max(1, round(self.seconds * SAMPLE_RATE))

    def uniform(self, low: float, high: float) -> float:
        return float(self.g.uniform(low, high))


def seconds_axis(n: int) -> Wave:
    return np.arange(n, dtype=np.float32) / np.float32(SAMPLE_RATE)


def white(g: np.random.Generator, n: int) -> Wave:
    return g.standard_normal(n, dtype=np.float32)


def fast_length(n: int) -> int:
    """The next length with a fast FFT: a multiple of 800 whose other factors are small."""
    blocks = -(-n // 800)
    while True:
        rest = blocks
        for p in (2, 3, 5, 7):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return blocks * 800
        blocks += 1


def shaped(x: Wave, curve: Curve) -> Wave:
    """Multiplies the spectrum by `curve(frequencies in Hz)`."""
    size = fast_length(len(x)) if len(x) > 4096 else 1 << max(6, (len(x) - 1).bit_length())
    spectrum = np.fft.rfft(x, size)
    freqs = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32)
    return np.fft.irfft(spectrum * curve(freqs), size)[: len(x)].astype(np.float32)


def band(low: float, high: float, order: int = 2) -> Curve:
    """A smooth band-pass with half-power points near `low` and `high` Hz."""

    def curve(f: np.ndarray) -> np.ndarray:
        up = 1 / (1 + (low / np.maximum(f, 1.0)) ** (2 * order)) if low > 0 else 1.0
        return np.sqrt(up / (1 + (f / high) ** (2 * order))).astype(np.float32)

    return curve


def peaks(*centres: tuple[float, float, float], floor: float = 0.0) -> Curve:
    """Resonances: (centre Hz, bandwidth Hz, gain) each, over a `floor`."""

    def curve(f: np.ndarray) -> np.ndarray:
        out = np.full_like(f, floor)
        for centre, width, gain in centres:
            out += gain / (1 + ((f - centre) / width) ** 2)
        return out

    return curve


def tilt(db_per_octave: float, at: float = 200.0) -> Curve:
    """A straight slope above `at` Hz."""
    power = db_per_octave / 6.0206
    return lambda f: (np.maximum(f, at) / at).astype(np.float32) ** power


def band_noise(g: np.random.Generator, n: int, low: float, high: float, order: int = 2) -> Wave:
    """White noise through `band`, with unit RMS."""
    x = shaped(white(g, n), band(low, high, order))
    return x / (np.sqrt(np.mean(x * x)) + 1e-9)


def phase_of(freq: Wave | float, n: int) -> Wave:
    """Cycles since the start, from a frequency in Hz that may vary."""
    if np.ndim(freq) == 0:
        return seconds_axis(n).astype(np.float64) * float(freq)
    return np.cumsum(np.asarray(freq, dtype=np.float64)) / SAMPLE_RATE


def oscillator(freq: Wave | float, n: int, harmonics: Sequence[float]) -> Wave:
    """A periodic wavetable tone. Harmonics above 7.5 kHz (at the highest frequency) are omitted."""
    top = float(np.max(freq))
    keep = max(1, min(len(harmonics), int(7500 / max(top, 1.0))))
    size = 4096
    # one period from its sine coefficients: table = sum_k h_k sin(2 pi k x)
    spectrum = np.zeros(size // 2 + 1, np.complex64)
    spectrum[1 : keep + 1] = -0.5j * size * np.asarray(harmonics[:keep], np.float32)
    table = np.fft.irfft(spectrum, size).astype(np.float32)
    index = (phase_of(freq, n) * size).astype(np.int64) & (size - 1)
    return table[index]


def saw_harmonics(count: int, power: float = 1.0) -> list[float]:
    return [1.0 / k**power for k in range(1, count + 1)]


def wobble(g: np.random.Generator, n: int, rate: float) -> Wave:
    """A smooth random curve in about [-1, 1] with about `rate` turning points per second."""
    points = max(4, int(n / SAMPLE_RATE * rate) + 4)
    knots = g.uniform(-1, 1, points)
    x = np.linspace(0, points - 1.001, n)
    i = x.astype(np.int64)
    s = x - i
    s = s * s * (3 - 2 * s)
    return (knots[i] * (1 - s) + knots[np.minimum(i + 1, points - 1)] * s).astype(np.float32)


def fade(x: Wave, attack: float, release: float) -> Wave:
    """Fades in over `attack` and out over `release` seconds. Modifies and returns `x`."""
    a = min(len(x) // 2, int(attack * SAMPLE_RATE))
    r = min(len(x) // 2, int(release * SAMPLE_RATE))
    if a > 1:
        x[:a] *= np.sin(np.linspace(0, np.pi / 2, a, dtype=np.float32)) ** 2
    if r > 1:
        x[-r:] *= np.cos(np.linspace(0, np.pi / 2, r, dtype=np.float32)) ** 2
    return x


def decay(n: int, seconds: float) -> Wave:
    """exp(-t / seconds)."""
    return np.exp(-seconds_axis(n) / np.float32(seconds))


def add(out: Wave, x: Wave, at: float) -> None:
    """Mixes `x` into `out` at `at` seconds, truncated at both ends of `out`."""
    start = int(at * SAMPLE_RATE)
    if start < 0:
        x, start = x[-start:], 0
    stop = min(len(out), start + len(x))
    if stop > start:
        out[start:stop] += x[: stop - start]


def glide(points: Sequence[tuple[float, float]], n: int) -> Wave:
    """Piecewise linear curve through (seconds, value) points."""
    times, values = zip(*points, strict=True)
    return np.interp(seconds_axis(n), times, values).astype(np.float32)
