"""Packed weights: the same captions and nearly the same numbers, in fp32 and in half precision."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evacap_cli.model import CaptionModel, load_checkpoint
from evacap_cli.model.config import FUSIONS
from evacap_cli.model.packing import PackedLinear, can_multiply, can_pack, pack

from .samples import random_clips, random_model, smooth_pictures

CLIPS = 5
AVX2_ONLY = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""What makes any x86 processor look like a laptop's, which has no bf16."""


def inputs(model: CaptionModel) -> tuple[torch.Tensor, torch.Tensor | None]:
    config, g = model.config.encoder, torch.Generator().manual_seed(5)
    fbank = torch.randn(CLIPS, config.audio_frames, config.mel_bins, generator=g)
    pixels = smooth_pictures(CLIPS, config.frames, config.image_size, g)
    return fbank, pixels if model.has_picture else None


@pytest.mark.parametrize("shape", [(6,), (1, 6), (4, 6), (3, 5, 6), (70, 8, 6)])
def test_a_packed_product_equals_the_product(shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=g) for size in (shape, (11, 6), (11,)))
    wanted = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(PackedLinear(weight, bias, torch.float32)(x), wanted)
    half = PackedLinear(weight, bias, torch.bfloat16)(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wanted, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("onednn", [True, False])
def test_a_type_that_cannot_be_packed_uses_the_plain_product(
    dtype: torch.dtype, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", onednn)
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=g) for size in ((3, 6), (11, 6), (11,)))
    assert can_multiply(dtype)
    assert not can_pack(dtype) or onednn
    layer = PackedLinear(weight, bias, dtype)
    assert layer.plain != can_pack(dtype)
    found = layer(x)
    assert found.dtype == dtype
    wanted = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(found.float(), wanted, rtol=0.02, atol=0.05)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these variables are for x86")
def test_a_processor_without_bf16_uses_plain_products() -> None:
    code = (
        "import torch; from evacap_cli.model.packing import can_multiply, can_pack; "
        "print([(can_pack(t), can_multiply(t)) for t in (torch.float32, torch.bfloat16)])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=os.environ | AVX2_ONLY,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.strip() == "[(True, True), (False, True)]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "precision"),
    [*((fusion, None) for fusion in FUSIONS), ("concat", torch.bfloat16), ("evidence", torch.bfloat16)],
)
def test_packed_models_give_the_same_captions(fusion: str, precision: torch.dtype | None) -> None:
    model = random_model(fusion, 3).eval()
    fbank, pixels = inputs(model)
    plain = model.generate(fbank, pixels, max_words=6, min_words=6)
    assert pack(pack(model, precision), precision) is model  # the second time nothing happens
    plainly = {name for name, layer in model.named_modules() if type(layer) is torch.nn.Linear}
    assert all(name.startswith("fusion.evidence.") for name in plainly)
    assert bool(plainly) == (fusion == "evidence")
    assert len(model.decoders) == 1 + (fusion == "evidence")
    assert all(isinstance(decoder.vocabulary, PackedLinear) for decoder in model.decoders)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
        found = model.generate(fbank, pixels, max_words=6, min_words=6)
        if precision is None:
            slow = model.generate(fbank, pixels, max_words=6, min_words=6, cached=False)
            assert torch.equal(found.tokens, slow.tokens)
    tolerance = 1e-5 if precision is None else 0.05
    torch.testing.assert_close(found.score, plain.score, rtol=0, atol=tolerance)
    if precision is None:
        assert torch.equal(found.tokens, plain.tokens)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_on_other_devices_weights_are_stored_in_the_precision(
    fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: linear weights are halved, but for those that compare, and captions come of them."""
    monkeypatch.setattr("evacap_cli.model.packing.has_onednn", lambda: False)
    model = pack(random_model(fusion, 3), torch.bfloat16)
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            compares = name.startswith("fusion.evidence.")
            assert layer.weight.dtype == (torch.float32 if compares else torch.bfloat16), name
    fbank, pixels = random_clips(CLIPS)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.generate(fbank, pixels if model.has_picture else None, max_words=6)
    assert found.score.isfinite().all()
    assert found.evidence is None or found.evidence.isfinite().all()


def test_another_precision_needs_the_original_weights() -> None:
    model = pack(random_model("audio-only", 3).eval(), torch.bfloat16)
    with pytest.raises(ValueError, match="load it again"):
        pack(model, None)


def test_logits_are_fp32_whatever_the_precision() -> None:
    model = load_checkpoint("audio-demo").model
    hidden = torch.randn(2, model.config.decoder.width)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert model.decoder.logits(hidden.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):  # learned, they cost memory
        assert model.decoder.logits(hidden).dtype == torch.bfloat16
