from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.errors import MediaError
from evacap_cli.media import SAMPLE_RATE, NoAudioError, find_window, read_audio

from .clips import STEP, heard, pitch, tone, write

# suffix, encoder, rate, layout, sample format
SOUNDS = [
    ("mp4", "aac", 44_100, "stereo", None),
    ("mkv", "aac", 48_000, "5.1", None),
    ("webm", "libopus", 48_000, "stereo", None),
    ("ogg", "libopus", 48_000, "mono", None),
    ("webm", "vorbis", 44_100, "stereo", None),
    ("ogg", "vorbis", 44_100, "stereo", None),
    ("mp3", "libmp3lame", 44_100, "stereo", None),
    ("mp3", "libmp3lame", 16_000, "mono", None),
    ("avi", "libmp3lame", 44_100, "stereo", None),
    ("flac", "flac", 96_000, "stereo", "s32"),
    ("mkv", "flac", 44_100, "7.1", "s16"),
    ("mp4", "aac", 48_000, "7.1", None),
    ("mkv", "libopus", 48_000, "10 channels", None),
    ("m4a", "alac", 44_100, "stereo", "s16p"),
    ("mov", "pcm_s16le", 48_000, "stereo", None),
    ("mov", "pcm_s24le", 48_000, "stereo", None),
    ("avi", "pcm_s16le", 22_050, "mono", None),
    ("wav", "pcm_u8", 8_000, "mono", None),
    ("wav", "pcm_s16le", 16_000, "mono", None),
    ("wav", "pcm_s16le", 192_000, "stereo", None),
    ("wav", "pcm_s32le", 11_025, "stereo", None),
    ("wav", "pcm_f32le", 44_100, "stereo", None),
    ("wav", "pcm_f64le", 44_100, "2.1", None),
    ("ts", "aac", 44_100, "stereo", None),
]


def check_tone(waveform: np.ndarray, start: float, end: float, offset: float = 0.0) -> None:
    """The pitch in the middle of each step from `start` to `end`; `offset`: the waveform's own start."""
    for step in np.arange(start, end, STEP):
        first = round((step + 0.05 - offset) * SAMPLE_RATE)
        part = waveform[first : first + round(0.15 * SAMPLE_RATE)]
        assert heard(part) == pytest.approx(pitch(step), abs=10), f"at {step} s"


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "codec", "rate", "layout", "samples"), SOUNDS)
def test_formats(
    tmp_path: Path, suffix: str, codec: str, rate: int, layout: str, samples: str | None
) -> None:
    path = write(
        tmp_path / f"clip.{suffix}", 3.0, video=None, audio=codec, rate=rate, layout=layout, samples=samples
    )
    waveform = read_audio(path)
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert len(waveform) / SAMPLE_RATE == pytest.approx(3.0, abs=0.07)
    check_tone(waveform, 0.0, 3.0)
    level = np.sqrt(np.mean(waveform[1600:-1600] ** 2))  # a mean of equal channels keeps it
    assert level == pytest.approx(0.5 / np.sqrt(2), abs=0.02)

    part = read_audio(path, 1.6, 2.4)
    assert len(part) == 0.8 * SAMPLE_RATE
    check_tone(part, 1.75, 2.25, offset=1.6)
    # Matroska's and AVI's clocks, and the grid of 16 kHz, put such a part up to 1 ms elsewhere
    around = waveform[round(1.6 * SAMPLE_RATE) - 400 : round(2.4 * SAMPLE_RATE) + 400]
    lag = np.argmax(np.correlate(around, part, "valid")) - 400
    assert abs(lag) <= 0.0012 * SAMPLE_RATE


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 192_000])
def test_resampling_is_exact_in_time_and_level(tmp_path: Path, rate: int) -> None:
    t = np.arange(rate) / rate
    path = write(
        tmp_path / "clip.wav",
        video=None,
        audio="pcm_f32le",
        rate=rate,
        layout="mono",
        wave=0.8 * np.sin(2 * np.pi * 440 * t)[None],
    )
    waveform = read_audio(path)
    assert abs(len(waveform) - SAMPLE_RATE) <= 1
    expected = 0.8 * np.sin(2 * np.pi * 440 * np.arange(len(waveform)) / SAMPLE_RATE)
    assert np.abs(waveform - expected)[200:-200].max() < 2e-3


def test_at_16_khz_samples_are_unchanged(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 20_000, dtype=np.int16)
    path = tmp_path / "clip.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(samples.tobytes())
    assert np.array_equal(read_audio(path), samples.astype(np.float32) / 2**15)
    assert np.array_equal(read_audio(path, 0.25, 0.75), samples[4000:12_000].astype(np.float32) / 2**15)
    assert np.array_equal(read_audio(path, 1.125, 1.2), samples[18_000:19_200].astype(np.float32) / 2**15)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 10])
def test_layouts_without_a_name(tmp_path: Path, channels: int) -> None:
    """Plain WAV says how many channels there are, not which."""
    path = tmp_path / "clip.wav"
    samples = np.round(tone(2.0, 16_000, channels) * 2**15).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(np.ascontiguousarray(samples.T).tobytes())
    waveform = read_audio(path)
    assert np.allclose(waveform, samples[0] / 2**15, atol=1e-4)


def test_channels_are_averaged_without_the_low_frequency_effects(tmp_path: Path) -> None:
    levels = np.array([0.1, 0.2, 0.3, 0.9, 0.4, 0.5])  # left, right, centre, effects, two surround
    sound = np.repeat(levels[:, None], 16_000, axis=1)
    path = write(tmp_path / "clip.wav", video=None, audio="pcm_f32le", rate=16_000, layout="5.1", wave=sound)
    assert np.allclose(read_audio(path), 0.3, atol=1e-6)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_starts_late(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"clip.{suffix}", 2.5, audio_start=0.75)
    waveform = read_audio(path)
    assert np.abs(waveform[: round(0.7 * SAMPLE_RATE)]).max() < 1e-3
    check_tone(waveform, 0.75, 2.5)
    check_tone(read_audio(path, 1.5, 2.25), 1.5, 2.25, offset=1.5)
    assert np.abs(read_audio(path, 0.0, 0.7)).sum() < 1.0


def test_without_video_time_starts_with_the_audio(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", 2.0, video=None, audio="flac", audio_start=1.0)
    waveform = read_audio(path)
    assert heard(waveform[800:3200]) == pytest.approx(pitch(1.0), abs=10)


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "flac"), ("mp4", "aac"), ("webm", "libopus")])
def test_gaps_stay_in_place(tmp_path: Path, suffix: str, codec: str) -> None:
    path = write(tmp_path / f"clip.{suffix}", 3.0, video=None, audio=codec, rate=48_000, gap=(0.75, 1.75))
    waveform = read_audio(path)
    check_tone(waveform, 0.0, 0.5)
    assert np.abs(waveform[round(0.9 * SAMPLE_RATE) : round(1.6 * SAMPLE_RATE)]).max() < 0.01
    check_tone(waveform, 2.0, 3.0)
    check_tone(read_audio(path, 1.5, 3.0), 2.0, 3.0, offset=1.5)


def test_spans_at_and_beyond_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", 2.0, video=None, audio="pcm_s16le", rate=16_000, layout="mono")
    assert len(read_audio(path, 1.5, 11.5)) == 0.5 * SAMPLE_RATE
    assert len(read_audio(path, 2.0, 12.0)) == 0
    assert len(read_audio(path, 60.0, 70.0)) == 0
    assert len(read_audio(path, 1.0, 1.0)) == 0
    assert len(read_audio(path, 0.5, 0.7)) == round(0.2 * SAMPLE_RATE)


def test_invalid_samples_are_replaced(tmp_path: Path) -> None:
    sound = tone(1.0, 16_000)
    sound[0, 4000:4100] = 7.0
    sound[0, 5000:5100] = np.nan
    sound[0, 6000:6100] = np.inf
    sound[0, 7000:7100] = -1e30
    path = write(tmp_path / "clip.wav", video=None, audio="pcm_f32le", rate=16_000, layout="mono", wave=sound)
    waveform = read_audio(path)
    assert np.isfinite(waveform).all()
    assert np.abs(waveform).max() == 1.0
    assert np.all(waveform[5000:5100] == 0)
    assert np.allclose(waveform[8000:], sound[0, 8000:], atol=1e-6)


def test_no_audio_track(tmp_path: Path) -> None:
    path = write(tmp_path / "silent.mp4", 1.0, audio=None)
    for read in (read_audio, lambda path: find_window(path, 0.5)):
        with pytest.raises(NoAudioError) as caught:
            read(path)
        assert caught.value.message == "no audio track"
        assert isinstance(caught.value, MediaError)


def louder_at(begin: float, end: float, seconds: float, rate: int = 16_000) -> np.ndarray:
    sound = np.random.default_rng(0).normal(size=(1, round(seconds * rate))) * 0.01
    sound[:, round(begin * rate) : round(end * rate)] *= 20
    return sound


@pytest.mark.parametrize(("suffix", "codec"), [("wav", "pcm_s16le"), ("mp3", "libmp3lame"), ("mp4", "aac")])
@pytest.mark.parametrize(("begin", "end"), [(0.0, 2.0), (3.3, 5.3), (6.0, 8.0)])
def test_the_loudest_window(tmp_path: Path, suffix: str, codec: str, begin: float, end: float) -> None:
    path = write(
        tmp_path / f"clip.{suffix}",
        8.0,
        video=None,
        audio=codec,
        rate=16_000,
        layout="mono",
        wave=louder_at(begin, end, 8.0),
    )
    start, stop = find_window(path, 2.0)
    assert start == pytest.approx(begin, abs=0.11)
    assert stop - start == pytest.approx(2.0)


def test_windows_are_on_the_common_clock(tmp_path: Path) -> None:
    sound = louder_at(2.0, 3.0, 5.0)
    path = write(tmp_path / "clip.mkv", 4.0, rate=16_000, layout="mono", wave=sound, audio_start=2.0)
    assert find_window(path, 1.0)[0] == pytest.approx(4.0, abs=0.11)


def test_of_equal_windows_the_first_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    for sound in (np.zeros((1, 48_000)), np.full((1, 48_000), 0.25)):
        write(path, video=None, audio="pcm_f32le", rate=16_000, layout="mono", wave=sound)
        assert find_window(path, 1.0) == (0.0, 1.0)


def test_other_windows(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", 3.0, video=None, audio="pcm_s16le", rate=16_000, layout="mono")
    assert find_window(path, 1.0, "start") == (0.0, 1.0)
    assert find_window(path, 1.0, "middle") == pytest.approx((1.0, 2.0))
    assert find_window(path, 10.0) == pytest.approx((0.0, 3.0))
    assert find_window(path, 3.0) == pytest.approx((0.0, 3.0))
    with pytest.raises(ValueError, match="loudest, start, middle"):
        find_window(path, 1.0, "end")
