"""Voices of water and weather. Each maps a `VoiceInput` to a float32 wave of arbitrary level."""

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
    oscillator,
    peaks,
    shaped,
    tilt,
    white,
    wobble,
)


def running_water(take: VoiceInput) -> Wave:
    n, g = take.n, take.g
    out = 0.5 * band_noise(g, n, 350 * take.pitch, 2600 * take.pitch, 1)
    out *= 1 + 0.25 * wobble(g, n, 9)
    for _ in range(int(take.seconds * 36)):  # bubbles: short rising tones
        m = int(take.uniform(0.015, 0.06) * SAMPLE_RATE)
        f = take.uniform(450, 2400) * take.pitch
        bubble = oscillator(np.linspace(f, f * 1.35, m), m, [1.0]) * decay(m, m / SAMPLE_RATE / 3)
        add(
            out,
            fade(bubble, 0.003, 0.004) * np.float32(take.uniform(0.4, 1.7)),
            take.uniform(0, take.seconds),
        )
    return fade(out, 0.25, 0.3)


def dripping(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    for hit in take.hits:
        n = int(0.12 * SAMPLE_RATE)
        f = take.uniform(900, 1500) * take.pitch
        ping = oscillator(np.linspace(f, f * 1.9, n), n, [1.0]) * decay(n, 0.022)
        plop = oscillator(np.linspace(f * 0.55, f * 0.8, n), n, [1.0]) * decay(n, 0.012)
        add(out, fade(ping, 0.002, 0.01) + 0.5 * np.roll(plop, 500), hit)
        m = 200
        add(out, 0.25 * white(take.g, m) * decay(m, 0.002), hit - 0.004)
    return out


def wind(take: VoiceInput) -> Wave:
    n, g = take.n, take.g
    gust = wobble(g, n, 0.6)
    low = shaped(white(g, n), peaks((140 * take.pitch, 110, 1.0)))
    middle = shaped(white(g, n), peaks((420 * take.pitch, 130, 1.0)))
    high = shaped(white(g, n), peaks((820 * take.pitch, 190, 1.0)))
    out = low * (0.8 + 0.2 * gust) + middle * np.clip(0.5 + 0.6 * gust, 0, 2) ** 2 * 1.2
    out += high * np.clip(0.3 + 0.9 * gust, 0, 2) ** 2 * 0.9
    return fade(out.astype(np.float32), 0.6, 0.6)


def thunder(take: VoiceInput) -> Wave:
    n, g = take.n, take.g
    out = np.zeros(n, np.float32)
    for hit in take.hits:
        m = min(n - int(hit * SAMPLE_RATE), 5 * SAMPLE_RATE)
        if m < 800:
            continue
        roll = np.clip(0.55 + 0.7 * wobble(g, m, 3.5), 0.05, 2) * decay(m, take.uniform(1.1, 1.9))
        rumble = shaped(
            white(g, m), peaks((45 * take.pitch, 40, 1.0), (110 * take.pitch, 60, 0.6), (260, 150, 0.12))
        )
        crack = shaped(white(g, m), band(150, 3000, 1)) * decay(m, take.uniform(0.08, 0.25)) * 0.3
        add(out, fade(rumble * roll * 2 + crack, 0.03, 0.4), hit)
    return out


def rain(take: VoiceInput) -> Wave:
    n, g = take.n, take.g
    steady = shaped(white(g, n), tilt(-1.0, 900)) * 0.5
    drops = np.zeros(n, np.float32)
    count = int(take.seconds * take.uniform(250, 700))
    where = g.integers(0, n, count)
    drops[where] = g.uniform(0.5, 3.0, count).astype(np.float32) ** 2
    out = shaped(drops, band(1500 * take.pitch, 7000, 1)) * 0.9 + shaped(
        steady, band(700 * take.pitch, 7800, 1)
    )
    return fade(out * (1 + 0.08 * wobble(g, n, 1.0)), 0.5, 0.5)
