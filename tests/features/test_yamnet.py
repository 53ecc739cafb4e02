"""YAMNet's log-mel and the padding of short clips."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evacap_cli.features import FeatureSettings, fbank

YAMNET = FeatureSettings(
    spectrogram="yamnet", padding="repeat", mel_bins=64, audio_frames=1008, fbank_mean=0.0, fbank_std=1.0
)
SAMPLES = 400 + 160 * 1007  # that fill 1008 frames
SILENCE = math.log(0.001)


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def plain(waveform: torch.Tensor) -> torch.Tensor:
    """The log-mel of one clip in float64, window by window and band by band, as TensorFlow defines it."""
    mel = [1127 * math.log(1 + hertz / 700) for hertz in (125, 7500)]
    edges = [mel[0] + (mel[1] - mel[0]) * i / 65 for i in range(66)]
    bands = torch.zeros(257, 64, dtype=torch.float64)
    for k in range(1, 257):
        at = 1127 * math.log(1 + k * 8000 / 256 / 700)
        for i in range(64):
            lower, centre, upper = edges[i : i + 3]
            bands[k, i] = max(0.0, min((at - lower) / (centre - lower), (upper - at) / (upper - centre)))
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(400, dtype=torch.float64) / 400)
    frames = [
        torch.fft.rfft(waveform[start : start + 400].double() * hann, n=512).abs() @ bands
        for start in range(0, len(waveform) - 399, 160)
    ]
    return (torch.stack(frames) + 0.001).log().float()


def test_equals_the_definition() -> None:
    waveform = noise(8_000) + 0.02
    settings = replace(YAMNET, audio_frames=48)
    torch.testing.assert_close(fbank(waveform, settings)[0], plain(waveform), atol=1e-4, rtol=0)
    normalised = fbank(waveform, replace(settings, fbank_mean=-4.0, fbank_std=2.0))[0]
    torch.testing.assert_close(normalised, (plain(waveform) + 4) / 2, atol=1e-4, rtol=0)


def test_equals_tensorflow() -> None:
    known = load_file(Path(__file__).parents[1] / "fixtures" / "yamnet.safetensors")
    mel = fbank(known["wave"].float() / 32768, replace(YAMNET, audio_frames=len(known["log_mel"])))
    torch.testing.assert_close(mel[0], known["log_mel"], atol=1e-3, rtol=0)


def test_zero_padding_is_silence() -> None:
    settings = replace(YAMNET, padding="zero")
    mel = fbank(noise(16_000), settings)
    assert mel.shape == (1, 1008, 64)
    assert mel.dtype == torch.float32
    torch.testing.assert_close(mel[0, :98], plain(noise(16_000)), atol=1e-4, rtol=0)
    torch.testing.assert_close(mel[0, 100:], torch.full((908, 64), SILENCE))
    torch.testing.assert_close(fbank([torch.zeros(0)], settings), torch.full((1, 1008, 64), SILENCE))


@pytest.mark.parametrize("spectrogram", ["kaldi", "yamnet"])
@pytest.mark.parametrize("samples", [1, 399, 5_000, 160_000, SAMPLES - 1])
def test_repeated_until_it_fills_the_frames(samples: int, spectrogram: str) -> None:
    settings = replace(YAMNET, spectrogram=spectrogram)
    clip = noise(samples)
    whole = clip.repeat(math.ceil(SAMPLES / samples))[:SAMPLES]
    expected = fbank(whole, replace(settings, padding="zero"))
    torch.testing.assert_close(fbank(clip, settings), expected, atol=5e-4, rtol=0)


@pytest.mark.parametrize("spectrogram", ["kaldi", "yamnet"])
def test_clips_that_fill_the_frames_are_not_padded(spectrogram: str) -> None:
    settings = replace(YAMNET, spectrogram=spectrogram)
    for samples in (SAMPLES, 200_000):
        clip = noise(samples)
        assert torch.equal(fbank(clip, settings), fbank(clip, replace(settings, padding="zero")))


@pytest.mark.parametrize("spectrogram", ["kaldi", "yamnet"])
@pytest.mark.parametrize("padding", ["zero", "repeat"])
def test_clips_of_different_lengths_are_independent(spectrogram: str, padding: str) -> None:
    settings = replace(YAMNET, spectrogram=spectrogram, padding=padding)
    clips = [noise(30_000, 1), noise(170_000, 2) + 0.1, noise(399, 3), torch.zeros(0), noise(160_000, 4)]
    for row, clip in zip(fbank(clips, settings), clips, strict=True):
        torch.testing.assert_close(row, fbank(clip, settings)[0], atol=5e-4, rtol=0)


@pytest.mark.parametrize("seconds", [0.3, 2.0, 10.0])
def test_equal_on_one_thread_and_on_many(seconds: float) -> None:
    wave = noise(int(16_000 * seconds), 7) + 0.01
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(fbank(wave, YAMNET))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_waveform_is_not_modified() -> None:
    waveform = noise(16_000)
    before = waveform.clone()
    fbank(waveform, YAMNET)
    fbank([waveform], YAMNET)
    assert torch.equal(waveform, before)
