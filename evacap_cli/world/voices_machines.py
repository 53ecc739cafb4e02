"""Voices of engines, signals and other machines. Each maps a `VoiceInput` to a float32 wave of arbitrary level."""

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
    tilt,
    white,
    wobble,
)


def _firing(take: VoiceInput, rate: Wave, sharp: float) -> Wave:
    """The exhaust of an engine: bursts of noise and a low tone, `rate` per second."""
    n = take.n
    cycles = phase_of(rate, n)
    puff = np.exp(-sharp * (cycles % 1.0)).astype(np.float32)
    # every firing differs slightly, in a cycle of four, which gives the uneven beat of an idling engine
    strength = take.g.uniform(0.6, 1.0, 4).astype(np.float32)
    puff *= strength[cycles.astype(np.int64) % 4]
    rough = shaped(white(take.g, n), band(60, 900)) * puff
    return 1.2 * (puff - puff.mean()) + 2.2 * rough


def engine_idle(take: VoiceInput) -> Wave:
    rate = 25.0 * take.pitch * (1 + 0.03 * wobble(take.g, take.n, 1.5))
    body = peaks((85, 35, 1.0), (210, 60, 0.7), (480, 140, 0.35), (1300, 500, 0.08), floor=0.02)
    return fade(shaped(_firing(take, rate, 7.0), body), 0.3, 0.3)


def engine_rev(take: VoiceInput) -> Wave:
    n, g = take.n, take.g
    low, points = 38 * take.pitch, [(0.0, 38 * take.pitch)]
    t = take.uniform(0.1, 0.4)
    while t < take.seconds:
        top = low * take.uniform(2.6, 4.2)
        rise, hold, fall = take.uniform(0.35, 1.1), take.uniform(0.05, 0.5), take.uniform(0.4, 0.9)
        points += [(t, low), (t + rise, top), (t + rise + hold, top * 0.97), (t + rise + hold + fall, low)]
        t += rise + hold + fall + take.uniform(0.05, 0.4)
    rate = glide(points, n)
    tone = oscillator(rate, n, [g.uniform(0.3, 1.0) / k**0.6 for k in range(1, 46)])
    x = 0.5 * tone + 0.6 * _firing(take, rate, 4.0)
    x *= (0.25 + 0.75 * (rate - low) / (rate.max() - low + 1e-6)).astype(np.float32)
    return fade(
        shaped(x, peaks((130, 90, 1.0), (420, 200, 0.9), (1100, 500, 0.5), (2600, 900, 0.2))), 0.1, 0.3
    )


def siren(take: VoiceInput) -> Wave:
    n = take.n
    t = seconds_axis(n)
    low, high = 560 * take.pitch, 1350 * take.pitch
    kind = int(take.g.integers(3))
    sweep: Wave
    if kind == 0:  # wail: slow rise and fall
        period = take.uniform(2.2, 4.0)
        sweep = 0.5 - 0.5 * np.cos(2 * np.pi * (t / period + take.uniform(0, 1)))
    elif kind == 1:  # yelp: fast saw
        period = take.uniform(0.28, 0.45)
        sweep = (t / period) % 1.0
    else:  # two-tone
        period = take.uniform(0.9, 1.3)
        sweep = ((t / period) % 1.0 > 0.5).astype(np.float32) * 0.75
        high = low * 1.45
    freq = np.asarray(low + (high - low) * sweep)
    x = oscillator(freq, n, [1, 0.5, 0.45, 0.25, 0.2, 0.1, 0.08])
    return fade(shaped(x, band(350, 4200, 1)), 0.4, 0.4)


def telephone(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    bell = bool(take.g.random() < 0.6)
    low, high = 1050 * take.pitch, 1330 * take.pitch
    for hit in take.hits:
        length = take.uniform(1.2, 1.7)
        n = int(length * SAMPLE_RATE)
        t = seconds_axis(n)
        if bell:  # a hammer between two gongs, about 20 strokes per second
            stroke = (t * 21) % 1.0
            x = oscillator(low, n, [1, 0, 0.5, 0, 0.3]) * np.exp(-3 * stroke)
            x += oscillator(high, n, [1, 0, 0.4, 0, 0.3]) * np.exp(-3 * ((stroke + 0.5) % 1.0))
        else:  # electronic warble
            freq = np.where((t * 13) % 1.0 < 0.5, low, high)
            x = oscillator(freq, n, [1, 0.35, 0.3, 0.1])
        add(out, fade(x.astype(np.float32), 0.01, 0.08), hit)
    return out


def beeping(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    freq = take.uniform(1500, 2900) * take.pitch
    count = int(take.g.integers(2, 5))
    length = take.uniform(0.07, 0.12)
    for hit in take.hits:
        for k in range(count):
            n = int(length * SAMPLE_RATE)
            add(out, fade(oscillator(freq, n, [1, 0, 0.35, 0, 0.15]), 0.004, 0.006), hit + k * length * 1.8)
    return out


def whistling(take: VoiceInput) -> Wave:
    n, g = take.n, take.g
    freq = 2350 * take.pitch * (1 + 0.012 * wobble(g, n, 5.0))
    freq = freq * glide([(0, 0.86), (0.25, 1.0), (take.seconds, 1.01)], n)
    tone = oscillator(freq, n, [1, 0.12, 0.05])
    if g.random() < 0.5:  # the pea in the whistle, or the boiling water
        tone *= 1 - 0.45 * (0.5 + 0.5 * np.sin(2 * np.pi * phase_of(take.uniform(18, 32), n))).astype(
            np.float32
        )
    breath = band_noise(g, n, 2000, 5200)
    return fade(tone + 0.22 * breath, 0.08, 0.12)


def helicopter(take: VoiceInput) -> Wave:
    n, g = take.n, take.g
    rate = 12.5 * take.pitch * (1 + 0.02 * wobble(g, n, 0.5))
    beat = phase_of(rate, n) % 1.0
    chop = np.exp(-0.5 * ((beat - 0.4) / 0.13) ** 2).astype(np.float32)
    low = shaped(white(g, n), peaks((70, 40, 1.0), (160, 80, 0.8), (350, 150, 0.3)))
    high = band_noise(g, n, 300, 2600, 1)
    whine = oscillator(540 * take.pitch, n, [1, 0.4, 0.2])
    low /= np.sqrt(np.mean(low * low)) + 1e-9
    return fade(low * (0.15 + chop) * 1.2 + 0.35 * high * (0.25 + chop) + 0.04 * whine, 0.6, 0.6)


def truck_horn(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    root = 340 * take.pitch
    for i, hit in enumerate(take.hits):
        after = take.hits[i + 1] - hit if i + 1 < len(take.hits) else 0.9
        n = int(min(take.uniform(0.35, 0.9), after * 0.72) * SAMPLE_RATE)
        x = oscillator(root, n, saw_harmonics(16, 0.7)) + oscillator(root * 1.26, n, saw_harmonics(14, 0.7))
        add(out, fade(x, 0.02, 0.05), hit)
    return shaped(out, peaks((500, 400, 1.0), (1500, 800, 0.7), (2800, 900, 0.4)))


def train_horn(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    root = 262 * take.pitch
    for i, hit in enumerate(take.hits):
        after = take.hits[i + 1] - hit if i + 1 < len(take.hits) else 2.6
        n = int(min(take.uniform(1.4, 2.4), after * 0.85) * SAMPLE_RATE)
        bend = glide([(0, 0.965), (0.2, 1.0), (n / SAMPLE_RATE - 0.15, 1.0), (n / SAMPLE_RATE, 0.97)], n)
        x = np.zeros(n, np.float32)
        for ratio in (1.0, 1.19, 1.5, 1.78):
            x += oscillator(root * ratio * bend, n, saw_harmonics(18, 0.9))
        add(out, fade(x + 0.25 * white(take.g, n), 0.12, 0.25), hit)
    return shaped(out, peaks((380, 260, 1.0), (900, 500, 0.7), (2100, 900, 0.25)))


def motor(take: VoiceInput) -> Wave:
    n, g = take.n, take.g
    spin = 205 * take.pitch * glide([(0, 0.55), (0.7, 1.0), (take.seconds, 1.0)], n)
    tone = oscillator(spin, n, [g.uniform(0.4, 1.0) / k**0.5 for k in range(1, 26)])
    air = band_noise(g, n, 500, 6000, 1)
    return fade(
        shaped(0.35 * tone + 0.55 * air, peaks((700, 500, 1), (2300, 900, 0.8), floor=0.25)), 0.2, 0.3
    )


def sawing(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    teeth = take.uniform(70, 110) * take.pitch
    for i, hit in enumerate(take.hits):
        after = take.hits[i + 1] - hit if i + 1 < len(take.hits) else 0.45
        n = int(after * 0.82 * SAMPLE_RATE)
        forth = i % 2 == 0
        centre = (1500 if forth else 1050) * take.pitch
        rasp = shaped(white(take.g, n), peaks((centre, 380, 1.0), (centre * 2.4, 900, 0.5)))
        bite = glide([(0, 0.7), (n / SAMPLE_RATE * 0.5, 1.1), (n / SAMPLE_RATE, 0.7)], n)
        rasp *= (0.35 + 0.65 * (phase_of(teeth * bite, n) % 1.0)).astype(np.float32)
        arc = np.sqrt(np.abs(np.sin(np.linspace(0, np.pi, n, dtype=np.float32))))
        add(out, rasp * arc * (1.0 if forth else 0.7), hit)
    return out


def ticking(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    tick, tock = 3400 * take.pitch, 2500 * take.pitch
    n = int(0.05 * SAMPLE_RATE)
    for i, hit in enumerate(take.hits):
        ring = tick if i % 2 == 0 else tock
        x = oscillator(ring, n, [1.0, 0.4]) * decay(n, 0.007) + 0.9 * white(take.g, n) * decay(n, 0.0018)
        x += 0.3 * oscillator(900 * take.pitch, n, [1.0]) * decay(n, 0.01)
        add(out, x, hit)
    return out


def typing(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    n = int(0.06 * SAMPLE_RATE)
    for hit in take.hits:
        key = peaks((take.uniform(1400, 2300) * take.pitch, 500, 1.0), (4500, 1500, 0.7), (320, 120, 0.5))
        click = white(take.g, n) * decay(n, 0.006)
        release = np.roll(white(take.g, n) * decay(n, 0.003) * 0.35, int(0.03 * SAMPLE_RATE))
        add(out, shaped(click + release, key) * take.uniform(0.5, 1.0), hit)
    return out


def bell(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    root = 330 * take.pitch
    partials = [(0.5, 0.5, 2.4), (1, 0.9, 1.9), (1.19, 0.6, 1.5), (1.5, 0.35, 1.2), (2, 1.0, 1.3)]
    partials += [(2.51, 0.45, 0.8), (2.98, 0.4, 0.6), (4.1, 0.35, 0.4), (5.4, 0.2, 0.25)]
    n = int(3.5 * SAMPLE_RATE)
    x = np.zeros(n, np.float32)
    for ratio, gain, seconds in partials:
        x += gain * oscillator(root * ratio, n, [1.0]) * decay(n, seconds)
    x[:400] += 0.6 * white(take.g, 400) * decay(400, 0.006)
    for hit in take.hits:
        add(out, x * np.float32(take.uniform(0.8, 1.0)), hit)
    return fade(out, 0.0, 0.7)


def drum(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    root = 105 * take.pitch
    n = int(0.4 * SAMPLE_RATE)
    drop = 1 + 0.9 * decay(n, 0.03)
    body = oscillator(root * drop, n, [1, 0.3, 0.15]) * decay(n, 0.13)
    body += 0.4 * oscillator(root * 1.6 * drop, n, [1.0]) * decay(n, 0.07)
    for i, hit in enumerate(take.hits):
        skin = shaped(white(take.g, n) * decay(n, 0.02), band(150, 3500, 1))
        add(out, (body + 0.7 * skin) * np.float32(1.0 if i % 4 == 0 else take.uniform(0.55, 0.8)), hit)
    return out


def guitar(take: VoiceInput) -> Wave:
    out = np.zeros(take.n, np.float32)
    scale = (0, 3, 5, 7, 10, 12, 15)
    n = int(1.4 * SAMPLE_RATE)
    t = seconds_axis(n)
    for hit in take.hits:
        root = 147 * take.pitch * 2 ** (scale[take.g.integers(len(scale))] / 12)
        x = np.zeros(n, np.float32)
        for k in range(1, 11):  # higher partials decay faster
            x += (
                np.sin(2 * np.pi * root * k * t)
                * np.exp(-t * (1.5 + 1.3 * k))
                * (abs(np.sin(0.6 * k)) + 0.1)
                / k**0.4
            )
        add(out, fade(x, 0.003, 0.1), hit)
    return shaped(out, tilt(-2.0, 600))
