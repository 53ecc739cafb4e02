"""How the picture is let into the sound, against each kind's definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from evacap_cli.model import FUSIONS
from evacap_cli.model.fusion import Fused, build_fusion

from .samples import ENCODER, fresh_model, greatest_error, plain_attention, random_clips

Record = Callable[[str, object], None]
CROSS = ("entropy-gate", "gate", "cross-attention")


def fusion_of(kind: str) -> Any:
    """With weights large enough that looks are neither even nor one-hot."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_fusion(kind, ENCODER)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return module


def tokens_of(batch: int = 3, picture: int = 12) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, 8, 32, generator=g), torch.randn(batch, picture, 32, generator=g)


def expected_fusion(module: Any, kind: str, audio: Tensor, picture: Tensor, mask: Tensor | None) -> Fused:
    """Equations 1 to 3 and the ablations', written out."""
    projected = (module.query(audio), *module.key_value(picture).chunk(2, dim=-1))
    heads = [x.unflatten(-1, (2, 16)).transpose(1, 2) for x in projected]
    look, entropy = plain_attention(heads[0], heads[1], heads[2], mask)
    seen = module.out(look.transpose(1, 2).flatten(2))
    if kind == "cross-attention":
        return Fused(audio + seen)
    mean = entropy.mean(dim=1)
    if kind == "entropy-gate":
        gate = 1 / (1 + torch.exp(-(module.gate_weight * mean + module.gate_bias)))
    else:
        gate = torch.sigmoid(torch.cat((audio, seen), -1) @ module.gate.weight[0] + module.gate.bias)
    tokens = (1 - gate[..., None]) * audio + gate[..., None] * seen
    return Fused(tokens, gate=gate, entropy=mean if kind == "entropy-gate" else None)


@pytest.mark.parametrize("kind", CROSS)
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_equals_its_definition(kind: str, masked: bool, record_property: Record) -> None:
    module = fusion_of(kind)
    audio, picture = tokens_of()
    mask = None
    if masked:
        mask = torch.ones(3, 12, dtype=torch.bool)
        mask[0, 8:], mask[2, 1:] = False, False  # the last clip has a single token: its entropy is 0
    fused = module(audio, picture, mask)
    expected = expected_fusion(module, kind, audio, picture, mask)
    errors = {"tokens": greatest_error(fused.tokens, expected.tokens)}
    for name in ("gate", "entropy"):
        ours, theirs = getattr(fused, name), getattr(expected, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.shape == (3, 8)
            assert (ours >= 0).all()
            assert (ours <= 1).all()
            errors[name] = greatest_error(ours, theirs)
    record_property("max_abs_errors", errors)
    assert max(errors.values()) < 1e-5
    if masked and kind == "entropy-gate":
        assert fused.entropy[2].abs().max() == 0


@pytest.mark.parametrize("kind", CROSS)
@torch.no_grad()
def test_a_missing_picture_leaves_the_sound_as_it_is(kind: str) -> None:
    """As no picture at all, and as a row whose tokens are all masked; its neighbours do not notice."""
    module = fusion_of(kind)
    audio, picture = tokens_of()
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[1] = False
    mixed, none, full = module(audio, picture, mask), module(audio, None, None), module(audio, picture, None)
    assert torch.equal(none.tokens, audio)
    assert torch.equal(mixed.tokens[1], audio[1])
    assert greatest_error(mixed.tokens[::2], full.tokens[::2]) < 1e-5
    assert module.has_gate == (kind != "cross-attention")
    for fused, rows in ((mixed, slice(1, 2)), (none, slice(0, 3))):
        assert (fused.gate is not None) == module.has_gate
        assert (fused.entropy is not None) == (kind == "entropy-gate")
        if fused.gate is not None:
            assert fused.gate[rows].abs().max() == 0
        if fused.entropy is not None:
            assert fused.entropy[rows].isnan().all()
    if module.has_gate:
        assert mixed.gate[::2].min() > 0


@pytest.mark.parametrize("kind", CROSS)
def test_a_missing_picture_gives_no_gradient_that_is_not_a_number(kind: str) -> None:
    module = fusion_of(kind)
    audio, picture = (x.requires_grad_() for x in tokens_of())
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[1] = False
    fused = module(audio, picture, mask)
    loss = fused.tokens.square().sum()
    if fused.gate is not None:
        loss = loss + fused.gate.square().sum()
    loss.backward()
    assert picture.grad is not None
    assert audio.grad is not None
    assert picture.grad[1].abs().max() == 0
    assert greatest_error(audio.grad[1], 2 * audio[1].detach()) < 1e-6
    for gradient in (audio.grad, picture.grad, *(p.grad for p in module.parameters())):
        assert gradient is not None
        assert gradient.isfinite().all()


def test_the_entropy_gate_starts_with_a_focused_look_opening_it() -> None:
    module: Any = build_fusion("entropy-gate", ENCODER)
    assert (module.gate_weight.item(), module.gate_bias.item()) == (-1.0, 0.0)
    assert module.gate_weight.requires_grad
    assert module.gate_bias.requires_grad
    audio, picture = tokens_of()
    with torch.no_grad():
        module.query.weight.zero_()
        module.query.bias.zero_()
        scattered = module(audio, picture, None)
        single = module(audio, picture[:, :1], None)
    assert scattered.gate.mean().item() == pytest.approx(1 / (1 + torch.e), abs=1e-5)  # E = 1
    assert single.gate.mean().item() == pytest.approx(0.5, abs=1e-6)  # E = 0


def test_the_gate_learns_from_the_entropy() -> None:
    """The gate's gradient reaches queries and keys through the entropy alone."""
    module = fusion_of("entropy-gate")
    audio, picture = tokens_of()
    module(audio, picture, None).gate.sum().backward()
    reached = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert {"query.weight", "query.bias", "key_value.weight", "gate_weight", "gate_bias"} <= reached
    assert module.key_value.weight.grad[32:].abs().max() == 0  # values have no part in where one looks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", CROSS)
@torch.no_grad()
def test_half_precision(kind: str, dtype: torch.dtype, record_property: Record) -> None:
    module = fusion_of(kind)
    audio, picture = tokens_of()
    full = module(audio, picture, None)
    half = module.to(dtype)(audio.to(dtype), picture.to(dtype), None)
    assert half.tokens.dtype == dtype
    error = greatest_error(half.tokens.float(), full.tokens)
    record_property("max_abs_error", error)
    assert error < (0.15 if dtype == torch.bfloat16 else 0.02)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_the_kinds_hand_over_as_many_tokens_as_they_should(fusion: str) -> None:
    model = fresh_model(fusion)
    fbank, pixels = random_clips(2)
    picture = model.encode_picture(pixels) if model.has_picture else None
    memory = model.fuse(model.encode_audio(fbank), picture)
    assert memory.tokens.shape == (2, 8 + 12 if fusion == "concat" else 8, 32)
    assert memory.mask is None
