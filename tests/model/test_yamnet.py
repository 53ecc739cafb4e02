from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from evacap_cli.features import FeatureSettings, fbank
from evacap_cli.model.yamnet import SameConv, YAMNet, fold_batch_norm, patches

FIXTURE = Path(__file__).parents[1] / "fixtures" / "yamnet.safetensors"
"""What TensorFlow's YAMNet makes of 2.4 s of a chirp: wave int16, log_mel (240, 64), scores (4, 521); and
the classifier that it was published with, in fp16: the packaged ear has another one."""


def assert_equals_tensorflow(model: YAMNet) -> None:
    """Raises AssertionError unless the model, with YAMNet's own weights, gives TensorFlow's scores."""
    known = load_file(FIXTURE)
    with torch.inference_mode():
        scores = model(known["log_mel"].unsqueeze(0))[0].sigmoid()
        torch.testing.assert_close(scores, known["scores"], atol=1e-4, rtol=0)
        settings = FeatureSettings(
            spectrogram="yamnet", mel_bins=64, audio_frames=len(known["log_mel"]), fbank_mean=0, fbank_std=1
        )
        scores = model(fbank(known["wave"].float() / 32768, settings))[0].sigmoid()
        torch.testing.assert_close(scores, known["scores"], atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def model() -> YAMNet:
    torch.manual_seed(0)
    return YAMNet().eval()


@torch.inference_mode()
def test_one_row_of_logits_for_each_patch(model: YAMNet) -> None:
    log_mel = torch.randn(2, 200, 64, generator=torch.Generator().manual_seed(0))
    logits = model(log_mel)
    assert logits.shape == (2, 3, 521)
    for b in range(2):
        for w in range(3):
            patch = log_mel[b : b + 1, 48 * w : 48 * w + 96]
            torch.testing.assert_close(model(patch)[0, 0], logits[b, w], atol=1e-5, rtol=0)
    assert model(torch.zeros(1, 1008, 64)).shape == (1, 20, 521)


def test_audio_shorter_than_a_patch_is_an_error() -> None:
    with pytest.raises(ValueError, match="95 frames"):
        patches(torch.zeros(1, 95, 64))


@torch.inference_mode()
def test_blocks_can_run_separately(model: YAMNet) -> None:
    maps = patches(torch.randn(1, 144, 64, generator=torch.Generator().manual_seed(1)))
    middle = model.trunk(maps, end=10)
    assert middle.shape == (2, 512, 6, 4)
    torch.testing.assert_close(model.trunk(middle, start=10), model.trunk(maps))


@torch.inference_mode()
def test_stride_two_pads_at_the_end_like_tensorflow() -> None:
    conv = SameConv(1, 1, stride=2)
    conv.weight.copy_(torch.arange(9.0).view(1, 1, 3, 3))
    conv.bias.zero_()  # type: ignore[union-attr]
    maps = torch.zeros(1, 1, 4, 4)
    maps[..., 2, 2] = 1  # seen by the corner of the first output and by the centre of the last
    expected = torch.tensor([[8.0, 6.0], [2.0, 0.0]])
    assert torch.equal(conv(maps)[0, 0], expected)


def test_folded_batch_norm_equals_batch_norm() -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(6, 3, 3, 3, generator=generator)
    beta, mean = torch.randn(2, 6, generator=generator)
    variance = torch.rand(6, generator=generator) + 0.1
    maps = torch.randn(2, 3, 8, 8, generator=generator)
    plain = F.batch_norm(F.conv2d(maps, weight), mean, variance, bias=beta, eps=1e-4)
    torch.testing.assert_close(
        F.conv2d(maps, *fold_batch_norm(weight, beta, mean, variance)), plain, atol=1e-5, rtol=1e-5
    )
