from __future__ import annotations

import math
import pickle

import pytest
import torch
import torchaudio

from evacap_cli.features import FeatureSettings, fbank


def plain(waveform: torch.Tensor, settings: FeatureSettings) -> torch.Tensor:
    """One clip, the obvious way, but for a mean that is the same on any number of threads: near-silent bins show it."""
    mel = torchaudio.compliance.kaldi.fbank(
        (waveform - waveform.double().mean().float()).unsqueeze(0),
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type=settings.window,
        num_mel_bins=settings.mel_bins,
        dither=0.0,
        frame_shift=10,
    )
    missing = settings.audio_frames - len(mel)
    if missing > 0:
        mel = torch.nn.ZeroPad2d((0, 0, 0, missing))(mel)
    mel = mel[: settings.audio_frames]
    return (mel - settings.fbank_mean) / settings.fbank_std


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def chirps(samples: int) -> torch.Tensor:
    """Bursts of a falling tone over a faint hum with an offset: loud and soft stretches, as in real clips."""
    t = torch.arange(samples) / 16000
    tone = torch.sin(2 * math.pi * (3000 * t - 120 * t**2)) * (torch.sin(2 * math.pi * 0.7 * t) > 0.3)
    hum = 0.01 * torch.sin(2 * math.pi * 50 * t)
    return 0.6 * tone + hum + 0.02 + 0.002 * noise(samples, 5)


@pytest.mark.parametrize("window", ["hamming", "hanning"])
@pytest.mark.parametrize("samples", [160_000, 47_123, 400, 401, 560, 163_839, 164_080, 164_239, 200_000])
@pytest.mark.parametrize("make", [noise, chirps])
def test_equals_torchaudio(make, samples: int, window: str) -> None:
    settings = FeatureSettings(window=window)
    waveform = make(samples)
    torch.testing.assert_close(fbank(waveform, settings)[0], plain(waveform, settings), atol=1e-4, rtol=0)


def test_clips_of_different_lengths_are_independent() -> None:
    """But for what a matrix product of another size rounds differently in nearly empty bins (6.7e-5 seen)."""
    settings = FeatureSettings()
    clips = [
        noise(30_000, 1),
        chirps(170_000),
        noise(399, 2),
        torch.zeros(0),
        chirps(5_000),
        noise(160_000, 3),
    ]
    batch = fbank(clips, settings)
    assert batch.shape == (6, 1024, 128)
    assert batch.dtype == torch.float32
    for row, clip in zip(batch, clips, strict=True):
        torch.testing.assert_close(row, fbank(clip, settings)[0], atol=5e-4, rtol=0)
    stacked = torch.stack([noise(16_000, seed) for seed in range(3)])
    torch.testing.assert_close(fbank(stacked, settings), fbank(list(stacked), settings), atol=5e-4, rtol=0)


@pytest.mark.parametrize("samples", [0, 1, 200, 399])
def test_audio_shorter_than_a_window_is_padding(samples: int) -> None:
    settings = FeatureSettings()
    padding = torch.full((1, 1024, 128), -settings.fbank_mean / settings.fbank_std)
    torch.testing.assert_close(fbank(noise(samples), settings), padding)
    torch.testing.assert_close(fbank([noise(samples)], settings), padding)


def test_silence_is_the_floor() -> None:
    settings = FeatureSettings()
    expected = (math.log(torch.finfo(torch.float32).eps) - settings.fbank_mean) / settings.fbank_std
    mel = fbank(torch.zeros(2, 16_000), settings)
    torch.testing.assert_close(mel[:, :98], torch.full((2, 98, 128), expected))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_become_float32(dtype: torch.dtype) -> None:
    settings = FeatureSettings()
    waveform = noise(16_000).to(dtype)
    torch.testing.assert_close(fbank(waveform, settings), fbank(waveform.float(), settings))


def test_other_sizes() -> None:
    settings = FeatureSettings(mel_bins=64, audio_frames=100, fbank_mean=-5.081, fbank_std=4.4849)
    waveform = chirps(32_000)
    mel = fbank(waveform, settings)
    assert mel.shape == (1, 100, 64)
    torch.testing.assert_close(mel[0], plain(waveform, settings), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seconds", [0.0, 2.0, 4.0, 10.0])
def test_equal_on_one_thread_and_on_many(seconds: float) -> None:
    wave = torch.randn(int(16_000 * seconds), generator=torch.Generator().manual_seed(7)) / 10 + 0.01
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(fbank(wave, FeatureSettings()))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_waveform_is_not_modified() -> None:
    waveform = noise(16_000)
    before = waveform.clone()
    fbank(waveform, FeatureSettings())
    fbank([waveform], FeatureSettings())
    assert torch.equal(waveform, before)


def test_is_picklable() -> None:
    assert pickle.loads(pickle.dumps(fbank)) is fbank
