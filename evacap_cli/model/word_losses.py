"""Losses over the words of captions, which one or two decoders predict, without the logits of all words in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evacap_cli.model.chunked import MAX_LOGITS, chunked_sum
from evacap_cli.model.decoder import TextDecoder
from evacap_cli.model.fused import Fused
from evacap_cli.model.losses import semantic_consistency, smoothed_cross_entropy


@dataclass(frozen=True)
class DecoderStates:
    """hidden: states of words (..., d). decoder: the decoder of each, its number in the model's list, int64 (...)."""

    hidden: Tensor
    decoder: Tensor

    def __getitem__(self, rows: Tensor) -> DecoderStates:
        return DecoderStates(self.hidden[rows], self.decoder[rows])


def decoder_states(
    decoders: Sequence[TextDecoder],
    split: Sequence[tuple[TextDecoder, Tensor | None]],
    memory: Fused,
    tokens: Tensor,
) -> DecoderStates:
    """Returns the states (B, T, d) for tokens, int64 (B, T). split: the clips of each decoder, bool (B,), None: all."""
    hidden, clips, numbers = [], [], []
    for decoder, rows in split:
        number = next(i for i, each in enumerate(decoders) if each is decoder)
        chosen, words = (memory, tokens) if rows is None else (memory.select(rows), tokens[rows])
        prefix = decoder.encode_prefix(chosen.tokens, chosen.mask)
        hidden.append(decoder.hidden(prefix, chosen.mask, words))
        numbers.append(torch.full_like(words, number))
        clips.append(torch.arange(len(words), device=words.device) if rows is None else rows.nonzero()[:, 0])
    if len(hidden) == 1:
        return DecoderStates(hidden[0], numbers[0])
    order = torch.cat(clips).argsort()
    return DecoderStates(torch.cat(hidden)[order], torch.cat(numbers)[order])


def word_logits(decoders: Sequence[TextDecoder], states: DecoderStates) -> Tensor:
    """Returns word logits (..., V)."""
    if len(decoders) == 1:
        return decoders[0].logits(states.hidden)
    places = [(states.decoder == number).nonzero(as_tuple=True) for number in range(len(decoders))]
    used = [(decoder, at) for decoder, at in zip(decoders, places, strict=True) if len(at[0])]
    if len(used) == 1:
        return used[0][0].logits(states.hidden)
    parts = [decoder.logits(states.hidden[at]) for decoder, at in used]
    logits = parts[0].new_empty(*states.hidden.shape[:-1], parts[0].shape[-1])
    for (_, at), part in zip(used, parts, strict=True):
        logits = logits.index_put(at, part)
    return logits


def caption_loss(
    decoders: Sequence[TextDecoder], states: DecoderStates, target: Tensor, smoothing: float
) -> Tensor:
    """The cross-entropy () of R words. target: int64 (R,)."""

    def loss(hidden: Tensor, decoder: Tensor, target: Tensor) -> Tensor:
        logits = word_logits(decoders, DecoderStates(hidden, decoder))
        return smoothed_cross_entropy(logits, target, smoothing) * len(target)

    return _mean(decoders, loss, states.hidden, states.decoder, target)


def consistency_loss(decoders: Sequence[TextDecoder], states: DecoderStates, others: DecoderStates) -> Tensor:
    """`semantic_consistency` () of R words."""

    def loss(hidden: Tensor, decoder: Tensor, other_hidden: Tensor, other_decoder: Tensor) -> Tensor:
        pair = DecoderStates(hidden, decoder), DecoderStates(other_hidden, other_decoder)
        return semantic_consistency(*(word_logits(decoders, each) for each in pair)) * len(hidden)

    return _mean(decoders, loss, states.hidden, states.decoder, others.hidden, others.decoder)


def _mean(decoders: Sequence[TextDecoder], loss: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The mean () over words of a loss () of inputs (R, ...)."""
    parameters = [parameter for decoder in decoders for parameter in decoder.output_parameters]
    rows = max(1, MAX_LOGITS // decoders[0].config.vocab_size)
    return chunked_sum(loss, inputs, parameters, rows) / len(inputs[0])
