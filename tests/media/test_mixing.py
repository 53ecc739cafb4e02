"""Whatever the channels, the mono that is heard has the loudness of what is there.

Each file is written by PyAV from the channels' own samples; `ambisonic` is patched, since no encoder here writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.media import SAMPLE_RATE, find_window, read_audio
from evacap_cli.media.mixing import find_weights

from .clips import heard, tone, write

RATE = 48_000
SECONDS = 1.0
LEVEL = 0.5 / np.sqrt(2)  # root mean square of a tone


def wave(seed: int, level: float = LEVEL, seconds: float = SECONDS) -> np.ndarray:
    """(S,): a tone of its own (200 Hz steps) with a root mean square of `level`; no two are alike."""
    t = np.arange(round(seconds * RATE)) / RATE
    return level * np.sqrt(2) * np.sin(2 * np.pi * (600 + 200 * seed) * t + seed)


NONE = np.zeros(round(SECONDS * RATE))
A, B, C, D = (wave(seed) for seed in range(4))
FAINT = 0.1 * B  # 20 dB less
# name: layout, channels, root mean square that is heard, and what is the loudest pitch in it (None: several)
LAYOUTS: dict[str, tuple[str, list[np.ndarray], float, float | None]] = {
    "in phase": ("stereo", [A, A], LEVEL, 600),
    "antiphase": ("stereo", [A, -A], LEVEL, 600),
    "antiphase, unequal": ("stereo", [A, -0.7 * A], LEVEL, 600),
    "antiphase, and something in phase": ("stereo", [A + FAINT, FAINT - A], 1.005 * LEVEL, 600),
    "left alone": ("stereo", [A, NONE], LEVEL, 600),
    "right alone": ("stereo", [NONE, A], LEVEL, 600),
    "left, and noise 60 dB below": ("stereo", [A, 0.001 * B], LEVEL, 600),
    "middle and side": ("stereo", [A, 0.5 * B], 0.56 * LEVEL, 600),  # plain mean: nothing cancels
    "unrelated": ("stereo", [A, B], LEVEL / np.sqrt(2), None),  # as FFmpeg and SoX make it
    "3.0, the centre": ("3.0", [NONE, NONE, A], LEVEL, 600),
    "5.1, all": ("5.1", [A] * 6, LEVEL, 600),
    "5.1, the centre alone": ("5.1", [NONE, NONE, A, NONE, NONE, NONE], LEVEL, 600),
    "5.1, the centre with faint others": ("5.1", [FAINT, -FAINT, A, D, 0.1 * C, NONE], LEVEL, 600),
    "5.1, the front in antiphase": ("5.1", [A, -A, NONE, NONE, NONE, NONE], LEVEL, 600),
    "5.1, two pairs in antiphase": ("5.1", [A, -A, NONE, NONE, 0.5 * B, -0.5 * B], LEVEL, 600),
    "5.1, low-frequency effects do not count": ("5.1", [A, A, A, D, A, A], LEVEL, 600),
    "7.1, the centre alone": ("7.1", [NONE, NONE, A, NONE, NONE, NONE, NONE, NONE], LEVEL, 600),
    "7.1, the sides in antiphase": ("7.1", [NONE, NONE, NONE, D, NONE, NONE, A, -A], LEVEL, 600),
    "quad, unrelated": ("quad", [A, B, C, D], LEVEL, None),
}
# suffix, encoder, sample format, tolerance
CODECS = [("wav", "pcm_f32le", None, 1e-3), ("flac", "flac", "s16", 1e-3), ("mkv", "aac", None, 0.05)]


def level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples[1600:-1600] ** 2)))


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "codec", "samples", "near"), CODECS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(
    tmp_path: Path, name: str, suffix: str, codec: str, samples: str | None, near: float
) -> None:
    layout, channels, expected, pitch = LAYOUTS[name]
    path = write(
        tmp_path / f"clip.{suffix}",
        video=None,
        audio=codec,
        samples=samples,
        rate=RATE,
        layout=layout,
        wave=np.stack(channels),
    )
    mono = read_audio(path)
    assert level(mono) == pytest.approx(expected, rel=near + 0.01)
    if pitch is not None:
        assert heard(mono) == pytest.approx(pitch, abs=3)


@pytest.mark.parametrize("used", [0, 7, 9])
def test_one_of_many_channels_without_names(tmp_path: Path, used: int) -> None:
    channels = np.zeros((10, RATE))
    channels[used] = A
    path = write(
        tmp_path / "clip.mkv", video=None, audio="libopus", rate=RATE, layout="10 channels", wave=channels
    )
    assert level(read_audio(path)) == pytest.approx(LEVEL, rel=0.02)


def test_ambisonic_sound_uses_the_omnidirectional_channel(tmp_path: Path) -> None:
    """First order, in the order W Y Z X: a sound from the back right below would leave next to nothing of a mean."""
    channels = np.stack([A, -0.58 * A, -0.58 * A, -0.58 * A])
    path = write(
        tmp_path / "clip.mka", video=None, audio="libopus", rate=RATE, layout="4 channels", wave=channels
    )
    data = path.read_bytes()
    family = data.index(b"OpusHead") + 18
    assert data[family] == 255  # channels without names; 2 is ambisonic, and else alike (RFC 8486)
    path.write_bytes(data[:family] + b"\2" + data[family + 1 :])
    mono = read_audio(path)
    assert level(mono) == pytest.approx(LEVEL, rel=0.02)
    assert heard(mono) == pytest.approx(600, abs=3)


def test_ordinary_sound_is_the_exact_mean(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(3, SAMPLE_RATE)) * 0.1
    for left, right in ((noise[0], noise[0]), (noise[0], noise[1]), (noise[0], noise[0] + 0.4 * noise[1])):
        path = write(
            tmp_path / "clip.wav",
            video=None,
            audio="pcm_f32le",
            rate=SAMPLE_RATE,
            layout="stereo",
            wave=np.stack([left, right]),
        )
        pair = np.stack([left, right]).astype(np.float32)
        assert np.array_equal(read_audio(path), pair.mean(axis=0, dtype=np.float64).astype(np.float32))
    for codec in ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"):
        one, two = (
            write(
                tmp_path / f"{layout}.wav",
                video=None,
                audio=codec,
                rate=44_100,
                layout=layout,
                wave=np.stack([noise[0]] * channels),
            )
            for layout, channels in (("mono", 1), ("stereo", 2))
        )
        assert np.array_equal(read_audio(one), read_audio(two))


def test_opposite_offsets_do_not_count(tmp_path: Path) -> None:
    """Of two channels in phase with offsets that cancel, the mean is right, and the difference would be nothing."""
    path = write(
        tmp_path / "clip.wav",
        video=None,
        audio="pcm_f32le",
        rate=RATE,
        layout="stereo",
        wave=np.stack([0.2 * A + 0.4, 0.2 * A - 0.4]),
    )
    mono = read_audio(path)
    assert level(mono) == pytest.approx(0.2 * LEVEL, rel=0.01)
    assert heard(mono) == pytest.approx(600, abs=3)


def test_antiphase_is_detected_in_the_loudest_part(tmp_path: Path) -> None:
    sound = np.stack([wave(0, 0.05, 6.0)] * 2)
    sound[:, 3 * RATE : 4 * RATE] = np.stack([A, -A])
    path = write(tmp_path / "clip.wav", video=None, audio="pcm_s16le", rate=RATE, wave=sound)
    assert find_window(path, 1.0)[0] == pytest.approx(3.0, abs=0.01)
    assert level(read_audio(path, 3.0, 4.0)) == pytest.approx(LEVEL, rel=0.01)


def test_each_part_is_mixed_by_its_own_samples(tmp_path: Path) -> None:
    """Whatever is read before, and in whatever pieces the file comes."""
    sound = np.concatenate([np.stack([A, A]), np.stack([0.2 * A, -0.2 * A]), np.stack([NONE, 0.1 * A])], 1)
    path = write(tmp_path / "clip.flac", video=None, audio="flac", samples="s16", rate=RATE, wave=sound)
    assert level(read_audio(path, 0.0, 1.0)) == pytest.approx(LEVEL, rel=0.01)
    assert level(read_audio(path, 1.0, 2.0)) == pytest.approx(0.2 * LEVEL, rel=0.01)
    assert level(read_audio(path, 2.0, 3.0)) == pytest.approx(0.1 * LEVEL, rel=0.01)


@pytest.mark.slow
def test_long_sounds_are_mixed_by_the_minute(tmp_path: Path) -> None:
    rate, minute = 8000, 60 * 8000
    one = tone(0.25, rate)[0]
    loud = np.resize(one, minute)
    sound = np.zeros((2, 3 * minute))
    sound[0, :minute] = sound[1, minute : 2 * minute] = loud
    sound[:, 2 * minute :] = loud
    path = write(tmp_path / "clip.wav", video=None, audio="pcm_s16le", rate=rate, wave=sound)
    mono = read_audio(path)
    assert len(mono) == 180 * SAMPLE_RATE
    for second in (5, 55, 65, 115, 125, 175):
        part = mono[second * SAMPLE_RATE : (second + 1) * SAMPLE_RATE]
        assert level(part) == pytest.approx(LEVEL, rel=0.03), f"at {second} s"


def test_the_number_of_channels_may_change(tmp_path: Path) -> None:
    """Broadcasts change between mono, stereo and 5.1."""
    path = tmp_path / "clip.aac"
    joined = b""
    for layout, channels in (("mono", [A]), ("stereo", [A, -A]), ("5.1", [NONE, NONE, A, NONE, NONE, NONE])):
        part = write(
            tmp_path / "part.aac", video=None, audio="aac", rate=RATE, layout=layout, wave=np.stack(channels)
        )
        joined += part.read_bytes()
    path.write_bytes(joined)
    mono = read_audio(path)
    for second in (0.3, 1.3, 2.3):
        part = mono[round(second * SAMPLE_RATE) : round((second + 0.5) * SAMPLE_RATE)]
        assert level(part) == pytest.approx(LEVEL, rel=0.05), f"at {second} s"


@pytest.mark.parametrize("count", [2, 3, 6, 8])
def test_the_sum_has_the_power_of_the_loudest(count: int) -> None:
    """On random mixtures that the mean loses, by its definition; and it is the same however the sound is cut."""
    random = np.random.default_rng(count)
    lost = 0
    for _ in range(50):
        sources = random.normal(size=(SAMPLE_RATE, count))
        mixture = random.normal(size=(count, count)) * random.choice([0.01, 1.0], size=count)
        samples = (0.05 * sources @ mixture).astype(np.float32)
        weights = find_weights([samples])
        loudest = samples.var(axis=0).max()
        mean = samples.mean(axis=1).var()
        if weights is None:
            assert mean >= 10**-0.56 * loudest
            continue
        lost += 1
        assert mean <= 10**-0.54 * loudest
        assert (samples @ weights).var() == pytest.approx(loudest, rel=0.01)
        again = find_weights(np.array_split(samples, [100, 5000, 5001]))
        assert again is not None
        assert np.array_equal(again, weights)
    assert lost > 5


@pytest.mark.parametrize("cut", [lambda s: [], lambda s: [s[:0]], lambda s: [0 * s], lambda s: [0 * s + 0.1]])
def test_silent_channels(cut: Callable[[np.ndarray], list[np.ndarray]]) -> None:
    assert find_weights(cut(np.ones((1000, 2), np.float32))) is None
