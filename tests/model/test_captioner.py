"""The captioner as a whole: what a missing picture does, the loss and what shuffling touches, precisions, learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from evacap_cli.model import (
    FUSIONS,
    CaptionModel,
    Objective,
    build_model,
    load_preset,
    preset_names,
    word_losses,
)
from evacap_cli.model import captioner as captioner_module
from evacap_cli.model.decoder import TextDecoder
from evacap_cli.model.losses import gate_stability, semantic_consistency

from .samples import (
    PICTURES,
    fresh_model,
    greatest_error,
    random_clips,
    random_model,
    random_words,
    smooth_pictures,
)

Record = Callable[[str, object], None]
PLAIN = Objective(smoothing=0.1, gate_stability=0.0, consistency=0.0)
PARTNERS = torch.tensor([0, 4, 2, 1, 4, 5])  # clips 1 and 3 get another's picture


def batch_of(size: int = 6, seed: int = 0) -> dict[str, Any]:
    fbank, pixels = random_clips(size, seed)
    tokens, need = random_words(size, 9, seed)
    return {"audio": fbank, "picture": pixels, "tokens": tokens, "need_predict": need}


# ---- a picture that is missing


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_masked_picture_equals_no_picture(fusion: str) -> None:
    """The same memory, words, gate 0 and no entropy, whether frames are masked or never given."""
    model = random_model(fusion, 9)
    fbank, pixels = random_clips(4, 9)
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[1] = False
    with torch.inference_mode():
        heard = model.encode_audio(fbank)
        seen = model.encode_picture(pixels) if model.has_picture else None
        memory, alone = model.fuse(heard, seen, mask), model.fuse(heard[1:2], None)
    P = alone.tokens.shape[1]
    assert greatest_error(memory.tokens[1:2, :P], alone.tokens) < 1e-5
    if memory.mask is not None:
        assert memory.mask[1].tolist() == [True] * P + [False] * (memory.mask.shape[1] - P)
    mixed, none = model.generate(fbank, pixels, mask), model.generate(fbank[1:2])
    everywhere = model.generate(fbank, pixels, torch.zeros_like(mask))
    assert torch.equal(mixed.tokens[1], none.tokens[0])
    assert torch.equal(everywhere.tokens, model.generate(fbank).tokens)
    assert model.has_gate == (fusion in ("entropy-gate", "gate", "evidence", "adaptive"))
    for out, row in ((mixed, 1), (none, 0), (everywhere, 2)):
        assert (out.gate is not None) == model.has_gate
        assert (out.entropy is not None) == (fusion == "entropy-gate")
        assert (out.evidence is not None) == (fusion == "evidence")
        assert (out.cues is not None) == (fusion in ("evidence", "optimal-transport"))
        if out.gate is not None:
            assert out.gate[row] == 0
        if out.entropy is not None:
            assert out.entropy[row].isnan()
        if out.evidence is not None and out.cues is not None:
            assert out.evidence[row].isnan()
            assert out.cues[row].isnan().all()
    for numbers in (mixed.evidence if fusion == "evidence" else mixed.gate, mixed.entropy):
        if numbers is not None:
            assert ((numbers[::2] > 0) & (numbers[::2] < 1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_masked_frames_equal_fewer_frames(fusion: str) -> None:
    """Whatever the padding holds."""
    for seed in (0, 9):
        model = random_model(fusion, seed)
        fbank, pixels = random_clips(3, seed)
        mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
        pixels[~mask] = 7.0
        padded = model.generate(fbank, pixels, mask)
        for i, frames in enumerate((2, 1, 3)):
            alone = model.generate(fbank[i : i + 1], pixels[i : i + 1, :frames])
            assert torch.equal(padded.tokens[i], alone.tokens[0])
            for ours, theirs in ((padded.score, alone.score), (padded.gate, alone.gate)):
                if ours is not None and theirs is not None:
                    assert ours[i].item() == pytest.approx(theirs[0].item(), abs=1e-4)


def test_a_tubelet_needs_both_of_its_frames() -> None:
    model = fresh_model("concat", picture_tokens="tubelet", frames=4)
    mask = torch.tensor([[True, True, True, False], [True] * 4, [False] * 4])
    assert model.encoder.token_mask(torch.ones(1, 4, dtype=torch.bool), 8) is None
    tokens = model.encoder.token_mask(mask, 8)
    assert tokens is not None
    assert tokens.tolist() == [[True] * 4 + [False] * 4, [True] * 8, [False] * 8]
    model.generate(*random_clips(3, frames=4), mask)


# ---- the loss


@pytest.mark.parametrize("fusion", PICTURES)
def test_shuffling_moves_pictures_only(fusion: str) -> None:
    """The same loss as with the pictures (and their masks) moved by hand: sounds and words stay where they are."""
    model, data = random_model(fusion, 9), batch_of()
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[1, 2:], mask[4, 1:] = False, False
    result = model(**data, frame_mask=mask, partners=PARTNERS, objective=PLAIN)
    moved = data | {"picture": data["picture"][PARTNERS]}
    by_hand = model(**moved, frame_mask=mask[PARTNERS], objective=PLAIN)
    untouched = model(**data, frame_mask=mask, objective=PLAIN)
    same, other = (abs(result["caption"].item() - x["caption"].item()) for x in (by_hand, untouched))
    assert same < 1e-5
    assert other > 1e-4
    assert result["shuffled"] == 2
    assert untouched["shuffled"] == 0
    if model.has_gate and fusion != "adaptive":  # whose confidences are of words
        assert {"gate_matched", "gate_shuffled"} <= set(result)
        assert "gate_shuffled" not in untouched


def test_audio_only_input_is_not_shuffled() -> None:
    model, data = fresh_model("audio-only"), batch_of()
    result = model(**data, partners=PARTNERS)
    assert result["loss"].item() == model(**data)["loss"].item()
    assert set(result) == {"loss", "caption"}
    without = fresh_model("gate")(**(data | {"picture": None}), partners=PARTNERS)
    assert "consistency" not in without


def test_regularisers_are_weighted_and_added() -> None:
    """Gate stability over the gate as used, consistency over the shuffled clips only, their own pictures against the
    given ones."""
    model, data = random_model("entropy-gate", 9), batch_of()
    result = model(**data, partners=PARTNERS, objective=Objective(0.1, 3.0, 2.0))
    heard, seen = model.encode_audio(data["audio"]), model.encode_picture(data["picture"])
    given = model.fuse(heard, seen[PARTNERS])
    assert given.gate is not None
    stability = gate_stability(given.gate, (2, 4))
    rows = data["need_predict"][[1, 3], 1:]
    words = data["tokens"][[1, 3], :-1]
    own = model.logits(model.fuse(heard[[1, 3]], seen[[1, 3]]), words)
    other = model.logits(model.fuse(heard[[1, 3]], seen[[4, 1]]), words)
    consistency = semantic_consistency(own[rows], other[rows])
    assert consistency > 0.01
    assert result["gate_stability"].item() == pytest.approx(stability.item(), rel=1e-4)
    assert result["consistency"].item() == pytest.approx(consistency.item(), rel=1e-3)
    total = result["caption"] + 3 * stability + 2 * consistency
    assert result["loss"].item() == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "partners", "sentences", "computed"),
    [
        (Objective(0.1, 0.0, 0.0), PARTNERS, 1, set()),
        (Objective(0.1, 0.5, 0.0), PARTNERS, 1, {"gate_stability"}),
        (Objective(0.1, 0.0, 0.5), PARTNERS, 2, {"semantic_consistency"}),
        (Objective(0.1, 0.5, 0.5), PARTNERS, 2, {"gate_stability", "semantic_consistency"}),
        (Objective(0.1, 0.5, 0.5), torch.arange(6), 1, {"gate_stability"}),  # nobody was shuffled
        (Objective(0.1, 0.5, 0.5), None, 1, {"gate_stability"}),
    ],
)
def test_a_regulariser_with_weight_zero_is_not_computed(
    objective: Objective,
    partners: Tensor | None,
    sentences: int,
    computed: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def counted(place: Any, name: str) -> None:
        original = getattr(place, name)

        def wrapper(*args: Any) -> Any:
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(place, name, wrapper)

    counted(captioner_module, "gate_stability")
    counted(word_losses, "semantic_consistency")
    counted(TextDecoder, "hidden")
    counted(TextDecoder, "encode_prefix")
    result = fresh_model("entropy-gate")(**batch_of(), partners=partners, objective=objective)
    assert calls.count("hidden") == calls.count("encode_prefix") == sentences
    assert set(calls) - {"hidden", "encode_prefix"} == computed
    assert ("consistency" in result) == ("semantic_consistency" in computed)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_training_on_tower_tokens_equals_training_on_inputs(fusion: str) -> None:
    model, data = fresh_model(fusion), batch_of()
    cached = data | {
        "audio": model.encoder.audio_tower(data["audio"]),
        "picture": model.encoder.picture_tower(data["picture"]) if model.has_picture else None,
    }
    ours, whole = model(**cached, towers=True, partners=PARTNERS), model(**data, partners=PARTNERS)
    assert ours["loss"].item() == pytest.approx(whole["loss"].item(), abs=1e-5)


def test_padding_has_no_loss() -> None:
    model, data = fresh_model("gate"), batch_of()
    longer = data | {
        "tokens": torch.nn.functional.pad(data["tokens"], (0, 5)),
        "need_predict": torch.nn.functional.pad(data["need_predict"], (0, 5)),
    }
    assert model(**longer)["loss"].item() == pytest.approx(model(**data)["loss"].item(), abs=1e-5)


# ---- learning


@pytest.mark.slow
@pytest.mark.parametrize("preset", [name for name in preset_names() if name.endswith("-tiny")])
def test_every_parameter_learns(preset: str) -> None:
    """Forward and backward of a training step on real sizes, half of the batch shuffled."""
    chosen = load_preset(preset).model
    model, size = build_model(chosen), chosen.encoder
    g = torch.Generator().manual_seed(0)
    fbank = torch.randn(2, size.audio_frames, size.mel_bins, generator=g)
    pixels = smooth_pictures(2, size.frames, size.image_size, g)
    tokens = torch.randint(3, chosen.decoder.vocab_size, (2, 7), generator=g)
    need = torch.ones_like(tokens, dtype=torch.bool)
    result = model(fbank, pixels, tokens, need, partners=torch.tensor([1, 1]))
    result["loss"].backward()
    missing = {name for name, p in model.named_parameters() if p.grad is None}
    assert missing == set()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    still = {name for name, p in model.named_parameters() if p.grad is not None and not p.grad.any()}
    assert still == set()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_only_the_tagging_head_is_left_out_of_captioning(fusion: str) -> None:
    """Unless its tags are compared."""
    model = fresh_model(fusion, tag_classes=5).train()
    model(**batch_of(), partners=PARTNERS)["loss"].backward()
    missing = {name for name, p in model.named_parameters() if p.grad is None}
    head = {f"encoder.tag_head.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    assert missing == (set() if fusion == "evidence" else head)


@pytest.mark.slow
def test_it_overfits_four_clips(record_property: Record) -> None:
    torch.manual_seed(0)
    model, data = fresh_model("entropy-gate", seed=1).train(), batch_of(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        loss = model(**data, objective=Objective(0.0, 0.01, 0.1))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    record_property("first and last loss", (losses[0], losses[-1]))
    assert losses[-1] < 0.2
    generated = model.eval().generate(data["audio"], data["picture"], max_words=7)
    assert torch.equal(generated.tokens, data["tokens"])


# ---- precisions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "dtype", "stem"),
    [
        *((fusion, dtype, "patch") for fusion in FUSIONS for dtype in (torch.bfloat16, torch.float16)),
        ("concat", torch.float16, "conv"),
        ("entropy-gate", torch.bfloat16, "conv"),
    ],
)
def test_half_precision_captions(fusion: str, dtype: torch.dtype, stem: str) -> None:
    """With autocast and with the weights themselves in half precision, frames missing or not."""
    fbank, pixels = random_clips(3)
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[1] = False

    def captions(model: CaptionModel, frames: Tensor | None) -> None:
        out = model.generate(fbank, pixels, frames, max_words=6)
        assert out.score.isfinite().all()
        assert out.gate is None or out.gate.isfinite().all()
        assert out.tokens.shape == (3, 8)

    model = fresh_model(fusion, stem=stem, width=48 if stem == "conv" else 32)
    with torch.autocast("cpu", dtype):
        captions(model, None)
        captions(model, mask)
    captions(model.to(dtype), None)
    captions(model, mask)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_training_in_bfloat16_is_finite(fusion: str) -> None:
    model = fresh_model(fusion).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch_of(), partners=PARTNERS)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("fusion", PICTURES)
@torch.inference_mode()
def test_equal_frames_are_encoded_once(fusion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(fusion, 2)
    _, pixels = random_clips(3, frames=5)
    pixels[0] = pixels[0, :1]
    pixels[2, 3:] = pixels[2, 2:3]
    same = torch.tensor([[0] * 5, list(range(5)), [0, 1, 2, 2, 2]])
    encoded = []
    tower = model.encoder.picture_tower

    def counted(frames: torch.Tensor) -> torch.Tensor:
        encoded.append(len(frames) * frames.shape[1])
        return tower(frames)

    monkeypatch.setattr(model.encoder, "picture_tower", counted)
    found = model.encode_picture(pixels, same)
    assert sum(encoded) == 1 + 5 + 3
    torch.testing.assert_close(found, model.finish_picture(tower(pixels)), rtol=1e-5, atol=1e-5)
    assert sum(encoded) == 9
    torch.testing.assert_close(model.encode_picture(pixels), found, rtol=1e-5, atol=1e-5)
    assert sum(encoded) == 9 + 15
