"""Beam search against an obvious one, and the cache against none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from evacap_cli.model import FUSIONS, CaptionModel, DecoderConfig, EncoderConfig, ModelConfig
from evacap_cli.model.beam import BeamSettings, CachedDecoding, beam_search
from evacap_cli.model.decoder import DecoderLayer, TextDecoder

ENCODER = EncoderConfig(
    audio_frames=64, mel_bins=32, image_size=32, frames=3, width=32, depth=1, heads=2, tag_classes=0
)
DECODER = DecoderConfig(vocab_size=23, width=32, layers=2, heads=2, feedforward=64, positions=64)


def random_model(fusion: str, seed: int) -> CaptionModel:
    """Weights large enough that hypotheses differ in length and beams overtake one another."""
    torch.manual_seed(seed)
    model = CaptionModel(ModelConfig(fusion, ENCODER, DECODER)).eval()
    with torch.no_grad():
        model.decoder.words.weight.mul_(12)
        model.decoder.positions.weight.mul_(25)
        model.decoder.output_bias[model.eos] += 1.0
        for layer in model.decoder.layers:
            layer.qkv.weight.mul_(8)
            layer.narrow.weight.mul_(8)
    return model


def random_clips(batch: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 64, 32, generator=g), torch.randn(batch, 3, 3, 32, 32, generator=g)


def obvious_search(table: Tensor, settings: BeamSettings) -> tuple[list[list[int]], list[float]]:
    """The rules of `beam_search`, one clip, beam and candidate at a time. table: (B, L, V, V) logits."""

    def norm(length: int) -> float:
        return ((5 + length) / 6) ** settings.length_penalty

    best_tokens, best_scores = [], []
    for logits in table:
        beams = [(0.0 if k == 0 else -1e9, [settings.bos]) for k in range(settings.beams)]
        found: tuple[float, list[int]] | None = None
        for t in range(settings.max_length - 1):
            candidates = []
            for k, (score, words) in enumerate(beams):
                for w, logp in enumerate(logits[t, words[-1]].log_softmax(-1).tolist()):
                    candidates.append((score + logp, -(k * table.shape[-1] + w), words, w))
            candidates.sort(key=lambda c: (c[0], c[1]), reverse=True)
            candidates = candidates[: 2 * settings.beams]
            if found and found[0] >= candidates[0][0] / norm(settings.max_length - 1):
                break
            last = t + 1 == settings.max_length - 1
            following = []
            for score, _, words, w in candidates:
                if w == settings.eos or last:
                    if found is None or score / norm(len(words)) > found[0]:
                        found = (score / norm(len(words)), [*words, settings.eos])
                else:
                    following.append((score, [*words, w]))
                if len(following) == settings.beams:
                    break
            beams = following
        assert found is not None
        best_tokens.append(found[1])
        best_scores.append(found[0])
    return best_tokens, best_scores


@pytest.mark.parametrize("beams", [1, 2, 4, 6])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_obvious_search(beams: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    settings = BeamSettings(beams=beams, max_length=9)
    table = torch.randn(5, 8, 11, 11, generator=g) * 2
    moved = []

    def step(tokens: Tensor, t: int) -> Tensor:
        return torch.stack([table[b, t, tokens[b, :, -1]] for b in range(5)])

    out = beam_search(step, lambda parent: moved.append(parent), 5, settings, torch.device("cpu"))
    tokens, scores = obvious_search(table, settings)
    assert [row[:n].tolist() for row, n in zip(out.tokens, out.length, strict=True)] == tokens
    assert out.score.tolist() == pytest.approx(scores, abs=1e-4)
    if beams > 1:  # the search did change beams
        assert any((parent != torch.arange(beams)).any() for parent in moved)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("beams", [1, 2, 4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_cached_equals_uncached(fusion: str, beams: int, seed: int) -> None:
    model = random_model(fusion, seed)
    fbank, pixels = random_clips(4, seed)
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[1, 1:], mask[2] = False, False
    with torch.inference_mode():
        memory = model.fuse(
            model.encode_audio(fbank), model.encode_picture(pixels) if model.has_picture else None, mask
        )
    cached, plain = (model.describe(memory, beams, max_words=28, cached=c) for c in (True, False))
    assert torch.equal(cached.tokens, plain.tokens)
    assert torch.allclose(cached.score, plain.score, atol=1e-4)


def test_the_random_models_are_a_real_trial() -> None:
    """Captions of many lengths, and beams that overtake one another: what caching could get wrong does happen."""
    lengths, moves = set(), 0
    for seed in range(3):
        model = random_model("entropy-gate", seed)
        with torch.inference_mode():
            fbank, pixels = random_clips(8, seed)
            memory = model.fuse(model.encode_audio(fbank), model.encode_picture(pixels))
            settings = BeamSettings(beams=4, max_length=30)
            decoding = CachedDecoding(model.decoder, memory.tokens, None, settings)

            def reorder(parent: Tensor, decoding: CachedDecoding = decoding) -> None:
                nonlocal moves
                moves += int((parent != torch.arange(4)).sum())
                decoding.reorder(parent)

            out = beam_search(decoding.step, reorder, 8, settings, torch.device("cpu"))
        lengths |= set(out.length.tolist())
    assert len(lengths) > 3
    assert moves > 100


@pytest.mark.parametrize("fusion", FUSIONS)
def test_no_caption_depends_on_its_neighbours(fusion: str) -> None:
    model = random_model(fusion, 5)
    fbank, pixels = random_clips(6, 5)
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[3], mask[4, 2:] = False, False
    together = model.generate(fbank, pixels, mask, max_words=20)
    for i in range(6):
        alone = model.generate(fbank[i : i + 1], pixels[i : i + 1], mask[i : i + 1], max_words=20)
        assert torch.equal(alone.tokens[0], together.tokens[i])
    heard = model.generate(fbank[3:4], None, max_words=20)
    assert torch.equal(heard.tokens[0], together.tokens[3])


@pytest.mark.parametrize("batch", [1, 7])
def test_one_prefix_a_clip_and_one_step_a_word(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("entropy-gate", 1)
    calls = {"prefix": [], "step": [], "project": []}

    def counted(kind: type, name: str, key: str) -> None:
        original = getattr(kind, name)

        def wrapper(self, *args, **kwargs):
            calls[key].append(args[0][0][0].shape[0] if key == "step" else args[0].shape[0])
            return original(self, *args, **kwargs)

        monkeypatch.setattr(kind, name, wrapper)

    counted(TextDecoder, "encode_prefix", "prefix")
    counted(TextDecoder, "step", "step")
    counted(DecoderLayer, "project", "project")
    fbank, pixels = random_clips(batch, 1)
    model.generate(fbank, pixels, beam=4, max_words=10, min_words=10)
    assert calls["prefix"] == [batch]  # once, and not once a beam
    assert calls["step"] == [batch] * 11  # ten words and the end, whatever the batch
    assert len(calls["project"]) == DECODER.layers * 12


def test_score_is_the_mean_log_probability_of_the_words() -> None:
    model = random_model("audio-only", 2)
    fbank, _ = random_clips(3, 2)
    out = model.generate(fbank, max_words=12)
    with torch.inference_mode():
        memory = model.fuse(model.encode_audio(fbank), None)
        logp = (
            model.logits(memory, out.tokens[:, :-1])
            .log_softmax(-1)
            .gather(2, out.tokens[:, 1:, None])[..., 0]
        )
    for i in range(3):
        end = out.tokens[i].tolist().index(model.eos)
        if end < out.tokens.shape[1] - 1:  # a hypothesis cut at the limit is scored with the word it lost
            assert out.score[i].item() == pytest.approx(logp[i, :end].mean().item(), abs=1e-4)
            assert out.beam_score[i].item() == pytest.approx(
                logp[i, :end].sum().item() / ((5 + end) / 6) ** 0.6, abs=1e-3
            )
    assert not math.isnan(out.score.sum().item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_half_precision_runs(fusion: str, dtype: torch.dtype) -> None:
    model = random_model(fusion, 0)
    fbank, pixels = random_clips(2, 0)
    with torch.autocast("cpu", dtype):
        out = model.generate(fbank, pixels, max_words=8)
    assert torch.isfinite(out.score).all()
