"""Renders the audio of a script."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evacap_cli.errors import UsageError
from evacap_cli.world.dsp import SAMPLE_RATE, VoiceInput, Wave, band, fade, fast_length, shaped, white
from evacap_cli.world.events import RECORDED
from evacap_cli.world.recordings import RecordingBank, stretch_to
from evacap_cli.world.script import SECONDS, ClipScript, Sound
from evacap_cli.world.voices import VOICES

PAUSED = frozenset(e.sound for e in RECORDED if e.brief[1])  # repeated with pauses instead of continuously
SENDS = {"normal": 1.0, "loud": 0.7, "faint": 1.0, "distant": 5.0}  # send level into the room reverberation


def active_level(x: Wave) -> float:
    """RMS of the loudest fifth of 20 ms frames, which excludes the pauses between strokes."""
    frames = len(x) // 320
    if frames < 2:
        return float(np.sqrt(np.mean(x * x)) + 1e-9)
    power = np.sort((x[: frames * 320].reshape(frames, 320) ** 2).mean(1))
    return float(np.sqrt(power[-max(1, frames // 5) :].mean()) + 1e-9)


def _voice(sound: Sound, bank: RecordingBank | None) -> Wave:
    g = np.random.Generator(np.random.PCG64(sound.seed))
    seconds = sound.end - sound.start
    if sound.recording:
        if bank is None:
            raise UsageError(
                f"recordings: the script needs {sound.recording}",
                "Give the folder of recordings that the script was made with.",
            )
        x = stretch_to(
            bank.wave(sound.recording), seconds, sound.speed, sound.offset, sound.sound not in PAUSED, g
        )
        return fade(x, 0.03, 0.1)
    hits = tuple(h - sound.start for h in sound.hits)
    return fade(VOICES[sound.sound](VoiceInput(seconds, hits, sound.pitch, g)), 0.004, 0.03)


def render_audio(script: ClipScript, recordings: RecordingBank | str | Path | None = None) -> Wave:
    """(160000,) float32 at 16 kHz in [-1, 1]. `recordings`: the bank or folder that the world was made with."""
    bank = RecordingBank.open(recordings) if isinstance(recordings, (str, Path)) else recordings
    n = int(SECONDS * SAMPLE_RATE)
    g = np.random.Generator(np.random.PCG64(script.background_seed))
    dry, send = np.zeros(n, np.float32), np.zeros(n, np.float32)
    for sound in script.sounds:
        x = _voice(sound, bank)
        if sound.loudness == "distant":  # air absorbs high frequencies
            x = shaped(x, band(0, 1800, 1))
        x *= np.float32(10 ** (sound.level / 20) / active_level(x))
        # strokes have peaks far above their RMS: limit them, as a camera does
        peak = float(np.abs(x).max())
        if peak > 0.7:
            x = 0.7 * np.tanh(x / 0.7)
        first = round(sound.start * SAMPLE_RATE)
        stop = min(n, first + len(x))
        dry[first:stop] += x[: stop - first]
        send[first:stop] += x[: stop - first] * np.float32(SENDS[sound.loudness])
    length = int(script.room * SAMPLE_RATE)
    echo = white(g, length) * np.exp(-6.9 * np.linspace(0, 1, length, dtype=np.float32))
    echo /= np.sqrt(np.sum(echo * echo))
    size = fast_length(n + length)
    wet = np.fft.irfft(np.fft.rfft(send, size) * np.fft.rfft(echo, size), size)[:n].astype(np.float32)
    out = dry + np.float32(script.wet) * wet
    out += np.float32(10 ** (script.floor / 20)) * white(g, n)
    peak = float(np.abs(out).max())
    return out * np.float32(0.98 / peak) if peak > 0.98 else out
