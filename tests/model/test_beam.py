"""Beam search against an obvious one, and the cache against none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from evacap_cli.model import FUSIONS
from evacap_cli.model.beam import BeamSearch, BeamSettings, CachedDecoding
from evacap_cli.model.decoder import DecoderLayer, TextDecoder
from evacap_cli.model.fused import Fused

from .samples import DECODER, PICTURES, TableDecoding, random_clips, random_model

CPU = torch.device("cpu")
Record = Callable[[str, object], None]


def obvious_search(table: Tensor, settings: BeamSettings) -> tuple[list[list[int]], list[float]]:
    """The rules of `BeamSearch`, one clip, beam and candidate at a time. table: (B, L, V, V) logits."""

    def norm(length: int) -> float:
        return ((5 + length) / 6) ** settings.length_penalty

    best_tokens, best_scores = [], []
    for logits in table:
        beams = [(0.0 if k == 0 else -1e9, [settings.bos]) for k in range(settings.beams)]
        found: tuple[float, list[int]] | None = None
        for t in range(settings.max_length - 1):
            candidates = []
            for k, (score, words) in enumerate(beams):
                row = logits[t, words[-1]].clone()
                if t + 1 < settings.min_length:
                    row[settings.eos] = float("-inf")
                for w, logp in enumerate(row.log_softmax(-1).tolist()):
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


def searched(table: Tensor, settings: BeamSettings) -> tuple[list[list[int]], list[float], int]:
    """`BeamSearch` on a table of logits: tokens up to eos, scores, and how often a beam took another's place."""
    decoding = TableDecoding(table)
    out = BeamSearch(decoding, len(table), settings, CPU).run()
    for row, n in zip(out.tokens, out.length, strict=True):
        assert row[n - 1] == settings.eos
        assert (row[n:] == settings.pad).all()
    tokens = [row[:n].tolist() for row, n in zip(out.tokens, out.length, strict=True)]
    return tokens, out.score.tolist(), decoding.moved


@pytest.mark.parametrize("beams", [1, 2, 4, 6])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("min_length", [0, 5])
def test_equals_the_reference_search(
    beams: int, penalty: float, min_length: int, record_property: Record
) -> None:
    settings = BeamSettings(beams=beams, max_length=9, length_penalty=penalty, min_length=min_length)
    errors, lengths, moves = [], set(), 0
    for seed in range(3):
        table = torch.randn(6, 8, 11, 11, generator=torch.Generator().manual_seed(seed)) * (1 + seed)
        tokens, scores, moved = searched(table, settings)
        expected_tokens, expected_scores = obvious_search(table, settings)
        assert tokens == expected_tokens
        errors += [abs(a - b) for a, b in zip(scores, expected_scores, strict=True)]
        lengths |= {len(row) for row in tokens}
        moves += moved
    record_property("max_abs_error_of_score", max(errors))
    assert max(errors) < 1e-4
    assert len(lengths) > 1  # hypotheses do end early
    assert min(lengths) > min_length  # bos, and at least min_length further tokens
    if beams > 1:  # the search did change beams
        assert moves > 10


def test_more_beams_than_words() -> None:
    settings = BeamSettings(beams=6, max_length=6, eos=2)
    table = torch.randn(4, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    tokens, scores, _ = searched(table, settings)
    expected_tokens, expected_scores = obvious_search(table, settings)
    assert tokens == expected_tokens
    assert scores == pytest.approx(expected_scores, abs=1e-4)


def test_a_clip_ends_independently_of_others() -> None:
    """A clip that is done keeps its caption while the rest of its batch goes on."""
    settings = BeamSettings(beams=3, max_length=12)
    table = torch.randn(6, 11, 9, 9, generator=torch.Generator().manual_seed(3)) * 2
    table[0, :, :, settings.eos] += 20
    table[1:, :6, :, settings.eos] -= 20
    together, scores, _ = searched(table, settings)
    assert len(together[0]) == 2
    assert min(len(row) for row in together[1:]) > 6
    for b in range(6):
        alone, score, _ = searched(table[b : b + 1], settings)
        assert alone == [together[b]]
        assert score == [scores[b]]


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("beams", [1, 2, 4, 6])
def test_cached_equals_uncached(
    fusion: str, beams: int, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    """Token by token, on random models whose captions differ in length and whose beams do overtake one another."""
    moves = 0
    reorder = CachedDecoding.reorder

    def counted(self: CachedDecoding, parent: Tensor) -> None:
        nonlocal moves
        moves += int((parent != torch.arange(beams)).sum())
        reorder(self, parent)

    monkeypatch.setattr(CachedDecoding, "reorder", counted)
    lengths, errors, clips = set(), [], 0
    sizes = ((0, 1, 28), (1, 3, 12), (2, 6, 28), (3, 4, 20), (4, 8, 28), (7, 6, 28))
    for seed, batch, words in sizes:
        model = random_model(fusion, seed)
        fbank, pixels = random_clips(batch, seed)
        mask = torch.ones(batch, 3, dtype=torch.bool)
        if seed % 2:  # fewer frames, and no picture at all
            mask[-1, 1:], mask[1] = False, False
        with torch.inference_mode():
            picture = model.encode_picture(pixels) if model.has_picture else None
            memory = model.fuse(model.encode_audio(fbank), picture, mask)
        assert fusion != "concat" or (memory.mask is not None) == bool(seed % 2)
        cached, plain = (model.decode(memory, beams, words, cached=choice) for choice in (True, False))
        assert torch.equal(cached.tokens, plain.tokens)
        errors.append((cached.score - plain.score).abs().max().item())
        lengths |= {row.tolist().index(model.eos) + 1 for row in cached.tokens}
        clips += batch
    record_property(
        "clips, lengths, overtakings, max_abs_error_of_score", (clips, lengths, moves, max(errors))
    )
    assert max(errors) < 1e-4
    assert len(lengths) >= 5
    assert max(lengths) > 12
    if beams > 1:
        assert moves > 100


@pytest.mark.parametrize("fusion", ["entropy-gate", "concat"])
def test_cached_equals_uncached_with_a_minimum_length(fusion: str) -> None:
    model = random_model(fusion, 4)
    fbank, pixels = random_clips(3, 4)
    for words, least in ((9, 9), (12, 5), (1, 0), (1, 1)):
        cached, plain = (
            model.generate(fbank, pixels, max_words=words, min_words=least, cached=choice)
            for choice in (True, False)
        )
        assert torch.equal(cached.tokens, plain.tokens)
        counts = [row.tolist().index(model.eos) - 1 for row in cached.tokens]
        assert all(least <= count <= words for count in counts)


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("fusion", ["entropy-gate", "concat"])
def test_the_prefix_is_encoded_once_per_clip_and_each_word_once(
    fusion: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of the decoder: the prefix once for each clip, then one step a word for all beams of all clips."""
    model = random_model(fusion, 1)
    calls: dict[str, list[tuple[int, ...]]] = {"encode_prefix": [], "step": [], "project": []}

    def counted(kind: type, name: str) -> None:
        original = getattr(kind, name)

        def wrapper(self: object, *args: object) -> object:
            tensor = args[3] if name == "step" else args[0]
            assert isinstance(tensor, Tensor)
            calls[name].append(tuple(tensor.shape[:2]))
            return original(self, *args)

        monkeypatch.setattr(kind, name, wrapper)

    counted(TextDecoder, "encode_prefix")
    counted(TextDecoder, "step")
    counted(DecoderLayer, "project")
    fbank, pixels = random_clips(batch, 1)
    model.generate(fbank, pixels, beam=4, max_words=10, min_words=10)
    prefix = 8 + 12 if fusion == "concat" else 8  # tokens
    assert calls["encode_prefix"] == [(batch, prefix)]  # once, and not once a beam
    assert calls["step"] == [(batch, 4)] * 11  # ten words and the end, whatever the batch
    assert calls["project"] == [(batch, prefix)] * DECODER.layers + [(batch, 4)] * 11 * DECODER.layers


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_captions_do_not_depend_on_the_batch(fusion: str) -> None:
    """Alone or among clips with all, some and no frames: the same words."""
    for seed in (0, 9):
        model = random_model(fusion, seed)
        fbank, pixels = random_clips(6, seed)
        mask = torch.ones(6, 3, dtype=torch.bool)
        mask[3], mask[4, 2:] = False, False
        together = model.generate(fbank, pixels, mask)
        for i in range(6):
            alone = model.generate(fbank[i : i + 1], pixels[i : i + 1], mask[i : i + 1])
            assert torch.equal(alone.tokens[0], together.tokens[i])
            assert alone.score[0].item() == pytest.approx(together.score[i].item(), abs=1e-4)
        order = torch.tensor([4, 2, 0, 5, 3, 1])
        assert torch.equal(
            model.generate(fbank[order], pixels[order], mask[order]).tokens, together.tokens[order]
        )


@pytest.mark.slow
def test_captions_depend_on_the_clips(record_property: Record) -> None:
    """Captions differ between clips, and with and without the picture: the tests above compare something."""
    for fusion in PICTURES:
        different, changed = 0, 0
        for seed in (0, 5, 9):
            model = random_model(fusion, seed)
            fbank, pixels = random_clips(6, seed)
            seen, heard = model.generate(fbank, pixels).tokens, model.generate(fbank).tokens
            different += len({tuple(row) for row in seen.tolist()})
            changed += int((seen != heard).any(dim=1).sum())
        record_property(f"{fusion}: different captions, changed by the picture (of 18)", (different, changed))
        assert different > 7
        assert changed > 7


def test_score_is_the_mean_log_probability_of_the_words(record_property: Record) -> None:
    errors = []
    for seed in range(6):
        model = random_model("audio-only", seed)
        out = model.generate(random_clips(6, seed)[0], max_words=30)
        with torch.inference_mode():
            memory = Fused(model.encode_audio(random_clips(6, seed)[0]))
            logp = model.logits(memory, out.tokens[:, :-1]).log_softmax(-1)
            logp = logp.gather(2, out.tokens[:, 1:, None])[..., 0]
        for i, row in enumerate(out.tokens.tolist()):
            end = row.index(model.eos)
            if end < len(row) - 1:  # a hypothesis cut at the limit is scored with the word it lost
                total = logp[i, :end].sum().item()
                errors.append(abs(out.score[i].item() - total / end))
                errors.append(abs(out.beam_score[i].item() - total / ((5 + end) / 6) ** 0.6))
    record_property("max_abs_error", max(errors))
    assert len(errors) > 8
    assert max(errors) < 1e-4


def test_more_words_than_positions_are_refused() -> None:
    model = random_model("audio-only")
    fbank, _ = random_clips(1)
    assert (
        model.generate(fbank, max_words=DECODER.positions - 1, beam=1).tokens.shape[1]
        == DECODER.positions + 1
    )
    with pytest.raises(ValueError, match="63 words"):
        model.generate(fbank, max_words=DECODER.positions)
