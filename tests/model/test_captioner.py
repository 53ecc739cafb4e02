"""The captioner as a whole: sizes, what a missing picture does, the loss and what shuffling touches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import (
    FUSIONS,
    CaptionModel,
    ModelConfig,
    Objective,
    build_model,
    load_preset,
    parameter_counts,
    preset_names,
)
from evacap_cli.model import captioner as captioner_module
from evacap_cli.model.losses import gate_stability, semantic_consistency, smoothed_cross_entropy
from evacap_cli.model.published import from_published
from evacap_cli.model.shuffling import shuffle_partners
from .samples import DECODER, ENCODER, random_clips


def small(fusion: str, seed: int = 0) -> CaptionModel:
    torch.manual_seed(seed)
    return build_model(ModelConfig(fusion, ENCODER, DECODER))


def batch(size: int = 6, seed: int = 0) -> dict[str, Tensor]:
    fbank, pixels = random_clips(size, seed)
    tokens = torch.randint(3, 23, (size, 9), generator=torch.Generator().manual_seed(seed))
    tokens[:, 0], tokens[:, -1] = 1, 2
    need = torch.ones_like(tokens, dtype=torch.bool)
    need[:, 0] = False
    return {"audio": fbank, "picture": pixels, "tokens": tokens, "need_predict": need}


@pytest.mark.parametrize(
    ("preset", "millions", "printed"),
    [("audio-base", 153.43, 153), ("avcap-base", 233.18, 233), ("evacap-base", 234.51, 235)],
)
def test_parameters_are_those_of_table_1(preset: str, millions: float, printed: int) -> None:
    with torch.device("meta"):
        model = build_model(load_preset(preset).model)
    total = parameter_counts(model)["total"]
    assert total == sum(p.numel() for p in model.parameters())
    assert total / 1e6 == pytest.approx(millions, abs=0.01)
    assert round(total / 1e6) == printed


def test_every_published_avcap_key_finds_its_place() -> None:
    """The 8-frame checkpoint's 584 names and shapes fill `avcap-base`: nothing missing, nothing left over but norms of
    the separate paths, which a model that joins its modalities does not read."""
    keys = json.loads((Path(__file__).parent.parent / "fixtures" / "avcap_8frames_keys.json").read_text())
    state = {
        name: torch.zeros(shape) if "textual" in name else torch.empty(shape, device="meta")
        for name, shape in keys.items()
    }
    renamed = from_published(state)
    with torch.device("meta"):
        model = build_model(load_preset("avcap-base").model)
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    left = {name for name in renamed if name not in own}
    assert not set(own) - set(renamed)
    assert all(tuple(renamed[name].shape) == shape for name, shape in own.items())
    assert left == {
        *(f"encoder.blocks_u.0.norm{i}.{m}.{k}" for i in (1, 2) for m in "av" for k in ("weight", "bias")),
        *(f"encoder.norms.{m}.{k}" for m in "av" for k in ("weight", "bias")),
    }


def test_an_output_that_is_not_tied_is_refused() -> None:
    state = {"textual.embedding.words.weight": torch.zeros(3, 2), "textual.output.weight": torch.ones(3, 2)}
    with pytest.raises(EvacapError, match=r"textual\.output\.weight"):
        from_published(state)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_a_masked_picture_is_no_picture(fusion: str) -> None:
    model = small(fusion).eval()
    fbank, pixels = random_clips(3, 0)
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[1] = False
    heard = model.encode_audio(fbank)
    memory = model.fuse(heard, model.encode_picture(pixels) if model.has_picture else None, mask)
    alone = model.fuse(heard[1:2], None)
    P = alone.tokens.shape[1]
    assert torch.allclose(memory.tokens[1:2, :P], alone.tokens, atol=1e-5)
    if memory.mask is not None:
        assert memory.mask[1].sum() == P
    if memory.gate is not None:
        assert memory.gate[1].abs().max() == 0
        assert (memory.gate[0] > 0).all()
    if memory.entropy is not None:
        assert memory.entropy[1].isnan().all()
        assert not memory.entropy[0].isnan().any()


@torch.no_grad()
def test_fewer_frames_are_as_if_the_others_were_not_there() -> None:
    for fusion in FUSIONS:
        model = small(fusion).eval()
        fbank, pixels = random_clips(2, 0)
        mask = torch.ones(2, 3, dtype=torch.bool)
        mask[0, 2] = False
        padded, alone = model.generate(fbank, pixels, mask), model.generate(fbank[:1], pixels[:1, :2])
        assert torch.equal(padded.tokens[0], alone.tokens[0])
        assert torch.allclose(padded.score[0], alone.score[0], atol=1e-5)


@torch.no_grad()
def test_the_entropy_gate_is_equations_2_and_3() -> None:
    model = small("entropy-gate").eval()
    fbank, pixels = random_clips(2, 0)
    heard, seen = model.encode_audio(fbank), model.encode_picture(pixels)
    memory, fusion = model.fuse(heard, seen), model.fusion
    q, k, v = fusion.project(heard, seen)
    p = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
    entropy = (-(p * p.log()).sum(-1) / torch.tensor(float(k.shape[2])).log()).mean(1)
    gate = torch.sigmoid(fusion.gate_weight * entropy + fusion.gate_bias)
    fused = (1 - gate[..., None]) * heard + gate[..., None] * fusion.merge(p @ v)
    assert torch.allclose(memory.entropy, entropy, atol=1e-5)
    assert torch.allclose(memory.gate, gate, atol=1e-5)
    assert torch.allclose(memory.tokens, fused, atol=1e-5)


@pytest.mark.parametrize("preset", [name for name in preset_names() if name.endswith("-tiny")])
def test_every_parameter_learns(preset: str) -> None:
    model = build_model(load_preset(preset).model)
    config = model.config.encoder
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 900, (2, 7), generator=g)
    picture = torch.randn(2, config.frames, 3, config.image_size, config.image_size, generator=g)
    loss = model(torch.randn(2, config.audio_frames, config.mel_bins, generator=g), picture, tokens,
                 torch.ones_like(tokens, dtype=torch.bool), partners=torch.tensor([1, 0]))["loss"]  # fmt: skip
    loss.backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert still == []


def test_every_base_preset_has_a_small_one_of_its_kind() -> None:
    base = [name for name in preset_names() if name.endswith("-base")]
    assert len(base) == 7
    for name in base:
        assert load_preset(name).model.fusion == load_preset(name.replace("-base", "-tiny")).model.fusion


def test_unknown_settings_are_named_all_at_once() -> None:
    wrong = {"fusion": "glue", "encoder": {"widht": 3}, "decoder": {"layers": "six"}, "colour": 1}
    with pytest.raises(UsageError) as caught:
        ModelConfig.from_dict(wrong)
    for word in ("glue", "widht", "six", "colour"):
        assert word in caught.value.message


def test_shuffling_moves_pictures_only_and_is_counted() -> None:
    model = small("entropy-gate").eval()
    data, own = batch(), torch.arange(6)
    swapped = own.clone()
    swapped[[0, 1]] = torch.tensor([1, 0])
    result = model(**data, partners=swapped, objective=Objective(consistency=0.0))
    assert result["shuffled"] == 2
    moved = dict(data, picture=data["picture"][swapped])
    by_hand = model(**moved, partners=own, objective=Objective(consistency=0.0))
    assert torch.allclose(result["caption"], by_hand["caption"], atol=1e-5)
    assert {"gate_matched", "gate_shuffled"} <= set(result)
    assert "gate_shuffled" not in by_hand


def test_a_weight_of_zero_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("computed although switched off")

    monkeypatch.setattr(captioner_module, "gate_stability", refuse)
    monkeypatch.setattr(captioner_module, "semantic_consistency", refuse)
    model = small("entropy-gate")
    result = model(**batch(), partners=torch.tensor([1, 0, 3, 2, 5, 4]), objective=Objective(0.1, 0.0, 0.0))
    assert torch.equal(result["loss"], result["caption"])


def test_regularisers_equal_their_formulas() -> None:
    gate = torch.arange(6.0).reshape(1, 6)  # two frequency rows of three patches: 0 1 2 | 3 4 5
    assert gate_stability(gate, (2, 3)) == 1.0
    assert gate_stability(torch.ones(2, 6), (2, 3)) == 0.0
    a, b = torch.randn(5, 7), torch.randn(5, 7)
    p, q = a.softmax(-1), b.softmax(-1)
    expected = ((p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)).mean() / 2
    assert torch.allclose(semantic_consistency(a, b), expected, atol=1e-6)
    assert semantic_consistency(a, a).abs() < 1e-7


def test_smoothed_loss_is_the_divergence_from_the_smoothed_target() -> None:
    logits, target = torch.randn(9, 13), torch.randint(13, (9,))
    smooth = torch.full((9, 13), 0.1 / 12).scatter(1, target[:, None], 0.9)
    expected = nn.functional.kl_div(logits.log_softmax(-1), smooth, reduction="batchmean")
    assert torch.allclose(smoothed_cross_entropy(logits, target, 0.1), expected, atol=1e-6)
    plain = nn.functional.cross_entropy(logits, target)
    assert torch.allclose(smoothed_cross_entropy(logits, target, 0.0), plain, atol=1e-6)


def test_partners() -> None:
    g = torch.Generator().manual_seed(0)
    assert shuffle_partners(8, 0.0, g).equal(torch.arange(8))
    assert sorted(shuffle_partners(8, 1.0, g).tolist()) == list(range(8))
    draws = torch.stack([shuffle_partners(20, 0.05, g) for _ in range(4000)])
    touched = (draws != torch.arange(20)).float().mean().item()
    assert touched == pytest.approx(
        0.05 * 19 / 20, rel=0.1
    )  # one in 20 permutations leaves a clip where it is
    whole = torch.stack([shuffle_partners(20, 0.3, g, per_batch=True) for _ in range(500)])
    assert set((whole != torch.arange(20)).any(1).tolist()) == {True, False}
    assert ((whole != torch.arange(20)).float().mean(1) > 0.5).float().mean() == pytest.approx(0.3, abs=0.1)
    again = [shuffle_partners(9, 0.5, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*again)
