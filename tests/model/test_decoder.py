"""The text decoder: a prefix that never sees a word, words that never see what follows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from evacap_cli.model.beam import BeamSettings, CachedDecoding
from evacap_cli.model.decoder import KeysValues, TextDecoder

from .samples import DECODER, greatest_error, random_model, random_words

Record = Callable[[str, object], None]


@pytest.fixture
def decoder() -> TextDecoder:
    return random_model("audio-only", 3).decoder


def memory_of(batch: int = 3, tokens: int = 6) -> Tensor:
    return torch.randn(batch, tokens, 32, generator=torch.Generator().manual_seed(1))


def obvious_hidden(decoder: TextDecoder, memory: Tensor, tokens: Tensor) -> Tensor:
    """One sequence of prefix and words under one mask, each layer written out."""
    P, T = memory.shape[1], tokens.shape[1]
    words = decoder.words(tokens) + decoder.positions.weight[:T]
    x = torch.cat((decoder.project_memory(memory), decoder.embedding_norm(words)), dim=1)
    seen = torch.zeros(P + T, P + T, dtype=torch.bool)
    seen[:, :P] = True
    seen[P:, P:] = torch.ones(T, T).tril().bool()
    seen[:P, P:] = False
    for layer in decoder.stack:
        q, k, v = layer.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        p = (q @ k.transpose(-2, -1) / 4).masked_fill(~seen, float("-inf")).softmax(-1)
        x = layer.attention_norm(x + layer.out((p @ v).transpose(1, 2).flatten(2)))
        x = layer.output_norm(x + layer.narrow(gelu(layer.widen(x))))
    return x[:, P:]


@torch.no_grad()
def test_equals_one_masked_sequence(decoder: TextDecoder, record_property: Record) -> None:
    memory, (tokens, _) = memory_of(), random_words(3, 9)
    hidden = decoder.hidden(decoder.encode_prefix(memory, None), None, tokens)
    error = greatest_error(hidden, obvious_hidden(decoder, memory, tokens))
    record_property("max_abs_error", error)
    assert error < 1e-4


@torch.no_grad()
def test_words_do_not_attend_to_later_words(decoder: TextDecoder) -> None:
    tokens, _ = random_words(2, 9)
    prefix = decoder.encode_prefix(memory_of(2), None)
    hidden = decoder.hidden(prefix, None, tokens)
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % DECODER.vocab_size
    other = decoder.hidden(prefix, None, changed)
    assert greatest_error(hidden[:, :5], other[:, :5]) < 1e-5
    assert (hidden[:, 5:] - other[:, 5:]).abs().amax(dim=2).min() > 1e-3


@torch.no_grad()
def test_prefix_tokens_attend_to_each_other(decoder: TextDecoder) -> None:
    memory = memory_of(1)
    keys = decoder.encode_prefix(memory, None)[1][0]
    for i in range(6):
        touched = memory.clone()
        touched[:, i] += torch.randn(32, generator=torch.Generator().manual_seed(2))
        moved = (decoder.encode_prefix(touched, None)[1][0] - keys).abs().amax(dim=(0, 1, 3))
        assert moved.min() > 1e-4


@torch.no_grad()
def test_a_masked_prefix_equals_a_shorter_one(decoder: TextDecoder) -> None:
    memory, (tokens, _) = memory_of(2), random_words(2, 7)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 4:] = False
    memory[0, 4:] = 100.0
    hidden = decoder.hidden(decoder.encode_prefix(memory, mask), mask, tokens)
    short = decoder.hidden(decoder.encode_prefix(memory[:1, :4], None), None, tokens[:1])
    whole = decoder.hidden(decoder.encode_prefix(memory[1:], None), None, tokens[1:])
    assert greatest_error(hidden[:1], short) < 1e-4
    assert greatest_error(hidden[1:], whole) < 1e-4


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_steps_equal_one_pass_over_the_sentence(
    decoder: TextDecoder, masked: bool, record_property: Record
) -> None:
    """Logits of one word after another, three beams with words of their own, against teacher forcing."""
    B, K, T = 2, 3, 12
    memory = memory_of(B)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2]) if masked else None
    tokens = torch.randint(3, 23, (B, K, T), generator=torch.Generator().manual_seed(4))
    decoding = CachedDecoding(decoder, memory, mask, BeamSettings(beams=K, max_length=T + 1))
    steps = torch.stack([decoding.step(tokens, torch.tensor([t])) for t in range(T)], dim=2)
    wide = None if mask is None else mask.repeat_interleave(K, dim=0)
    prefix = decoder.encode_prefix(memory.repeat_interleave(K, dim=0), wide)
    whole = decoder.logits(decoder.hidden(prefix, wide, tokens.flatten(0, 1))).unflatten(0, (B, K))
    error = greatest_error(steps, whole)
    record_property("max_abs_error", error)
    assert error < 1e-4


@torch.no_grad()
def test_a_beam_that_continues_another_inherits_its_words(decoder: TextDecoder) -> None:
    """After reordering, each beam's logits are those of its new history."""
    B, K, T = 2, 4, 10
    g = torch.Generator().manual_seed(5)
    memory = memory_of(B)
    decoding = CachedDecoding(decoder, memory, None, BeamSettings(beams=K, max_length=T + 1))
    tokens = torch.full((B, K, 1), 1)
    prefix = decoder.encode_prefix(memory.repeat_interleave(K, dim=0), None)
    for t in range(T):
        logits = decoding.step(tokens, torch.tensor([t]))
        expected = decoder.logits(decoder.hidden(prefix, None, tokens.flatten(0, 1))[:, -1]).unflatten(
            0, (B, K)
        )
        assert greatest_error(logits, expected) < 1e-4
        parent = torch.randint(K, (B, K), generator=g)
        word = torch.randint(3, 23, (B, K, 1), generator=g)
        tokens = torch.cat((tokens.gather(1, parent[..., None].expand_as(tokens)), word), dim=2)
        decoding.reorder(parent)


@torch.no_grad()
def test_the_prefix_is_stored_once_for_all_beams(decoder: TextDecoder) -> None:
    """The cache grows by a slot for each beam and word, not by a prefix for each beam."""
    settings = BeamSettings(beams=4, max_length=12)
    cache: KeysValues = CachedDecoding(decoder, memory_of(3), None, settings).cache
    assert [tuple(x.shape) for x in cache[0]] == [(3, 2, 6 + 4 * 11, 16)] * 2
    assert len(cache) == DECODER.layers


def test_the_output_layer_shares_the_word_embedding(decoder: TextDecoder) -> None:
    names = [name for name, _ in decoder.named_parameters()]
    assert sum(p.numel() == DECODER.vocab_size * DECODER.width for p in decoder.parameters()) == 1
    assert "output_bias" in names
    hidden = torch.randn(2, 5, 32)
    expected = hidden @ decoder.words.weight.T + decoder.output_bias
    assert greatest_error(decoder.logits(hidden), expected) < 1e-4


def test_dropout_acts_in_training_only(decoder: TextDecoder) -> None:
    tokens, _ = random_words(2, 7)

    def run() -> Tensor:
        return decoder.hidden(decoder.encode_prefix(memory_of(2), None), None, tokens)

    assert torch.equal(run(), run())
    decoder.train()
    assert not torch.equal(run(), run())


def test_epsilons_are_git_and_berts(decoder: TextDecoder) -> None:
    assert decoder.embedding_norm.eps == 1e-8
    assert {layer.attention_norm.eps for layer in decoder.stack} == {1e-12}
    assert {layer.output_norm.eps for layer in decoder.stack} == {1e-12}


@pytest.mark.slow
@torch.no_grad()
def test_one_compiled_step_is_used_for_all_words(decoder: TextDecoder) -> None:
    from torch._dynamo.testing import CompileCounter  # takes long

    settings = BeamSettings(beams=2, max_length=9)
    tokens = torch.randint(3, 20, (3, 2, 9), generator=torch.Generator().manual_seed(2))
    plain = CachedDecoding(decoder, memory_of(), None, settings)
    wanted = [plain.step(tokens, torch.tensor([t])) for t in range(8)]
    counter = CompileCounter()
    decoder.step = torch.compile(decoder.step, backend=counter, fullgraph=True)  # type: ignore[method-assign]
    decoding = CachedDecoding(decoder, memory_of(), None, settings)
    for t in range(8):
        torch.testing.assert_close(decoding.step(tokens, torch.tensor([t])), wanted[t])
    assert counter.frame_count == 1
