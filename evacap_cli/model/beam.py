"""Beam search for all beams of all clips at once.

Text keys and values live in one buffer behind the prefix, one slot for each (step, beam). A beam that continues another
does not copy anything: which slots it may see is a boolean table, and only that table is reordered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from evacap_cli.model.decoder import KeysValues, TextDecoder


@dataclass(frozen=True)
class BeamSettings:
    """`max_length` counts every token of a hypothesis, the first and the last included."""

    beams: int = 4
    max_length: int = 22
    min_length: int = 0
    length_penalty: float = 0.6
    bos: int = 1
    eos: int = 2
    pad: int = 0


@dataclass
class Hypotheses:
    """tokens: int64 (B, max_length), bos to eos, then pad. length: (B,), eos included.

    logprob: (B,) sum over the words and eos. score: (B,) the same over ((5 + n) / 6)^penalty, n = length - 1.
    """

    tokens: Tensor
    length: Tensor
    logprob: Tensor
    score: Tensor

    @classmethod
    def concatenate(cls, parts: Sequence[Hypotheses], rows: Sequence[Tensor]) -> Hypotheses:
        """Merges the hypotheses of parts of a batch. rows: the clips of each part, bool (B,)."""
        place = torch.cat([some.nonzero()[:, 0] for some in rows]).argsort()
        values = (
            torch.cat([getattr(part, name) for part in parts])[place] for name in cls.__dataclass_fields__
        )
        return cls(*values)


class WordRules(Protocol):
    """Which words may come next."""

    def forbidden(self, tokens: Tensor) -> Tensor:
        """tokens so far, int64 (B, K, t) -> bool (B, K, V)."""
        ...


def beam_search(step: Callable[[Tensor, int], Tensor], reorder: Callable[[Tensor], None], batch: int,
                settings: BeamSettings, device: torch.device,
                rules: WordRules | None = None) -> Hypotheses:  # fmt: skip
    """Finds each clip's best hypothesis.

    `step(tokens, t)` takes all tokens so far (B, K, t + 1) and returns the next word's logits (B, K, vocab);
    `reorder(parents)` tells the caller which beam (B, K) each new beam continues. The rules are those of the public
    AVCap code: candidates are the best 2K continuations, an ended one counts if fewer than K open ones rank before it,
    a clip is done when no open beam can still win, and at the last step whatever leads is taken.
    """
    K, L, eos = settings.beams, settings.max_length, settings.eos
    tokens = torch.full((batch, K, L), settings.pad, dtype=torch.long, device=device)
    tokens[..., 0] = settings.bos
    scores = torch.zeros(batch, K, device=device)
    scores[:, 1:] = -1e9  # all beams start equal: only the first may branch
    best = Hypotheses(
        tokens[:, 0].clone(),
        torch.ones(batch, dtype=torch.long, device=device),
        torch.full((batch,), float("-inf"), device=device),
        torch.full((batch,), float("-inf"), device=device),
    )
    done = torch.zeros(batch, dtype=torch.bool, device=device)
    for t in range(L - 1):
        logits = step(tokens[..., : t + 1], t).float()
        if t + 1 < settings.min_length:
            logits[..., eos] = float("-inf")
        vocab = logits.shape[-1]
        chances = logits.log_softmax(-1)
        if rules is not None:  # after the softmax: a caption that had to avoid its best words scores lower
            chances = chances.masked_fill(rules.forbidden(tokens[..., : t + 1]), float("-inf"))
        totals = (chances + scores[..., None]).flatten(1)
        ranked, index = totals.topk(min(2 * K, totals.shape[1]), dim=1)
        parent, word = index // vocab, index % vocab
        # Nothing open can beat what is finished, even at the greatest length.
        done = done | (best.score >= ranked[:, 0] / _penalty(L - 1, settings))
        ended = word == eos if t + 1 < L - 1 else torch.ones_like(word, dtype=torch.bool)
        reachable = ended & ((~ended).cumsum(1) < K) & ~done[:, None]
        _keep_best(best, reachable, ranked / _penalty(t + 1, settings), ranked, tokens, parent, t, eos)
        if t + 1 == L - 1 or bool(done.all()):
            break
        open_first = ended.long().argsort(dim=1, stable=True)[:, :K]
        parent, word = parent.gather(1, open_first), word.gather(1, open_first)
        scores = ranked.gather(1, open_first)
        tokens = tokens.gather(1, parent[..., None].expand(-1, -1, L))
        tokens[..., t + 1] = word
        reorder(parent)
    return best


def _penalty(length: int, settings: BeamSettings) -> float:
    return ((5 + length) / 6) ** settings.length_penalty


def _keep_best(best: Hypotheses, allowed: Tensor, score: Tensor, total: Tensor, tokens: Tensor, parent: Tensor,
               t: int, eos: int) -> None:  # fmt: skip
    """Takes over each clip's best allowed candidate (B, 2K) where it beats what the clip has."""
    top, place = score.masked_fill(~allowed, float("-inf")).max(dim=1)
    better = top > best.score
    beam = parent.gather(1, place[:, None])
    candidate = tokens.gather(1, beam[..., None].expand(-1, -1, tokens.shape[2]))[:, 0]
    candidate[:, t + 1] = eos
    best.tokens = torch.where(better[:, None], candidate, best.tokens)
    best.length = torch.where(better, t + 2, best.length)
    best.logprob = torch.where(better, total.gather(1, place[:, None])[:, 0], best.logprob)
    best.score = torch.where(better, top, best.score)


class CachedDecoding:
    """Steps of `beam_search` on a decoder: the prefix once, each word's keys and values once.

    Every tensor keeps its shape and place from step to step, and numbers that change are tensors: compiled once, a step
    serves all words.
    """

    def __init__(
        self, decoder: TextDecoder, memory: Tensor, mask: Tensor | None, settings: BeamSettings
    ) -> None:
        (B, P), K, device = memory.shape[:2], settings.beams, memory.device
        self.decoder, self.prefix = decoder, P
        slots = (settings.max_length - 1) * K
        self.cache: KeysValues = [
            (_extend(k, slots), _extend(v, slots)) for k, v in decoder.encode_prefix(memory, mask)
        ]
        self.visible = torch.zeros(B, 1, K, P + slots, dtype=torch.bool, device=device)
        self.visible[..., :P] = True if mask is None else mask[:, None, None]
        self.own = torch.eye(K, dtype=torch.bool, device=device).expand(B, 1, K, K)
        self.slots = torch.arange(P, P + K, device=device)
        self.position = torch.zeros((), dtype=torch.long, device=device)

    def step(self, tokens: Tensor, t: int) -> Tensor:
        self.visible.index_copy_(3, self.slots, self.own)
        logits = self.decoder.step(
            self.cache, self.slots, self.visible, tokens[..., -1], self.position, self.prefix
        )
        self.slots += tokens.shape[1]
        self.position += 1
        return logits

    def reorder(self, parent: Tensor) -> None:
        self.visible = self.visible.gather(2, parent[:, None, :, None].expand_as(self.visible))


class RecomputedDecoding:
    """The same steps without any cache, every beam and word from the start: the reference that the cache must equal."""

    def __init__(
        self, decoder: TextDecoder, memory: Tensor, mask: Tensor | None, settings: BeamSettings
    ) -> None:
        K = settings.beams
        self.decoder, self.memory = decoder, memory.repeat_interleave(K, dim=0)
        self.mask = None if mask is None else mask.repeat_interleave(K, dim=0)

    def step(self, tokens: Tensor, t: int) -> Tensor:
        prefix = self.decoder.encode_prefix(self.memory, self.mask)
        hidden = self.decoder.hidden(prefix, self.mask, tokens.flatten(0, 1))[:, -1]
        return self.decoder.logits(hidden).unflatten(0, tokens.shape[:2])

    def reorder(self, parent: Tensor) -> None:
        """Nothing is kept, so nothing moves."""


def _extend(x: Tensor, slots: int) -> Tensor:
    B, h, P, d = x.shape
    longer = x.new_zeros(B, h, P + slots, d)
    longer[:, :, :P] = x
    return longer
