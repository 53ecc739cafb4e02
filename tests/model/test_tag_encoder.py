"""Towers of pre-trained networks: tags as they are defined, and captioners that rest on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evacap_cli.model import (
    FUSIONS,
    CaptionModel,
    Generation,
    ModelConfig,
    Objective,
    Tokenizer,
    build_model,
    load_checkpoint,
    load_preset,
    parameter_counts,
    preset_names,
    save_checkpoint,
)
from evacap_cli.model.checkpoint import export_checkpoint
from evacap_cli.model.config import TagEncoderConfig
from evacap_cli.model.evidence_switch import EvidenceSwitch
from evacap_cli.model.packing import pack
from evacap_cli.model.tag_encoder import (
    MIN_PROBABILITY,
    NETWORKS,
    TagEncoder,
    frame_tags,
    heard_tags,
    pooled_frames,
)
from evacap_cli.tasks.training import TrainSettings
from evacap_cli.tasks.training.memory import estimate_memory

from .samples import DECODER, PICTURES, greatest_error, random_words
from .tagged import ENCODER, random_heard, random_inputs, random_seen, tag_model

CLIPS = 5
TAGS_PRESETS = [name for name in preset_names() if name.endswith("-tags")]
HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch_of(size: int = 6, seed: int = 0) -> dict[str, Any]:
    """Tags and words, as training on frozen towers takes them."""
    tokens, need = random_words(size, 9, seed)
    return {"audio": random_heard(size, seed), "picture": random_seen(size, seed), "tokens": tokens,
            "need_predict": need, "towers": True}  # fmt: skip


def sigmoid(x: float) -> float:
    return float(1 / (1 + torch.tensor(-x, dtype=torch.float64).exp()))


# ---- tags of sounds and frames


@pytest.mark.parametrize(("patches", "windows"), [(4, 1), (7, 3), (20, 5), (5, 5)])
def test_tags_of_a_sound_are_as_defined(patches: int, windows: int) -> None:
    """Root mean square over the clip, means over windows whose lengths differ by one patch at most."""
    classes, heard = 30, 6
    logits = noise(3, patches, classes) * 3
    found = heard_tags(logits, heard, windows)
    assert found.shape == (3, heard, 2 + windows)
    lengths = [patches // windows + (i < patches % windows) for i in range(windows)]
    for b in range(3):
        p = [[sigmoid(float(x)) for x in row] for row in logits[b]]
        clip = [(sum(row[c] ** 2 for row in p) / patches) ** 0.5 for c in range(classes)]
        best = sorted(range(classes), key=lambda c, clip=clip: -clip[c])[:heard]  # type: ignore[misc]
        assert found[b, :, 0].tolist() == best
        for t, c in enumerate(best):
            assert sigmoid(found[b, t, 1].item()) == pytest.approx(clip[c], abs=1e-6)
            start = 0
            for w, length in enumerate(lengths):
                part = [row[c] for row in p[start : start + length]]
                assert sigmoid(found[b, t, 2 + w].item()) == pytest.approx(
                    sum(part) / length, abs=1e-6 + MIN_PROBABILITY
                )
                start += length


def test_a_short_sound_counts_for_more_than_its_share_of_the_time() -> None:
    logits = torch.full((1, 10, 3), -20.0)
    logits[0, 4, 1] = 20.0  # surely, for a tenth of the time
    logits[0, :, 2] = torch.tensor(0.2).logit()  # unsurely, all the time
    found = heard_tags(logits, 2, 2)
    assert found[0, :, 0].tolist() == [1, 2]
    assert found[0, :, 1].sigmoid().tolist() == pytest.approx([0.1**0.5, 0.2], abs=1e-4)
    assert found[0, 0, 2:].sigmoid().tolist() == pytest.approx([0.2, MIN_PROBABILITY], abs=1e-4)


@pytest.mark.parametrize("value", [-200.0, 200.0])
def test_certainty_has_finite_logits(value: float) -> None:
    found = heard_tags(torch.full((1, 4, 8), value), 3, 2)
    assert found.isfinite().all()
    torch.testing.assert_close(
        found[..., 1:].double().sigmoid(),
        torch.full((1, 3, 3), MIN_PROBABILITY if value < 0 else 1 - MIN_PROBABILITY).double(),
    )
    assert frame_tags(torch.full((1, 2, 8), value), 3).isfinite().all()


def test_tags_of_frames_are_as_defined() -> None:
    logits = noise(2, 3, 20) * 4
    found = frame_tags(logits, 4)
    assert found.shape == (2, 12, 3)
    for b in range(2):
        for n in range(3):
            row = logits[b, n].double()
            chances = row.exp() / row.exp().sum()
            best = sorted(range(20), key=lambda c, row=row: -float(row[c]))[:4]  # type: ignore[misc]
            for t, c in enumerate(best):
                expected = [c, float(row[c]), float(chances[c])]
                assert found[b, 4 * n + t].tolist() == pytest.approx(expected, rel=1e-5)


def plainly_pooled(tags: Tensor, seen: int, visible: list[bool]) -> list[list[float]]:
    """One clip's tags (N * seen, 3) as a table: class, best logit, mean probability over its visible frames."""
    frames = [frame for frame, there in zip(tags.split(seen), visible, strict=True) if there]
    table: dict[int, list[float]] = {}
    for frame in frames:
        for index, value, chance in frame.double().tolist():
            entry = table.setdefault(int(index), [-torch.inf, 0.0])
            entry[0], entry[1] = max(entry[0], value), entry[1] + chance / len(frames)
    ranked = sorted(table.items(), key=lambda item: -item[1][1])[:seen]
    return [[index, max(value, -20.0), chance] for index, (value, chance) in ranked]


@pytest.mark.parametrize("frames", [1, 3, 6])
def test_frames_are_pooled_over_those_that_exist(frames: int) -> None:
    for seed in range(4):
        tags = random_seen(4, seed, frames)
        visible = torch.rand(4, frames, generator=torch.Generator().manual_seed(seed)) < 0.6
        visible[:, seed % frames] = True
        shared = tags[..., 0].view(4, -1)
        if frames == 6:
            assert any(len(set(row.tolist())) < frames * ENCODER.seen for row in shared)
        for mask in (None, visible):
            found = pooled_frames(tags, ENCODER.seen, ENCODER.picture_classes, mask)
            assert found.shape == (4, ENCODER.seen, 3)
            for b in range(4):
                there = [True] * frames if mask is None else mask[b].tolist()
                expected = plainly_pooled(tags[b], ENCODER.seen, there)
                torch.testing.assert_close(found[b], torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_a_class_of_several_frames_is_one_tag() -> None:
    """Four times a tenth comes before once three tenths; its logit is that of the best frame."""
    frames = torch.tensor([[[7, 1.0 + n, 0.1], [10 + n, 0.0, 0.05]] for n in range(4)])
    frames[3, 1] = torch.tensor([99, 5.0, 0.3])
    found = pooled_frames(frames.view(1, 8, 3), 2, 1000)
    torch.testing.assert_close(found, torch.tensor([[[7, 4.0, 0.1], [99, 5.0, 0.075]]]))


def test_hidden_frames_are_ignored() -> None:
    tags, mask = random_seen(3), torch.tensor([[True, False, True], [False, False, True], [True] * 3])
    other = tags.clone()
    hidden = ~mask.repeat_interleave(ENCODER.seen, dim=1)
    other[hidden] = random_seen(3, 1)[hidden]
    other[..., 1:][hidden] += 50
    found = [pooled_frames(x, ENCODER.seen, ENCODER.picture_classes, mask) for x in (tags, other)]
    assert torch.equal(*found)


def test_a_clip_without_visible_frames_has_finite_values() -> None:
    """They are masked later, and must not be NaN, which a product with 0 does not remove."""
    tags, mask = random_seen(2), torch.tensor([[False] * 3, [True] * 3])
    found = pooled_frames(tags, ENCODER.seen, ENCODER.picture_classes, mask)
    assert found.isfinite().all()
    assert torch.equal(found, pooled_frames(tags, ENCODER.seen, ENCODER.picture_classes))


# ---- the encoder


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_shapes_of_every_fusion(fusion: str) -> None:
    model = tag_model(fusion)
    fbank, pixels = random_inputs(2)
    with torch.inference_mode():
        heard = model.encode_audio(fbank)
        assert heard.shape == (2, ENCODER.heard, 2 + ENCODER.windows)
        seen = model.encode_picture(pixels) if model.has_picture else None
        if seen is not None:
            assert seen.shape == (2, ENCODER.tokens_for(3), 3)
            assert model.frame_count(seen) == 3
        memory = model.fuse(heard, seen)
    tokens = ENCODER.heard + (ENCODER.seen if fusion in ("concat", "adaptive", "optimal-transport") else 0)
    assert memory.tokens.shape == (2, tokens, ENCODER.width)
    assert memory.heard is not None
    assert torch.equal(memory.heard, heard)
    assert (memory.seen is None) == (fusion == "audio-only")
    assert hasattr(model.encoder, "network_v") == (fusion != "audio-only")
    if memory.seen is not None and seen is not None:
        assert torch.equal(memory.seen, pooled_frames(seen, ENCODER.seen, ENCODER.picture_classes))


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_inputs_and_their_tags_give_the_same_captions(fusion: str) -> None:
    model = tag_model(fusion)
    fbank, pixels = random_inputs(3)
    mask = torch.tensor([[True] * 3, [True, True, False], [False] * 3])
    given = pixels if model.has_picture else None
    whole = model.generate(fbank, given, mask if model.has_picture else None)
    with torch.inference_mode():
        heard = model.encoder.audio_tower(fbank)
        seen = model.encoder.picture_tower(pixels) if model.has_picture else None
    visible = model.visible(pixels, mask)
    parts = model.generate(heard, seen, visible if model.has_picture else None, towers=True)
    assert len(heard[..., 0].unique(dim=0)) > 1  # the sounds differ, and the frames do
    assert seen is None or len(seen[..., 0].view(9, -1).unique(dim=0)) > 4
    assert torch.equal(whole.tokens, parts.tokens)
    torch.testing.assert_close(whole.score, parts.score, rtol=0, atol=1e-4)
    assert whole.heard is not None
    assert parts.heard is not None
    torch.testing.assert_close(whole.heard, parts.heard, rtol=0, atol=1e-3)


@pytest.mark.parametrize("fusion", ["evidence", "concat", "audio-only"])
def test_networks_are_neither_trained_nor_in_training_mode(fusion: str) -> None:
    """Their batch statistics stay what they are, too."""
    model = tag_model(fusion).train()
    names = [name for name in NETWORKS if hasattr(model.encoder, name)]
    assert len(names) == 1 + (fusion != "audio-only")
    for name in names:
        network = getattr(model.encoder, name)
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    fbank, pixels = random_inputs(4)
    tokens, need = random_words(4, 7)
    model(fbank, pixels, tokens, need)["loss"].backward()
    after = model.encoder.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for name, parameter in model.named_parameters()
               if name.split(".")[1] not in NETWORKS)  # fmt: skip
    assert all(module.training for module in (model, model.encoder, model.encoder.blocks_a, model.decoder))


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_other_parameter_learns(fusion: str) -> None:
    model, data = tag_model(fusion).train(), batch_of()
    data["picture"] = data["picture"] if model.has_picture else None
    model(**data, partners=torch.tensor([0, 4, 2, 1, 4, 5]))["loss"].backward()
    still = {
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    }
    assert still == set()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_training_step_on_tags_equals_one_on_inputs(fusion: str) -> None:
    model = tag_model(fusion)
    fbank, pixels = random_inputs(4)
    tokens, need = random_words(4, 8)
    partners, objective = torch.tensor([0, 3, 2, 1]), Objective(0.1, 0.0, 0.5)
    given = {"tokens": tokens, "need_predict": need, "partners": partners, "objective": objective}
    seen = model.encoder.picture_tower(pixels) if model.has_picture else None
    parts = model(model.encoder.audio_tower(fbank), seen, **given, towers=True)
    whole = model(fbank, pixels if model.has_picture else None, **given)
    assert whole["loss"].item() == pytest.approx(parts["loss"].item(), rel=1e-4)
    assert ("consistency" in whole) == model.has_picture
    assert "gate_stability" not in whole  # a tag's gate has no neighbour in time


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_batch_neighbours_do_not_matter(fusion: str) -> None:
    model = tag_model(fusion)
    heard, seen = random_heard(CLIPS), random_seen(CLIPS) if model.has_picture else None
    mask = torch.rand(CLIPS, 3, generator=torch.Generator().manual_seed(1)) < 0.7
    mask = mask if model.has_picture else None  # type: ignore[assignment]
    together = model.generate(heard, seen, mask, max_words=8, towers=True)
    for i in range(CLIPS):
        own = slice(i, i + 1)
        alone = model.generate(heard[own], None if seen is None else seen[own], None if mask is None else mask[own],
                               max_words=8, towers=True)  # fmt: skip
        assert torch.equal(together.tokens[i], alone.tokens[0])
        assert together.score[i].item() == pytest.approx(alone.score[0].item(), abs=1e-4)
        for ours, theirs in ((together.gate, alone.gate), (together.gates, alone.gates)):
            if ours is not None and theirs is not None:
                torch.testing.assert_close(ours[own], theirs, rtol=0, atol=1e-5)


@pytest.mark.slow
@torch.inference_mode()
def test_networks_do_not_mix_clips_or_frames() -> None:
    model = tag_model("gate")
    fbank, pixels = random_inputs(3)
    heard, seen = model.encode_audio(fbank), model.encode_picture(pixels)
    for i in range(3):
        torch.testing.assert_close(model.encode_audio(fbank[i : i + 1])[0], heard[i], rtol=0, atol=1e-3)
        for n in range(3):
            own = model.encode_picture(pixels[i : i + 1, n : n + 1])[0]
            places = slice(n * ENCODER.seen, (n + 1) * ENCODER.seen)
            torch.testing.assert_close(own, seen[i, places], rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_the_order_of_frames_does_not_matter() -> None:
    model = tag_model("entropy-gate")
    heard, seen = random_heard(3), random_seen(3)
    turned = seen.unflatten(1, (3, -1)).flip(1).flatten(1, 2)
    ours, theirs = model.fuse(heard, seen), model.fuse(heard, turned)
    torch.testing.assert_close(ours.tokens, theirs.tokens, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_checkpointed_blocks_give_the_same_gradients() -> None:
    grads = []
    for wanted in (False, True):
        model, data = tag_model("evidence").train(), batch_of()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.set_checkpointing(wanted)
        assert model.encoder.checkpointing == wanted
        torch.manual_seed(0)
        model(**data)["loss"].backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


# ---- precision


@HALVES
@torch.inference_mode()
def test_autocast_does_not_touch_the_tags(dtype: torch.dtype) -> None:
    """To the bit: half precision would change which classes come first, and has no number for the class 257."""
    model = tag_model("evidence")
    fbank, pixels = random_inputs(2)
    heard, seen = model.encode_audio(fbank), model.encode_picture(pixels)
    assert max(heard[..., 0].max(), seen[..., 0].max()) > 256
    with torch.autocast("cpu", dtype):
        for ours, plain in ((model.encode_audio(fbank), heard), (model.encode_picture(pixels), seen)):
            assert ours.dtype == torch.float32
            assert torch.equal(ours, plain)
        memory = model.fuse(heard, seen)
    assert memory.seen is not None
    assert memory.seen.dtype == torch.float32
    assert torch.equal(memory.seen, pooled_frames(seen, ENCODER.seen, ENCODER.picture_classes))
    torch.testing.assert_close(memory.cues, model.fuse(heard, seen).cues, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["evidence", "entropy-gate", "concat"])
@HALVES
def test_weights_loaded_as_half(fusion: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Classes stay whole numbers; captions and numbers come of them."""
    model = save(tmp_path, fusion)
    loaded = load_checkpoint(tmp_path / "mine", dtype=dtype).model
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    fbank, pixels = random_inputs(2)
    out = loaded.generate(fbank, pixels, max_words=6)
    assert out.heard is not None
    assert out.seen is not None
    for tags, classes in ((out.heard, 521), (out.seen, 1000)):
        assert tags.dtype == torch.float32
        assert torch.equal(tags[..., 0], tags[..., 0].round())
        assert tags[..., 0].min() >= 0
        assert tags[..., 0].max() < classes
    assert out.score.isfinite().all()
    plain = model.generate(fbank, pixels, max_words=6)
    assert plain.heard is not None
    best = {int(c) for c in plain.heard[0, :, 0]}
    assert len(best & {int(c) for c in out.heard[0, :, 0]}) >= len(best) - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "precision"),
    [*((fusion, None) for fusion in FUSIONS), ("concat", torch.bfloat16), ("evidence", torch.bfloat16)],
)
def test_packed_models_give_the_same_captions(fusion: str, precision: torch.dtype | None) -> None:
    model = tag_model(fusion)
    heard, seen = random_heard(CLIPS), random_seen(CLIPS) if model.has_picture else None
    plain = model.generate(heard, seen, max_words=6, min_words=6, towers=True)
    state = {name: value.clone() for name, value in model.encoder.network_a.state_dict().items()}  # type: ignore[union-attr]
    pack(model, precision)
    kept = model.encoder.network_a.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(kept[name], value) for name, value in state.items())
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
        found = model.generate(heard, seen, max_words=6, min_words=6, towers=True)
    torch.testing.assert_close(found.score, plain.score, rtol=0, atol=1e-5 if precision is None else 0.1)
    if precision is None:
        assert torch.equal(found.tokens, plain.tokens)


# ---- a picture that is missing


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_masked_picture_equals_no_picture(fusion: str) -> None:
    model = tag_model(fusion)
    heard, seen = random_heard(4), random_seen(4) if model.has_picture else None
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[1] = False
    mixed = model.generate(heard, seen, mask if model.has_picture else None, towers=True)
    none = model.generate(heard[1:2], towers=True)
    assert torch.equal(mixed.tokens[1], none.tokens[0])
    assert mixed.score[1].item() == pytest.approx(none.score[0].item(), abs=1e-4)
    if model.has_picture:
        everywhere = model.generate(heard, seen, torch.zeros_like(mask), towers=True)
        assert torch.equal(everywhere.tokens, model.generate(heard, towers=True).tokens)
    for out, row in ((mixed, 1), (none, 0)):
        if out.gate is not None and out.gates is not None:
            assert out.gate[row] == 0
            assert (out.gates[row] == 0).all()
        if out.entropies is not None:
            assert out.entropies[row].isnan().all()
        if out.evidence is not None:
            assert out.evidence[row].isnan()


def with_fusion(model: CaptionModel, fusion: str) -> CaptionModel:
    """The captioner of another fusion that has the same weights."""
    other = CaptionModel(replace(model.config, fusion=fusion)).eval()
    known = model.state_dict()
    if fusion != "audio-only" and model.picture_decoder is not None:
        known |= {f"decoder.{name}": value for name, value in model.picture_decoder.state_dict().items()}
    other.load_state_dict({name: known[name] for name in other.state_dict()})
    return other


def assert_same_words(ours: Generation, theirs: Generation, rows: Tensor) -> None:
    assert torch.equal(ours.tokens[rows], theirs.tokens[rows])
    assert torch.equal(ours.score[rows], theirs.score[rows])
    assert torch.equal(ours.beam_score[rows], theirs.beam_score[rows])


@pytest.mark.slow
@pytest.mark.parametrize("decoders", [1, 2])
@pytest.mark.parametrize("way", ["plain", "autocast", "packed"])
def test_with_the_switch_off_it_equals_the_audio_only_captioner(decoders: int, way: str) -> None:
    """Whether evidence or a mask shuts it, in a batch in which other clips are open; with the first decoder."""
    model: Any = tag_model("evidence", 3, decoders)
    alone = with_fusion(model, "audio-only")
    heard, seen = random_heard(CLIPS, 3), random_seen(CLIPS, 3)
    evidence = model.generate(heard, seen, towers=True).evidence
    assert evidence is not None
    model.fusion.evidence.bias -= evidence.logit().median()  # open for three of five
    mask = torch.ones(CLIPS, 3, dtype=torch.bool)
    mask[evidence.argmax()] = False
    if way == "packed":
        pack(model, None)
        pack(alone, None)
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        ours = model.generate(heard, seen, mask, max_words=8, towers=True)
        theirs = alone.generate(heard, max_words=8, towers=True)
    assert ours.gate is not None
    shut = ours.gate == 0
    assert shut[evidence.argmax()]
    assert shut.sum() == 3
    assert_same_words(ours, theirs, shut)
    assert (ours.score != theirs.score)[~shut].all()


# ---- numbers over time


@pytest.mark.parametrize("fusion", ["entropy-gate", "gate", "evidence"])
def test_curves_are_means_weighted_by_the_tags_of_each_window(fusion: str) -> None:
    model = tag_model(fusion)
    heard, seen = random_heard(CLIPS), random_seen(CLIPS)
    with torch.inference_mode():
        memory = model.fuse(heard, seen)
    out = model.decode(memory, max_words=4)
    rows, columns = model.config.encoder.curve_grid
    assert (rows, columns) == (1, ENCODER.windows)
    assert memory.gate is not None
    assert memory.gate.shape == (CLIPS, ENCODER.heard)
    for values, found in ((memory.gate, out.gates), (memory.entropy, out.entropies)):
        assert (values is None) == (found is None)
        if values is None or found is None:
            continue
        assert found.shape == (CLIPS, rows * columns)
        for b in range(CLIPS):
            for w in range(columns):
                weight = [sigmoid(float(x)) for x in heard[b, :, 2 + w]]
                expected = sum(x * float(v) for x, v in zip(weight, values[b], strict=True)) / sum(weight)
                assert found[b, w].item() == pytest.approx(expected, abs=1e-5)
    assert out.gate is not None
    torch.testing.assert_close(out.gate, memory.gate.mean(dim=1))


# ---- configurations and checkpoints


def save(folder: Path, fusion: str, **changes: Any) -> CaptionModel:
    tokenizer = Tokenizer.train(["a b c d e f g h i j k l m n o p q r s"], DECODER.vocab_size)
    model = tag_model(fusion)
    save_checkpoint(folder / "mine", model, tokenizer, {"frames": 3}, **changes)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("single", [False, True])
def test_a_loaded_model_gives_the_same_captions(fusion: str, single: bool, tmp_path: Path) -> None:
    model = save(tmp_path, fusion)
    path = tmp_path / "mine"
    if single:
        path = tmp_path / "one.safetensors"
        export_checkpoint(load_checkpoint(tmp_path / "mine"), path)
    loaded = load_checkpoint(path).model
    assert loaded.config == model.config
    assert loaded.has_tag_towers
    assert isinstance(loaded.encoder, TagEncoder)
    assert loaded.lexicon is not None
    assert model.lexicon is None
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not any(x.is_meta for x in (*loaded.parameters(), *loaded.buffers()))
    assert not any(module.training for module in loaded.modules())
    assert not any(p.requires_grad for p in loaded.encoder.network_a.parameters())
    fbank, pixels = random_inputs(2)
    model.lexicon = loaded.lexicon  # no word twice in a row
    ours, theirs = (x.generate(fbank, pixels, max_words=6) for x in (model, loaded))
    assert torch.equal(ours.tokens, theirs.tokens)
    torch.testing.assert_close(ours.score, theirs.score, rtol=0, atol=1e-4)  # in another layout of memory


@pytest.mark.slow
def test_a_half_precision_file_keeps_the_tags(tmp_path: Path) -> None:
    model = save(tmp_path, "evidence", dtype=torch.float16)
    loaded = load_checkpoint(tmp_path / "mine").model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    ours, theirs = (x.generate(*random_inputs(2), max_words=4).heard for x in (model, loaded))
    assert ours is not None
    assert theirs is not None
    torch.testing.assert_close(ours[..., 1].sigmoid(), theirs[..., 1].sigmoid(), rtol=0, atol=5e-3)


@pytest.mark.slow
def test_a_configuration_survives_its_dictionary() -> None:
    config = tag_model("evidence").config
    values = config.to_dict()
    assert values["towers"] == "tags"
    assert ModelConfig.from_dict(values) == config
    assert isinstance(ModelConfig.from_dict(values).encoder, TagEncoderConfig)


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_parameters_add_up(fusion: str, loaded: bool, tmp_path: Path) -> None:
    model = tag_model(fusion)
    if loaded:  # with a lexicon
        save(tmp_path, fusion)
        model = load_checkpoint(tmp_path / "mine").model
    counts = parameter_counts(model)
    total = counts.pop("total")
    assert total == sum(counts.values()) == sum(p.numel() for p in model.parameters())
    networks = {name: sum(p.numel() for p in getattr(model.encoder, name).parameters())
                for name in NETWORKS if hasattr(model.encoder, name)}  # fmt: skip
    assert counts["audio tower"] > networks["network_a"] > 3.5e6
    if fusion == "audio-only":
        assert counts["picture tower"] == counts["fusion"] == 0
    else:
        assert counts["picture tower"] > networks["network_v"] > 4.5e6


@pytest.mark.slow
@pytest.mark.parametrize("preset", TAGS_PRESETS)
def test_memory_can_be_estimated(preset: str) -> None:
    """Networks are weights without gradients or moments, and keep nothing for a backward pass."""
    config = load_preset(preset).model
    found = estimate_memory(config, TrainSettings(), 8, None)
    with torch.device("meta"):
        model = build_model(config)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert frozen == sum(p.numel() for name, p in model.named_parameters() if name.split(".")[1] in NETWORKS)
    assert found["weights"] == pytest.approx(4 * (frozen + 4 * trained) / 1e9, abs=0.006)
    assert 0.005 < found["activations"] < 0.2
    assert found["total"] == pytest.approx(found["weights"] + found["activations"], abs=0.011)


def test_equal_pictures_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tag_model("gate")
    _, pixels = random_inputs(2)
    pixels[0] = pixels[0, :1]
    same = torch.tensor([[0, 0, 0], [0, 1, 2]])
    looked: list[int] = []
    tower = model.encoder.picture_tower

    def counted(frames: Tensor) -> Tensor:
        looked.append(len(frames) * frames.shape[1])
        return tower(frames)

    monkeypatch.setattr(model.encoder, "picture_tower", counted)
    with torch.inference_mode():
        found = model.encode_picture(pixels, same)
        assert sum(looked) == 1 + 3
        assert greatest_error(found, tower(pixels)) < 1e-3


@pytest.mark.parametrize("fusion", PICTURES)
def test_shuffling_moves_pictures_only(fusion: str) -> None:
    model, data = tag_model(fusion), batch_of()
    if isinstance(model.fusion, EvidenceSwitch):  # open, whatever it is given
        model.fusion.evidence.bias.fill_(50.0)
    partners, plain = torch.tensor([0, 4, 2, 1, 4, 5]), Objective(0.1, 0.0, 0.0, 0.0)
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[1, 2:], mask[4, 1:] = False, False
    result = model(**data, frame_mask=mask, partners=partners, objective=plain)
    moved = data | {"picture": data["picture"][partners]}
    by_hand = model(**moved, frame_mask=mask[partners], objective=plain)
    untouched = model(**data, frame_mask=mask, objective=plain)
    assert result["caption"].item() == pytest.approx(by_hand["caption"].item(), abs=1e-5)
    assert abs(result["caption"].item() - untouched["caption"].item()) > 1e-4
