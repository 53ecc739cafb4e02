"""How the picture is let into the sound, against each kind's definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evacap_cli.model import FUSIONS, ModelConfig
from evacap_cli.model.config import EvidenceConfig
from evacap_cli.model.fused import Fused
from evacap_cli.model.fusion_kinds import build_fusion

from .samples import DECODER, ENCODER, fresh_model, greatest_error, plain_attention, random_clips

Record = Callable[[str, object], None]
CROSS = ("entropy-gate", "gate", "cross-attention")


def fusion_of(kind: str, config: ModelConfig | None = None) -> Any:
    """With weights large enough that looks are neither even nor one-hot."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_fusion(config or ModelConfig(kind, ENCODER, DECODER))
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
def test_without_a_picture_the_audio_tokens_are_unchanged(kind: str) -> None:
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
def test_without_a_picture_gradients_are_finite(kind: str) -> None:
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


def test_initially_focused_attention_opens_the_entropy_gate() -> None:
    module: Any = build_fusion(ModelConfig("entropy-gate", ENCODER, DECODER))
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
def test_each_kind_returns_its_number_of_tokens(fusion: str) -> None:
    model = fresh_model(fusion)
    fbank, pixels = random_clips(2)
    picture = model.encode_picture(pixels) if model.has_picture else None
    memory = model.fuse(model.encode_audio(fbank), picture)
    assert memory.tokens.shape == (
        2,
        {"concat": 8 + 12, "adaptive": 8 + 3, "optimal-transport": 4 + 3}.get(fusion, 8),
        32,
    )
    assert memory.mask is None


# ---- the switch of `evidence`


def switch_of(windows: int = 1, threshold: float = 0.5) -> Any:
    config = ModelConfig("evidence", ENCODER, DECODER, EvidenceConfig(16, threshold, windows))
    return fusion_of("evidence", config).eval()


def say(module: Any, monkeypatch: pytest.MonkeyPatch, *windows: list[float]) -> None:
    """What the evidence is, of each window in turn."""
    left = [torch.tensor(window) for window in windows]
    monkeypatch.setattr(module.evidence, "probability", lambda cues: left.pop(0))


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_the_switch_is_on_or_off(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open, as cross-attention; shut, the sound to the bit, whatever the picture."""
    module = switch_of()
    audio, picture = tokens_of()
    mask = None
    if masked:
        mask = torch.ones(3, 12, dtype=torch.bool)
        mask[0, 8:], mask[1, :4] = False, False
    say(module, monkeypatch, [0.5, 0.49, 0.9], [0.5, 0.49, 0.9], [0.2] * 3)
    fused = module(audio, picture, mask)
    expected = expected_fusion(module, "cross-attention", audio, picture, mask)
    assert greatest_error(fused.tokens[::2], expected.tokens[::2]) < 1e-5
    assert torch.equal(fused.tokens[1], audio[1])
    assert fused.gate.tolist() == [[1.0] * 8, [0.0] * 8, [1.0] * 8]
    assert fused.evidence.tolist() == [[0.5], [pytest.approx(0.49)], [pytest.approx(0.9)]]
    other = picture.clone()
    other[1] = 100 * torch.randn(12, 32)
    assert torch.equal(module(audio, other, mask).tokens, fused.tokens)
    shut = module(audio, picture, mask)
    assert torch.equal(shut.tokens, audio)
    assert not shut.gate.any()


@torch.no_grad()
def test_the_switch_depends_on_its_cues() -> None:
    module = switch_of()
    audio, picture = tokens_of()
    module.evidence.weights.copy_(torch.tensor([3.0, -1.0, 0.2]))
    cues = module.evidence(audio, picture, None, None)
    middle = cues @ module.evidence.weights
    module.evidence.bias.fill_(-float(middle.sort().values[1]) + 1e-3)  # one is shut
    fused = module(audio, picture, None)
    assert torch.equal(fused.cues, cues)
    assert fused.evidence.shape == (3, 1)
    assert fused.evidence[:, 0].tolist() == pytest.approx((middle + module.evidence.bias).sigmoid().tolist())
    assert fused.gate[:, 0].tolist() == [float(p >= 0.5) for p in fused.evidence[:, 0]]
    assert fused.gate[:, 0].sum() == 2


@torch.no_grad()
def test_without_a_picture_there_is_no_evidence() -> None:
    module = switch_of(threshold=0.0)
    audio, picture = tokens_of()
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[1] = False
    mixed, none = module(audio, picture, mask), module(audio, None, None)
    for fused, rows in ((mixed, slice(1, 2)), (none, slice(0, 3))):
        assert torch.equal(fused.tokens[rows], audio[rows])
        assert not fused.gate[rows].any()
        assert fused.evidence[rows].isnan().all()
        assert fused.cues[rows].isnan().all()
    assert mixed.gate[::2].all()
    assert mixed.evidence[::2].isfinite().all()
    assert none.cues.shape == mixed.cues.shape == (3, 3)


def test_in_training_the_picture_is_always_used() -> None:
    module = switch_of(threshold=1.0).train()
    audio, picture = (x.requires_grad_() for x in tokens_of())
    fused = module(audio, picture, None)
    expected = expected_fusion(module, "cross-attention", audio, picture, None)
    assert greatest_error(fused.tokens, expected.tokens) < 1e-5
    fused.tokens.square().sum().backward()
    assert picture.grad is not None
    assert all(rows.any() for rows in picture.grad)


COLUMNS = torch.arange(8) % 4  # of time, of which the 8 tokens of sound have 4, in 2 rows of frequency


@torch.no_grad()
def test_only_matching_windows_use_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four columns of sound and three frames, the first window has two of each."""
    module = switch_of(windows=2)
    audio, picture = tokens_of()
    say(module, monkeypatch, [0.9, 0.9, 0.1], [0.1, 0.9, 0.1])
    fused = module(audio, picture, None)
    first, whole = (
        expected_fusion(module, "cross-attention", audio, frames, None).tokens
        for frames in (picture[:, :8], picture)
    )
    early = COLUMNS < 2
    assert greatest_error(fused.tokens[0, early], first[0, early]) < 1e-5
    assert torch.equal(fused.tokens[0, ~early], audio[0, ~early])
    assert greatest_error(fused.tokens[1], whole[1]) < 1e-5
    assert torch.equal(fused.tokens[2], audio[2])
    assert fused.gate.tolist() == [early.float().tolist(), [1.0] * 8, [0.0] * 8]
    assert fused.evidence.tolist() == [pytest.approx(row) for row in ([0.9, 0.1], [0.9, 0.9], [0.1, 0.1])]


@pytest.mark.parametrize(
    ("windows", "frames", "parts"),
    [
        (2, 3, [(2, 2), (2, 1)]),  # columns and frames of each window
        (3, 3, [(2, 1), (1, 1), (1, 1)]),
        (9, 3, [(2, 1), (1, 1), (1, 1)]),  # no more than frames
        (9, 1, [(4, 1)]),
        (9, 6, [(1, 2), (1, 2), (1, 1), (1, 1)]),  # or columns
    ],
)
@torch.no_grad()
def test_a_window_is_compared_like_a_clip(windows: int, frames: int, parts: list[tuple[int, int]]) -> None:
    module = switch_of(windows)
    audio, picture = tokens_of(picture=4 * frames)
    mask = torch.ones(3, 4 * frames, dtype=torch.bool)
    mask[2, 4 * (frames - 1) :] = False
    module.evidence.weights.fill_(1.0)
    found = module(audio, picture, mask)
    columns = frame = 0
    for window, (wide, many) in enumerate(parts):
        heard = audio[:, torch.isin(COLUMNS, torch.arange(columns, columns + wide))]
        shown = slice(4 * frame, 4 * (frame + many))
        for i in range(3):
            wanted = torch.tensor(torch.nan)
            if mask[i, shown].any():
                tokens = picture[i : i + 1, shown][:, mask[i, shown]]
                wanted = module.evidence.probability(module.evidence(heard[i : i + 1], tokens, None, None))[0]
            torch.testing.assert_close(found.evidence[i, window], wanted, equal_nan=True)
        columns, frame = columns + wide, frame + many
    assert found.evidence.shape == (3, len(parts))
    assert (columns, frame) == (4, frames)
    some = mask.any(dim=1)
    torch.testing.assert_close(found.cues[some], module.evidence(audio, picture, mask, None)[some])


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_tags_of_a_clip_are_the_log_mean_of_its_tokens(masked: bool) -> None:
    """The same mean of the tokens' odds for whom the frames are many and for whom they are few."""
    config = ModelConfig("evidence", replace(ENCODER, tag_classes=5), DECODER)
    module = fusion_of("evidence", config).eval()
    audio, picture = tokens_of()
    g = torch.Generator().manual_seed(4)
    tags = torch.randn(3, 8, 5, generator=g), torch.randn(3, 12, 5, generator=g)
    mask = torch.ones(3, 12, dtype=torch.bool)
    if masked:
        mask[0, 4:], mask[2, :8] = False, False
    found = module(audio, picture, mask if masked else None, tags).cues
    for i in range(3):
        seen = tags[1][i][mask[i]]
        pooled = [x.exp().mean(dim=0).log()[None] for x in (tags[0][i], seen)]
        wanted = module.evidence(
            audio[i : i + 1], picture[i : i + 1][:, mask[i]], None, (pooled[0], pooled[1])
        )
        torch.testing.assert_close(found[i], wanted[0])
    some = module.match_loss(audio, picture, mask if masked else None, tags)
    wanted = module.evidence.loss(audio, picture, mask, tuple(
        torch.stack([x[i][keep[i]].exp().mean(dim=0).log() for i in range(3)])
        for x, keep in ((tags[0], torch.ones(3, 8, dtype=torch.bool)), (tags[1], mask))
    ))  # fmt: skip
    torch.testing.assert_close(some, wanted)
