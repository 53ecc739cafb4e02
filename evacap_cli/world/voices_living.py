"""Voices of people and animals. Each maps a `VoiceInput` to a float32 wave of arbitrary level."""

from __future__ import annotations

import numpy as np

from evacap_cli.world.dsp import (
    SAMPLE_RATE,
    VoiceInput,
    Wave,
    add,
    band,
    band_noise,
    decay,
    fade,
    glide,
    oscillator,
    peaks,
    phase_of,
    saw_harmonics,
    seconds_axis,
    shaped,
    white,
    wobble,
)

# first three formants of a man's vowels in Hz (from standard tables of English vowels)
VOWELS = (
    (730, 1090, 2440),
    (530, 1840, 2480),
    (270, 2290, 3010),
    (570, 840, 2410),
    (300, 870, 2240),
    (490, 1350, 1690),
    (660, 1720, 2410),
)


def _vowel(vowel: tuple[int, ...], tract: float) -> list[tuple[float, float, float]]:
    f1, f2, f3 = (f * tract for f in vowel)
    return [
        (f1, 70 * tract, 1.0),
        (f2, 100 * tract, 0.55),
        (f3, 140 * tract, 0.28),
        (3600 * tract, 250, 0.12),
    ]


def _speech(take: VoiceInput, pitch: float, tract: float) -> Wave:
    """Syllables with vowels, consonants, phrases and pauses; `pitch` Hz, `tract` scales the formants."""
    out = np.zeros(take.n, np.float32)
    rate = take.uniform(3.6, 5.4)
    t = 0.02
    while t < take.seconds - 0.15:
        phrase = min(t + take.uniform(0.9, 2.3), take.seconds - 0.05)
        begin = t
        while t < phrase - 0.08:
            length = take.uniform(0.75, 1.35) / rate
            n = int(min(length * 1.12, phrase - t + 0.05) * SAMPLE_RATE)
            along = (t - begin) / max(phrase - begin, 0.1)
            f0 = pitch * (1.12 - 0.24 * along) * take.uniform(0.93, 1.1)
            bend = glide(
                [(0, f0 * take.uniform(0.96, 1.04)), (n / SAMPLE_RATE, f0 * take.uniform(0.9, 1.06))], n
            )
            source = oscillator(bend, n, saw_harmonics(60, 1.0)) + 0.05 * white(take.g, n)
            first, second = (VOWELS[take.g.integers(len(VOWELS))] for _ in range(2))
            mix = np.linspace(0, 1, n, dtype=np.float32)
            sound = shaped(source, peaks(*_vowel(first, tract), floor=0.01)) * (1 - mix)
            sound += shaped(source, peaks(*_vowel(second, tract), floor=0.01)) * mix
            add(out, fade(sound * np.float32(take.uniform(0.7, 1.0)), 0.03, 0.06), t)
            if take.g.random() < 0.55:  # a consonant in front
                m = int(take.uniform(0.03, 0.09) * SAMPLE_RATE)
                centre = take.uniform(2200, 6000)
                hiss = shaped(white(take.g, m), peaks((centre, 1200, 1.0)))
                add(out, fade(hiss, 0.01, 0.02) * np.float32(0.12), t - 0.04)
            t += length
        t = phrase + take.uniform(0.12, 0.4)
    return out


def man(take: VoiceInput) -> Wave:
    return _speech(take, 108 * take.pitch, 1.0)


def woman(take: VoiceInput) -> Wave:
    return _speech(take, 208 * take.pitch, 1.17)


def child(take: VoiceInput) -> Wave:
    return _speech(take, 330 * take.pitch, 1.42)


def laughter(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    t = 0.05
    while t < take.seconds - 0.2:
        count = int(take.g.integers(4, 9))
        top = take.uniform(190, 330) * take.pitch
        for k in range(count):
            if t > take.seconds - 0.15:
                break
            n = int(take.uniform(0.09, 0.13) * SAMPLE_RATE)
            f0 = top * (1.15 - 0.4 * k / count)
            bend = glide([(0, f0), (n / SAMPLE_RATE, f0 * 0.8)], n)
            ha = shaped(oscillator(bend, n, saw_harmonics(40)), peaks(*_vowel(VOWELS[0], 1.1), floor=0.02))
            breath = shaped(white(take.g, n), peaks((1200, 500, 1), (2600, 900, 0.6))) * 0.25
            add(out, fade(ha + breath, 0.015, 0.05) * np.float32(1.0 - 0.07 * k), t)
            t += take.uniform(0.17, 0.22)
        t += take.uniform(0.25, 0.5)
    return out


def applause(take: VoiceInput) -> Wave:
    n, g = take.n, take.g
    claps = np.zeros(n, np.float32)
    where = g.integers(0, n, int(take.seconds * 150))
    np.add.at(claps, where, g.uniform(0.2, 1.0, len(where)).astype(np.float32) ** 2)
    m = 320
    hand = shaped(white(g, m) * decay(m, 0.004), peaks((1100, 500, 1.0), (2300, 900, 0.7), (4500, 1500, 0.3)))
    size = n + m
    far = np.fft.irfft(np.fft.rfft(claps, size) * np.fft.rfft(hand, size), size)[:n].astype(np.float32)
    swell = 0.75 + 0.25 * wobble(g, n, 0.7)
    return fade(far * swell, 0.5, 0.6)


def bird(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    motifs = []
    for _ in range(3):
        motif = []
        for _ in range(int(take.g.integers(2, 5))):
            a = take.uniform(2600, 5200) * take.pitch
            motif.append(
                (a, min(a * take.uniform(0.7, 1.4), 6800), take.uniform(0.05, 0.14), take.uniform(0, 35))
            )
        motifs.append(motif)
    for hit in take.hits:
        t = hit
        for start, stop, length, trill in motifs[take.g.integers(3)]:
            n = int(length * SAMPLE_RATE)
            freq = np.linspace(start, stop, n) * (
                1 + 0.06 * np.sin(2 * np.pi * trill * np.arange(n) / SAMPLE_RATE)
            )
            add(out, fade(oscillator(freq, n, [1.0, 0.06]), 0.012, 0.03), t)
            t += length + take.uniform(0.02, 0.06)
    return out


def insect(take: VoiceInput) -> Wave:
    n, g = take.n, take.g
    drift = wobble(g, n, 1.2)
    freq = 215 * take.pitch * (1 + 0.09 * drift + 0.02 * wobble(g, n, 9))
    x = oscillator(freq, n, saw_harmonics(32, 0.45)) + 0.15 * white(g, n)
    near = 0.55 + 0.45 * wobble(g, n, 0.8)
    return fade(shaped(x, peaks((450, 300, 0.7), (1900, 900, 1.0), (4000, 1200, 0.5))) * near, 0.2, 0.2)


def cat(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    for hit in take.hits:
        s = take.uniform(0.55, 0.95)
        n = int(s * SAMPLE_RATE)
        f = 560 * take.pitch * take.uniform(0.93, 1.07)
        freq = glide([(0, f * 0.8), (s * 0.3, f * 1.25), (s * 0.6, f * 1.15), (s, f * 0.75)], n)
        x = oscillator(freq, n, saw_harmonics(14, 0.5)) + 0.04 * white(take.g, n)
        mix = (
            np.abs(np.sin(np.linspace(0, np.pi, n, dtype=np.float32))) ** 1.5
        )  # the mouth opens and closes: me-ow
        closed = shaped(x, peaks((600, 200, 0.7), (2700, 400, 0.8)))
        wide = shaped(x, peaks((1100, 300, 1.2), (1900, 400, 1.0), (3900, 600, 0.4)))
        add(out, fade(closed * (1 - mix) + wide * mix, 0.08, 0.2), hit)
    return out


def cow(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    for hit in take.hits:
        s = take.uniform(1.2, 1.8)
        n = int(s * SAMPLE_RATE)
        f = 125 * take.pitch * take.uniform(0.95, 1.05)
        freq = glide([(0, f * 0.8), (s * 0.35, f * 1.2), (s * 0.8, f * 1.1), (s, f * 0.7)], n)
        freq = freq * (1 + 0.015 * wobble(take.g, n, 25))
        x = oscillator(freq, n, saw_harmonics(40, 0.8))
        mix = np.clip(np.linspace(-0.4, 1.6, n), 0, 1).astype(np.float32)
        hum = shaped(x, peaks((230, 80, 1.0), (1000, 300, 0.05)))
        moo = shaped(x, peaks((420, 120, 1.0), (950, 200, 0.5), (2300, 500, 0.12)))
        add(out, fade(hum * (1 - mix) + moo * mix, 0.15, 0.3), hit)
    return out


def frog(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    for hit in take.hits:
        n = int(take.uniform(0.28, 0.4) * SAMPLE_RATE)
        t = seconds_axis(n)
        pulses = np.exp(-5 * ((t * take.uniform(34, 44)) % 1.0))
        x = oscillator(780 * take.pitch * (1 + 0.25 * t / t[-1]), n, [1, 0.7, 0.35, 0.2]) * pulses
        add(out, fade(x.astype(np.float32), 0.04, 0.06), hit)
    return out


def owl(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    for hit in take.hits:
        for offset, s in ((0.0, 0.22), (0.38, 0.6)):
            n = int(s * SAMPLE_RATE)
            freq = 370 * take.pitch * glide([(0, 0.93), (s * 0.3, 1.03), (s, 0.95)], n)
            breath = 0.03 * band_noise(take.g, n, 300, 1200)
            add(out, fade(oscillator(freq, n, [1, 0.08, 0.03]) + breath, 0.07, 0.15), hit + offset)
    return out


def duck(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    for hit in take.hits:
        n = int(take.uniform(0.15, 0.22) * SAMPLE_RATE)
        f = 235 * take.pitch * take.uniform(0.95, 1.05)
        freq = np.linspace(f * 1.12, f * 0.86, n)
        x = oscillator(freq, n, saw_harmonics(30, 0.25)) + 0.25 * white(take.g, n)
        x = x * (0.6 + 0.4 * (phase_of(freq / 2, n) % 1.0)).astype(np.float32)
        add(
            out,
            fade(shaped(x, peaks((1250, 250, 1.0), (2500, 400, 0.9), (3600, 500, 0.4))), 0.015, 0.06),
            hit,
        )
    return out


def footsteps(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    n = int(0.22 * SAMPLE_RATE)
    floor = take.uniform(700, 1500)
    for i, hit in enumerate(take.hits):
        side = 1.0 if i % 2 == 0 else 0.88
        heel = oscillator(140 * take.pitch * side, n, [1, 0.4]) * decay(n, 0.025)
        click = shaped(white(take.g, n) * decay(n, 0.009), peaks((floor, 500, 1.0), (260, 120, 0.8)))
        scuff = shaped(white(take.g, n), band(1800, 5500, 1)) * np.sin(np.linspace(0, np.pi, n)) ** 2
        add(out, (heel + 1.2 * click + 0.05 * scuff).astype(np.float32) * np.float32(side), hit)
    return out


def knocking(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    n = int(0.18 * SAMPLE_RATE)
    for hit in take.hits:
        wood = shaped(
            white(take.g, n) * decay(n, 0.012),
            peaks((310 * take.pitch, 60, 1.0), (640 * take.pitch, 90, 0.6), (1500 * take.pitch, 350, 0.2)),
        )
        thump = oscillator(190 * take.pitch, n, [1.0]) * decay(n, 0.03) * 0.25
        add(out, (wood + thump) * np.float32(take.uniform(0.75, 1.0)), hit)
    return out
