"""The captioner whose fusion is `evidence`: shut, it is the audio-only one to the bit, and it shuts where it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evacap_cli.model import CaptionModel, Generation, ModelConfig, Objective, parameter_counts
from evacap_cli.model.losses import smoothed_cross_entropy
from evacap_cli.model.packing import pack

from .samples import DECODER, ENCODER, PICTURES, fresh_model, random_clips, random_model, random_words

ALONE = Objective(smoothing=0.1, gate_stability=0.0, consistency=0.0, match=0.0)
CLIPS, SEED = 6, 2
WAYS = ("plain", "autocast", "packed", "packed bf16")
one_or_two = pytest.mark.parametrize("decoders", [1, 2])


def model_of(decoders: int = 2, **settings: Any) -> CaptionModel:
    """`settings`: of its switch."""
    model: Any = random_model("evidence", SEED, decoders)
    assert len(model.decoders) == decoders
    model.fusion.config = replace(model.fusion.config, **settings)
    return model


def mixed_clips() -> tuple[Tensor, Tensor]:
    """So turned that `half_open` is open, shut, shut, open, shut, open: no order that leads back in two steps."""
    fbank, pixels = random_clips(CLIPS, SEED)
    return fbank.roll(1, 0), pixels.roll(1, 0)


def half_open(fbank: Tensor, pixels: Tensor) -> CaptionModel:
    """Has two decoders and is shut for half of these clips."""
    model: Any = model_of()
    with torch.no_grad():
        evidence = model.fuse(model.encode_audio(fbank), model.encode_picture(pixels)).evidence[:, 0]
        low, high = evidence.logit().sort().values[len(fbank) // 2 - 1 :][:2]
        model.fusion.evidence.bias -= (low + high) / 2
    return model


def with_fusion(model: CaptionModel, fusion: str) -> CaptionModel:
    """The captioner of another fusion that has the same weights, all of which `model` has."""
    other = CaptionModel(ModelConfig(fusion, ENCODER, DECODER)).eval()
    known = model.state_dict()
    if fusion != "audio-only" and model.picture_decoder is not None:  # which speaks of what is seen
        known |= {f"decoder.{name}": value for name, value in model.picture_decoder.state_dict().items()}
    other.load_state_dict({name: known[name] for name in other.state_dict()})
    return other


def spoken(model: CaptionModel, fbank: Tensor, pixels: Tensor | None, way: str = "plain") -> Generation:
    half = torch.bfloat16 if way in ("autocast", "packed bf16") else None
    if way.startswith("packed"):
        pack(model, half)
    with torch.autocast("cpu", half, enabled=half is not None):
        return model.generate(fbank, pixels, max_words=8)


def assert_equal_to_the_bit(ours: Generation, theirs: Generation, rows: Tensor) -> None:
    words = min(ours.tokens.shape[1], theirs.tokens.shape[1])
    assert torch.equal(ours.tokens[rows, :words], theirs.tokens[rows, :words])
    assert not ours.tokens[rows, words:].any()  # pad
    assert not theirs.tokens[rows, words:].any()
    assert torch.equal(ours.score[rows], theirs.score[rows])
    assert torch.equal(ours.beam_score[rows], theirs.beam_score[rows])


def black(pixels: Tensor) -> Tensor:
    return torch.full_like(pixels, -1.8)


def noise(pixels: Tensor) -> Tensor:
    return torch.randn(pixels.shape, generator=torch.Generator().manual_seed(5))


def frozen_noise(pixels: Tensor) -> Tensor:
    return noise(pixels[:, :1]).expand_as(pixels)


# ---- shut and open


@one_or_two
@pytest.mark.parametrize("way", WAYS)
def test_with_the_switch_off_it_equals_the_audio_only_captioner(way: str, decoders: int) -> None:
    """In a batch in which some clips are open."""
    model = model_of(decoders)
    alone = with_fusion(model, "audio-only")
    fbank, pixels = random_clips(CLIPS, SEED)
    half = torch.bfloat16 if way in ("autocast", "packed bf16") else None
    ours, theirs = spoken(model, fbank, pixels, way), spoken(alone, fbank, None, way)
    assert ours.gate is not None
    shut = ours.gate == 0
    assert 0 < shut.sum() < CLIPS
    assert ((ours.gate == 0) | (ours.gate == 1)).all()
    assert_equal_to_the_bit(ours, theirs, shut)
    assert (ours.score != theirs.score)[~shut].all()
    with torch.inference_mode(), torch.autocast("cpu", half, enabled=half is not None):
        heard = model.encode_audio(fbank)
        tokens = model.fuse(heard, model.encode_picture(pixels)).tokens
        assert torch.equal(heard, alone.encode_audio(fbank))
    assert torch.equal(tokens[shut], heard[shut])


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_decoder_captions_its_clips_in_order(way: str) -> None:
    """Of some clips what the captioners that have only the one or the other say of these clips, to the bit."""
    fbank, pixels = mixed_clips()
    model = half_open(fbank, pixels)
    others = {
        "audio-only": with_fusion(model, "audio-only"),
        "cross-attention": with_fusion(model, "cross-attention"),
    }
    half = torch.bfloat16 if way in ("autocast", "packed bf16") else None
    if way.startswith("packed"):
        for each in (model, *others.values()):
            pack(each, half)
    with torch.inference_mode(), torch.autocast("cpu", half, enabled=half is not None):
        heard, seen = model.encode_audio(fbank), model.encode_picture(pixels)
        memory = model.fuse(heard, seen)
        assert memory.uses_picture is not None
        open_ = memory.uses_picture
        assert open_.tolist() == [True, False, False, True, False, True]
        ours = model.decode(memory, max_words=8)
        slow = model.decode(memory, max_words=8, cached=False)
        for name, rows in (("audio-only", ~open_), ("cross-attention", open_)):
            own = others[name].fuse(heard[rows], seen[rows])
            assert torch.equal(own.tokens, memory.tokens[rows])
            theirs = others[name].decode(own, max_words=8)
            assert len(theirs.tokens.unique(dim=0)) > 1
            for part in ("tokens", "score", "beam_score"):
                assert torch.equal(getattr(ours, part)[rows], getattr(theirs, part))
            swapped = others["cross-attention" if name == "audio-only" else "audio-only"].decode(
                own, max_words=8
            )
            assert (swapped.score != theirs.score).all()
        if half is None:
            assert torch.equal(ours.tokens, slow.tokens)
    whole = spoken(model, fbank, pixels, way)
    assert torch.equal(whole.tokens, ours.tokens)
    assert whole.gate is not None
    assert (whole.gate > 0).tolist() == open_.tolist()


@pytest.mark.parametrize("way", ["plain", "autocast"])
def test_training_logits_come_from_each_clips_decoder(way: str) -> None:
    fbank, pixels = mixed_clips()
    model = half_open(fbank, pixels)
    tokens, _ = random_words(CLIPS, 9, SEED)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        heard, seen = model.encode_audio(fbank), model.encode_picture(pixels)
        memory = model.fuse(heard, seen)
        assert memory.uses_picture is not None
        assert memory.uses_picture.sum() == CLIPS // 2
        found = model.logits(memory, tokens)
        for name, rows in (("audio-only", ~memory.uses_picture), ("cross-attention", memory.uses_picture)):
            other = with_fusion(model, name)
            assert torch.equal(found[rows], other.logits(other.fuse(heard[rows], seen[rows]), tokens[rows]))


@pytest.mark.parametrize("frozen", [False, True])
def test_each_decoder_learns_from_every_clip_unless_it_is_frozen(frozen: bool) -> None:
    model = learning()
    model.decoder.requires_grad_(not frozen)
    data = batch_of()
    parts = model(**data, objective=ALONE)
    parts["loss"].backward()
    learns = [[bool(p.grad is not None and p.grad.any()) for p in d.parameters()] for d in model.decoders]
    assert {*learns[0]} == {not frozen}
    assert {*learns[1]} == {True}
    with torch.inference_mode():
        seen = with_fusion(model, "cross-attention")(**data, objective=ALONE)["caption"]
        heard = with_fusion(model, "audio-only")(**data, objective=ALONE)["caption"]
        assert abs(seen - heard) > 0.01
        model.eval()  # where the switch is, and each clip has one decoder
        logits = model.logits(model.fuse(*model_inputs(model, data)), data["tokens"][:, :-1])
        wanted = data["need_predict"][:, 1:]
        expected = smoothed_cross_entropy(logits[wanted], data["tokens"][:, 1:][wanted], ALONE.smoothing)
        assert model(**data, objective=ALONE)["caption"] == expected
    torch.testing.assert_close(parts["caption"].detach(), seen if frozen else (seen + heard) / 2)


@one_or_two
def test_without_matching_pictures_there_are_gradients(decoders: int) -> None:
    """Or the processes of a training wait for one another, and one whose hearing is frozen fails."""
    model = learning("evidence", decoders)
    own = with_fusion(model, "audio-only")(**batch_of(), objective=ALONE)["caption"].item()
    if decoders == 2:
        model.requires_grad_(False)
        model.decoders[1].requires_grad_()
    parts = model(**batch_of(), unseen=torch.ones(CLIPS, dtype=torch.bool), objective=ALONE)
    assert parts["caption"].item() == own
    parts["loss"].backward()
    last = [p.grad for p in model.decoders[-1].parameters()]
    assert all(grad is not None for grad in last)
    assert any(bool(grad.any()) for grad in last) == (decoders == 1)


def test_decoders_start_with_equal_weights_and_count() -> None:
    one, fresh = (fresh_model("evidence", SEED, decoders) for decoders in (1, 2))
    assert one.picture_decoder is None
    assert fresh.picture_decoder is not None
    own, seeing = fresh.decoder.state_dict(), fresh.picture_decoder.state_dict()
    assert own.keys() == seeing.keys()
    assert all(torch.equal(own[name], seeing[name]) for name in own)
    assert all(own[name].data_ptr() != seeing[name].data_ptr() for name in own)  # and part from there
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in one.state_dict().items())
    counts = [parameter_counts(model) for model in (one, fresh)]
    assert counts[0]["decoder"] == sum(p.numel() for p in one.decoder.parameters())
    assert counts[1] == counts[0] | {
        "decoder": 2 * counts[0]["decoder"],
        "total": counts[0]["total"] + counts[0]["decoder"],
    }
    assert counts[1]["total"] == sum(p.numel() for p in fresh.parameters())
    for fusion in (*PICTURES, "audio-only"):
        assert len(fresh_model(fusion).decoders) == 1 + (fusion == "evidence")


@one_or_two
@pytest.mark.parametrize("way", ["plain", "autocast"])
def test_with_the_switch_on_it_equals_cross_attention(way: str, decoders: int) -> None:
    model = model_of(decoders, threshold=0.0)
    fbank, pixels = random_clips(CLIPS, SEED)
    ours = spoken(model, fbank, pixels, way)
    theirs = spoken(with_fusion(model, "cross-attention"), fbank, pixels, way)
    assert ours.gate is not None
    assert ours.gate.all()
    assert torch.equal(ours.tokens, theirs.tokens)
    torch.testing.assert_close(ours.score, theirs.score)


@one_or_two
def test_with_the_switch_off_the_picture_has_no_effect(decoders: int) -> None:
    """Nor its neighbours, when a picture that shows nothing takes its place."""
    model = model_of(decoders)
    fbank, pixels = random_clips(CLIPS, SEED)
    before = spoken(model, fbank, pixels)
    assert before.gate is not None
    shut = before.gate == 0
    for other in (black(pixels), noise(pixels), frozen_noise(pixels)):
        given = torch.where(shut[:, None, None, None, None], other, pixels)
        after = spoken(model, fbank, given)
        assert torch.equal(after.gate, before.gate)
        assert_equal_to_the_bit(after, before, torch.ones(CLIPS, dtype=torch.bool))
        assert after.evidence is not None
        assert after.evidence.isnan().tolist() == shut.tolist()


# ---- pictures that show nothing


@pytest.mark.slow
@pytest.mark.parametrize("emptied", [black, noise, frozen_noise])
def test_uninformative_pictures_turn_the_switch_off(emptied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the evidence would say; and where that is so of all clips, the picture tower rests."""
    model, looks = model_of(threshold=0.0), []
    tower = model.encoder.picture_tower
    monkeypatch.setattr(model.encoder, "picture_tower", lambda x: (looks.append(len(x)), tower(x))[1])
    fbank, pixels = random_clips(CLIPS, SEED)
    alone = spoken(with_fusion(model, "audio-only"), fbank, None)
    nothing = spoken(model, fbank, emptied(pixels))
    assert looks == []
    assert_equal_to_the_bit(nothing, alone, torch.ones(CLIPS, dtype=torch.bool))
    mixed = pixels.clone()
    mixed[1::2] = emptied(pixels)[1::2]
    some = spoken(model, fbank, mixed)
    assert looks
    for out, rows in ((nothing, range(CLIPS)), (some, range(1, CLIPS, 2))):
        for row in rows:
            assert out.gate is not None
            assert out.evidence is not None
            assert out.cues is not None
            assert out.gate[row] == 0
            assert out.evidence[row].isnan()
            assert out.cues[row].isnan().all()
    assert_equal_to_the_bit(some, alone, torch.arange(CLIPS) % 2 == 1)
    assert some.gate is not None
    assert some.gate[::2].all()


@pytest.mark.parametrize("emptied", [black, noise])
def test_an_uninformative_frame_equals_a_missing_one(emptied: Any) -> None:
    model = model_of(threshold=0.0)
    fbank, pixels = random_clips(CLIPS, SEED)
    mask = torch.ones(CLIPS, 3, dtype=torch.bool)
    mask[0, 1], mask[2, :2] = False, False
    given = torch.where(mask[..., None, None, None], pixels, emptied(pixels))
    assert torch.equal(model.visible(given, None), mask)
    ours, theirs = model.generate(fbank, given), model.generate(fbank, pixels, mask)
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.score, theirs.score)
    assert torch.equal(ours.cues, theirs.cues)
    mask[4] = False  # and a mask that is given holds as well
    assert torch.equal(model.visible(given, mask), mask)
    other = random_model("cross-attention", SEED)
    assert other.visible(given, None) is None
    assert other.visible(given, mask) is mask


def test_an_uninformative_window_does_not_affect_others() -> None:
    model = model_of(windows=2, threshold=0.0)
    fbank, pixels = random_clips(CLIPS, SEED)
    pixels[1, 2] = black(pixels[1, 2])  # all that the second window has
    out = model.generate(fbank, pixels)
    with torch.inference_mode():
        heard, seen = model.encode_audio(fbank), model.encode_picture(pixels)
        evidence = model.fuse(heard, seen, model.visible(pixels, None)).evidence
    assert evidence is not None
    assert out.evidence is not None
    assert out.gate is not None
    assert evidence.isnan().nonzero().tolist() == [[1, 1]]
    assert out.evidence[1] == evidence[1, 0]
    torch.testing.assert_close(out.evidence[2:], evidence[2:].mean(dim=1))
    assert out.gate.tolist() == [1.0, 0.5, 1.0, 1.0, 1.0, 1.0]


# ---- the loss


def batch_of() -> dict[str, Tensor]:
    fbank, pixels = random_clips(CLIPS, SEED)
    tokens, need = random_words(CLIPS, 9, SEED)
    return {"audio": fbank, "picture": pixels, "tokens": tokens, "need_predict": need}


def model_inputs(model: CaptionModel, data: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return model.encode_audio(data["audio"]), model.encode_picture(data["picture"])


def learning(fusion: str = "evidence", decoders: int = 2) -> CaptionModel:
    """In training, but for dropout."""
    model = random_model(fusion, SEED, decoders).train()
    for decoder in model.decoders:
        decoder.eval()
    return model


@pytest.mark.parametrize("fusion", PICTURES)
def test_rejected_pictures_equal_missing_ones(fusion: str) -> None:
    model, data = learning(fusion), batch_of()
    unseen = torch.tensor([True, False, True, False, False, False])
    mask = torch.ones(CLIPS, 3, dtype=torch.bool)
    mask[3, 1:] = False
    ours = model(**data, frame_mask=mask, unseen=unseen, objective=ALONE)
    theirs = model(**data, frame_mask=mask & ~unseen[:, None], objective=ALONE)
    other = model(**data, frame_mask=mask, objective=ALONE)
    assert ours["caption"].item() == theirs["caption"].item()
    assert abs(ours["caption"].item() - other["caption"].item()) > 1e-4


@one_or_two
def test_rejected_pictures_get_no_gradient_from_captions(decoders: int) -> None:
    model, data = learning("evidence", decoders), batch_of()
    data["picture"].requires_grad_()
    unseen = torch.tensor([True, False, True, False, False, True])
    model(**data, unseen=unseen, objective=ALONE)["loss"].backward()
    assert data["picture"].grad is not None
    assert [bool(rows.any()) for rows in data["picture"].grad] == (~unseen).tolist()
    model.eval()
    alone = with_fusion(model, "audio-only")(**data, objective=ALONE)
    none = learning("evidence", decoders)(**data, unseen=torch.ones(CLIPS, dtype=torch.bool), objective=ALONE)
    assert none["loss"].item() == alone["loss"].item()


@pytest.mark.slow
def test_every_clip_is_compared_with_its_own_picture() -> None:
    """Whether captioned without it, or from another's."""
    model, data = learning(), batch_of()
    mask = torch.ones(CLIPS, 3, dtype=torch.bool)
    mask[0, 1:], mask[4] = False, False
    objective = Objective(0.1, 0.0, 0.0, match=0.7)
    heard, seen = model.encode_audio(data["audio"]), model.encode_picture(data["picture"])
    wanted = model.fusion.evidence.loss(heard, seen, mask.repeat_interleave(4, dim=1), None)
    partners, unseen = torch.tensor([0, 4, 2, 1, 4, 5]), torch.arange(CLIPS) % 2 == 0
    for changes in ({}, {"partners": partners}, {"unseen": unseen}, {"partners": partners, "unseen": unseen}):
        result = model(**data, frame_mask=mask, objective=objective, **changes)
        assert result["match"].item() == pytest.approx(wanted.item(), rel=1e-5)
        assert result["loss"].item() == pytest.approx((result["caption"] + 0.7 * wanted).item(), rel=1e-5)
        assert result["shuffled"] == (2 if "partners" in changes else 0)
    one = {name: values[:1] for name, values in data.items()}  # which makes no pairs
    assert model(**one, objective=objective)["match"].item() == 0
    assert "match" not in model(**data, objective=ALONE)
    assert "match" not in learning("cross-attention")(**data, objective=objective)
    assert "match" not in model(**(data | {"picture": None}), objective=objective)


def test_uninformative_frames_are_not_compared() -> None:
    model, data = learning(), batch_of()
    whole = model(**data)
    mask = torch.ones(CLIPS, 3, dtype=torch.bool)
    mask[2], mask[3, 0] = False, False
    given = torch.where(mask[..., None, None, None], data["picture"], noise(data["picture"]))
    ours, theirs = model(**(data | {"picture": given})), model(**data, frame_mask=mask)
    for name in ("caption", "match"):
        assert ours[name].item() == theirs[name].item()
        assert abs(ours[name].item() - whole[name].item()) > 1e-4


@one_or_two
@pytest.mark.parametrize("tag_classes", [0, 5])
def test_every_parameter_gets_a_gradient(tag_classes: int, decoders: int) -> None:
    model = random_model("evidence", SEED, decoders, tag_classes=tag_classes).train()
    unseen = torch.tensor([True] + [False] * (CLIPS - 1))
    model(**batch_of(), unseen=unseen, partners=torch.tensor([0, 4, 2, 1, 4, 5]))["loss"].backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert still == set()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    fitted = {"fusion.evidence.weights", "fusion.evidence.bias"}
    assert fitted.isdisjoint(dict(model.named_parameters()))
    assert fitted <= set(model.state_dict())
