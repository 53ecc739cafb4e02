"""V-ACT's decoder against its definition, one clip, word and layer at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from evacap_cli.errors import UsageError
from evacap_cli.model import CaptionModel, ModelConfig, Objective
from evacap_cli.model.adaptive import AdaptiveDecoder, AdaptiveLayer
from evacap_cli.model.config import AdaptiveConfig

from .samples import DECODER, ENCODER, fresh_model, greatest_error, random_clips, random_model, random_words

Record = Callable[[str, object], None]
HEADS, HEAD = DECODER.heads, DECODER.width // DECODER.heads


def attend(q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """One query (d,) over some keys, a head at a time."""
    found = []
    for h in range(HEADS):
        part = slice(h * HEAD, (h + 1) * HEAD)
        scores = torch.stack([q[part] @ k[part] for k in keys]) / HEAD**0.5
        found.append((scores.softmax(0)[:, None] * torch.stack([v[part] for v in values])).sum(0))
    return torch.cat(found)


def obvious(decoder: AdaptiveDecoder, sound: Tensor, frames: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (T, V) and confidences (T,) of one clip: sound (T_a, d), frames (N, d), words (T,)."""
    sound, frames = decoder.project_memory(sound), decoder.project_memory(frames)
    states = list(decoder.embedding_norm(decoder.words(words) + decoder.positions.weight[: len(words)]))
    confidences = []
    for layer in decoder.stack:
        assert isinstance(layer, AdaptiveLayer)
        q, k, v = zip(*(layer.qkv(x).chunk(3) for x in states), strict=True)
        hear_k, hear_v = zip(*(layer.hear(x).chunk(2) for x in sound), strict=True)
        see = [layer.see(x).chunk(2) for x in frames]
        following, weights = [], []
        for t, x in enumerate(states):
            x = layer.attention_norm(x + layer.out(attend(q[t], list(k[: t + 1]), list(v[: t + 1]))))
            query = layer.query(x)
            mixed = layer.hear_out(attend(query, list(hear_k), list(hear_v)))
            weight = x.new_zeros(())
            if see:
                weight = 1 / (1 + torch.exp(-layer.confidence(x)[0]))
                shown = layer.see_out(attend(query, [k for k, _ in see], [v for _, v in see]))
                mixed = (1 - weight) * mixed + weight * shown
            x = layer.context_norm(x + mixed)
            following.append(layer.output_norm(x + layer.narrow(gelu(layer.widen(x)))))
            weights.append(weight)
        states = following
        confidences.append(torch.stack(weights))
    logits = torch.stack(states) @ decoder.words.weight.T + decoder.output_bias
    return logits, torch.stack(confidences).mean(0)


@torch.no_grad()
def test_equals_its_definition(record_property: Record) -> None:
    """Three clips: all frames, two of three, none."""
    model = random_model("adaptive", 3).double()
    decoder = model.decoder
    assert isinstance(decoder, AdaptiveDecoder)
    fbank, pixels = random_clips(3, 5)
    sound, picture = model.encode_audio(fbank.double()), model.encode_picture(pixels.double())
    mask = torch.tensor([[True] * 3, [True, True, False], [False] * 3])
    memory = model.fuse(sound, picture, mask)
    assert memory.tokens.shape == (3, 8 + 3, 32)
    words = torch.randint(3, DECODER.vocab_size, (3, 7), generator=torch.Generator().manual_seed(0))
    logits = model.logits(memory, words)
    confidences = decoder.confidences(memory.tokens, memory.mask, words)
    frames = picture.unflatten(1, (3, 4)).mean(2)
    errors = []
    for i in range(3):
        expected, weights = obvious(decoder, sound[i], frames[i][mask[i]], words[i])
        errors += [greatest_error(logits[i], expected), greatest_error(confidences[i].double(), weights)]
    record_property("max_abs_error", max(errors))
    assert max(errors) < 1e-6
    assert bool((confidences[2] == 0).all())
    assert confidences[:2].std() > 0.05  # words differ in how much they look


def test_confidences_belong_to_the_caption(record_property: Record) -> None:
    """One for each token after the first, their mean is the clip's gate, and a clip without a picture has 0."""
    model = random_model("adaptive", 1)
    fbank, pixels = random_clips(4, 1)
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[2] = False
    out = model.generate(fbank, pixels, mask, max_words=12)
    assert out.confidences is not None
    assert out.gate is not None
    assert out.confidences.shape == (4, out.tokens.shape[1] - 1)
    for row, tokens in zip(out.confidences, out.tokens.tolist(), strict=True):
        words = max(1, tokens.index(model.eos) - 1)
        assert bool(row[:words].isfinite().all())
        assert bool(row[words:].isnan().all())
    assert torch.allclose(out.gate, out.confidences.nanmean(1))
    assert out.gate[2] == 0
    assert bool((out.gate[[0, 1, 3]] > 0).all())
    alone = model.generate(fbank, None, max_words=12)
    assert alone.gate is not None
    assert bool((alone.gate == 0).all())
    assert torch.equal(alone.tokens[2], out.tokens[2])


def test_tags_are_additional_audio_tokens() -> None:
    config = ModelConfig(
        "adaptive", replace(ENCODER, tag_classes=9), DECODER, adaptive=AdaptiveConfig(tags=2)
    )
    assert ModelConfig.from_dict(config.to_dict()) == config
    torch.manual_seed(0)
    model = CaptionModel(config).eval()
    fbank, pixels = random_clips(2, 3)
    with torch.no_grad():
        sound, picture = model.encode_audio(fbank), model.encode_picture(pixels)
        memory = model.fuse(sound, picture)
        assert memory.tokens.shape == (2, 8 + 2 + 3, 32)
        head = model.encoder.tag_head
        assert isinstance(head, torch.nn.Module)
        best = head(sound).logsumexp(1).topk(2, dim=1).indices
        expected = model.fusion.tag_tokens.weight[best]  # type: ignore[union-attr, index]
        assert torch.equal(memory.tokens[:, 8:10], expected)
    cached, plain = (model.generate(fbank, pixels, max_words=9, cached=choice) for choice in (True, False))
    assert torch.equal(cached.tokens, plain.tokens)


def test_more_tags_than_classes_are_refused() -> None:
    values = ModelConfig("adaptive", ENCODER, DECODER).to_dict()
    with pytest.raises(UsageError, match=r"adaptive\.tags: 3 is more than the encoder's 0"):
        ModelConfig.from_dict(values | {"adaptive": {"tags": 3}})


@pytest.mark.slow
def test_confidences_learn_when_the_picture_helps() -> None:
    """Where only the picture tells which word is right, training raises the confidence in it."""
    model = fresh_model("adaptive", 2).train()
    tokens, wanted = random_words(4, 6, 1)
    fbank, pixels = random_clips(4, 2)
    fbank = fbank[:1].expand(4, -1, -1)  # all sound alike
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    memory = model.fuse(model.encode_audio(fbank), model.encode_picture(pixels))
    decoder = model.decoder
    assert isinstance(decoder, AdaptiveDecoder)
    before = decoder.confidences(memory.tokens, memory.mask, tokens[:, :1]).mean().item()
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        model(fbank, pixels, tokens, wanted, objective=Objective(0.0, 0.0, 0.0))["loss"].backward()
        optimizer.step()
    model.eval()
    memory = model.fuse(model.encode_audio(fbank), model.encode_picture(pixels))
    assert decoder.confidences(memory.tokens, memory.mask, tokens[:, :1]).mean().item() > before + 0.02
