"""Clips made of recordings by a seed: repeated, mixed, with reverberation, noise or speech.

The audio classifier is trained on them (`distill.py`), and the captioner on their tags (`recorded.py`).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from teacher import RATE, read_sound

SECONDS = 10.0
SAMPLES = int(SECONDS * RATE)
KINDS = {
    "single": 0.46,
    "mix": 0.22,
    "speech": 0.1,
    "music": 0.08,
    "sequence": 0.08,
    "noise": 0.04,
    "silence": 0.02,
}
SHARES = {"room": 0.3, "band": 0.25, "noise": 0.35}  # share of clips with each effect
AUDIBLE = 0.3  # loudness, relative to the loudest sound of a mix, from which a sound's labels count


@dataclass(frozen=True)
class Recording:
    """One row of recordings.csv. `labels` are AudioSet display names; `role` is train, check or exam."""

    path: str
    source: str
    role: str
    labels: tuple[str, ...]


def read_recordings(path: Path, role: str) -> list[Recording]:
    """The rows of one role of a table with the columns path, source, role and labels (joined by ';')."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["role"] == role]
    return [
        Recording(row["path"], row["source"], role, tuple(filter(None, row["labels"].split(";"))))
        for row in rows
    ]


@dataclass(frozen=True)
class Sound:
    """A recording in a clip: its labels, its loudness relative to the loudest, and its index among consecutive sounds
    (-1: it sounds throughout)."""

    labels: tuple[str, ...]
    level: float = 1.0
    part: int = -1


def labels_of(sounds: Sequence[Sound]) -> set[str]:
    """The labels of all sounds of a clip that are loud enough."""
    return {label for sound in sounds if sound.level >= AUDIBLE for label in sound.labels}


def groups_of(recordings: Sequence[Recording], count: int) -> dict[str, int]:
    """Assigns each source to one of `count` groups with about the same number of recordings."""
    sizes, group = [0] * count, dict[str, int]()
    for source, size in sorted(Counter(r.source for r in recordings).items(), key=lambda x: (-x[1], x[0])):
        group[source] = sizes.index(min(sizes))
        sizes[group[source]] += size
    return group


class Soundscapes:
    """Clips by number: `make(i)` returns the same 10 s for the same recordings and seed."""

    def __init__(self, recordings: Sequence[Recording], seed: int) -> None:
        self.seed = seed
        self.everything = _Pool(recordings)
        self.speech = _Pool([r for r in recordings if "Speech" in r.labels])
        self.music = _Pool([r for r in recordings if "Music" in r.labels])

    def make(self, number: int) -> tuple[np.ndarray, list[Sound]]:
        """(320000,) float32 at 32 kHz in [-1, 1], and the sounds in it."""
        random = np.random.default_rng((self.seed, number))
        kind = str(random.choice(list(KINDS), p=list(KINDS.values())))
        clip, sounds = np.zeros(SAMPLES), list[Sound]()
        if kind == "single":
            clip, labels = self._sound(random, self.everything)
            sounds = [Sound(labels)]
        elif kind == "mix":
            clip, sounds = self._mix(random, [self.everything] * int(random.integers(2, 4)))
        elif kind in ("speech", "music"):
            clip, sounds = self._mix(
                random, [self.everything, self.speech if kind == "speech" else self.music]
            )
        elif kind == "sequence":
            pieces = [self._sound(random, self.everything) for _ in range(int(random.integers(2, 4)))]
            cuts = np.sort(random.uniform(0.2, 0.8, len(pieces) - 1) * SAMPLES).astype(int)
            sounds = [Sound(labels, part=part) for part, (_, labels) in enumerate(pieces)]
            for (piece, _), start, end in zip(pieces, [0, *cuts], [*cuts, SAMPLES], strict=True):
                clip[start:end] = piece[: end - start]
        elif kind == "noise":
            clip, sounds = _noise(random), [Sound(("White noise", "Noise"))]
        else:
            clip, sounds = _noise(random) * 10 ** (-random.uniform(60, 100) / 20), [Sound(("Silence",))]
            return clip.astype(np.float32), sounds
        chances = {name: random.random() < share for name, share in SHARES.items()}
        if chances["room"]:
            clip = _room(random, clip)
        if chances["noise"]:
            clip = clip + _noise(random) * _rms(clip) * 10 ** (-random.uniform(5, 35) / 20)
        if chances["band"]:
            clip = _band(random, clip)
        clip = clip / max(float(np.abs(clip).max()), 1e-6) * 10 ** (-random.gamma(1.2, 6) / 20)
        return clip.astype(np.float32), sounds

    def _mix(self, random: np.random.Generator, pools: list[_Pool]) -> tuple[np.ndarray, list[Sound]]:
        total, sounds = np.zeros(SAMPLES), list[Sound]()
        levels = 10 ** (-random.uniform(0, 18, len(pools)) / 20)
        for pool, level in zip(pools, levels / levels.max(), strict=True):
            sound, labels = self._sound(random, pool)
            total += level * sound / max(_rms(sound), 1e-6)
            sounds.append(Sound(labels, float(level)))
        return total, sounds

    def _sound(self, random: np.random.Generator, pool: _Pool) -> tuple[np.ndarray, tuple[str, ...]]:
        """One recording over 10 s: from a random position, repeated, repeated with pauses, or once."""
        pool = pool if pool.recordings else self.everything
        recording = pool.draw(random)
        while not len(_read(recording.path)):
            recording = pool.draw(random)
        sound = _read(recording.path).astype(np.float64) / 32767
        if len(sound) >= SAMPLES:
            start = int(random.integers(0, len(sound) - SAMPLES + 1))
            return sound[start : start + SAMPLES], recording.labels
        way, placed = random.random(), np.zeros(SAMPLES)
        if way < 0.5:
            return np.resize(sound, SAMPLES), recording.labels
        if way < 0.75:
            start = int(random.integers(0, SAMPLES - len(sound) + 1))
            placed[start : start + len(sound)] = sound
            return placed, recording.labels
        start, pause = 0, random.uniform(0.1, 2.0)
        while start < SAMPLES:
            piece = sound[: SAMPLES - start]
            placed[start : start + len(piece)] = piece
            start += len(sound) + int(pause * RATE * random.uniform(0.7, 1.3))
        return placed, recording.labels


class _Pool:
    """Recordings, sampled so that frequent sources and labels do not dominate."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self.recordings = list(recordings)
        sources = Counter(recording.source for recording in recordings)
        labels = Counter((recording.source, recording.labels) for recording in recordings)
        weights = [1 / (sources[r.source] * labels[r.source, r.labels]) ** 0.5 for r in recordings]
        self.chances = np.cumsum(weights) / max(sum(weights), 1e-9)

    def draw(self, random: np.random.Generator) -> Recording:
        place = int(np.searchsorted(self.chances, random.random()))
        return self.recordings[min(place, len(self.recordings) - 1)]


@lru_cache(maxsize=1500)
def _read(path: str) -> np.ndarray:
    """At most 30 s of a file without silence at its ends, (S,) int16; empty if it cannot be read or is silent."""
    try:
        sound = read_sound(path, 30.0)
    except (av.FFmpegError, IndexError, ValueError) as error:
        print(f"{path}: skipped ({error})", flush=True)
        return np.zeros(0, np.int16)
    peak = max(float(np.abs(sound).max(initial=0.0)), 1e-6)
    loud = np.flatnonzero(np.abs(sound) > max(0.003 * peak, 1e-6))
    if len(loud) < RATE // 40:
        return np.zeros(0, np.int16)
    sound = sound[loud[0] : loud[-1] + 1]
    return (sound / peak * 32767).astype(np.int16)


def _rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound))))


def _noise(random: np.random.Generator) -> np.ndarray:
    """Noise (SAMPLES,) with RMS 1 and a spectral slope between white (0) and brown (2)."""
    slope = random.uniform(0, 2)
    spectrum = np.fft.rfft(random.standard_normal(SAMPLES))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** (-slope / 2)
    spectrum[:20] = 0
    noise = np.fft.irfft(spectrum, SAMPLES)
    return noise / _rms(noise)


def _room(random: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """Adds reverberation: convolves with noise that decays by 60 dB in 0.1 to 1.2 s."""
    decay = random.uniform(0.1, 1.2)
    t = np.arange(int(decay * RATE)) / RATE
    tail = random.standard_normal(len(t)) * 10 ** (-3 * t / decay)
    tail *= random.uniform(0.1, 0.8) / max(float(np.sqrt(np.sum(tail**2))), 1e-9)
    tail[0] += 1
    size = 1 << (SAMPLES + len(tail) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[:SAMPLES]


def _band(random: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """Band-limits the sound like a phone or a poor codec, with soft edges at 20-400 Hz and 2.5-12 kHz."""
    hertz = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    low, high = random.uniform(20, 400), 2500 * (12_000 / 2500) ** random.random()
    gain = 1 / (1 + (low / np.maximum(hertz, 1)) ** 4) / (1 + (hertz / high) ** 8)
    return np.fft.irfft(np.fft.rfft(sound) * gain, SAMPLES)
