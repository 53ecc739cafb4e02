"""Beam search for all beams of all clips at once.

The keys and values of the text are in the same buffer as those of the prefix, after them, with one slot for each (step,
beam). A beam that continues another beam copies nothing: a boolean table contains the slots that each beam may see, and
only this table is reordered.
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

    def clone(self) -> Hypotheses:
        return Hypotheses(self.tokens.clone(), self.length.clone(), self.logprob.clone(), self.score.clone())

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

    def forbidden(self, tokens: Tensor, position: Tensor) -> Tensor:
        """tokens: int64 (B, K, L), chosen up to `position`, int64 (1,). Returns bool (B, K, V), True for forbidden
        words."""
        ...


class Decoding(Protocol):
    """The steps of a decoder that `BeamSearch` uses."""

    def step(self, tokens: Tensor, position: Tensor) -> Tensor:
        """Logits (B, K, V) of the words after `position`, int64 (1,). tokens: int64 (B, K, L), chosen up to there."""
        ...

    def reorder(self, parent: Tensor) -> None:
        """Sets the beam that each new beam continues. parent: int64 (B, K)."""
        ...


class BeamSearch:
    """Finds each clip's best hypothesis.

    The rules are those of the public AVCap code: candidates are the best 2K continuations, an ended one counts if fewer
    than K open ones rank before it, a clip is done when no open beam can still win. At the last step, the best
    candidate is taken even if it has not ended.

    Every tensor keeps its shape and storage, and Python reads no values, so that `advance` can be recorded once and
    replayed on the device (`graphs`). `decoding` and `rules` must do the same.
    """

    def __init__(self, decoding: Decoding, batch: int, settings: BeamSettings, device: torch.device,
                 rules: WordRules | None = None) -> None:  # fmt: skip
        B, K, L = batch, settings.beams, settings.max_length
        self.decoding, self.settings, self.rules = decoding, settings, rules
        self.tokens = torch.empty(B, K, L, dtype=torch.long, device=device)
        self.scores = torch.empty(B, K, device=device)
        self.done = torch.empty(B, dtype=torch.bool, device=device)
        self.position = torch.empty(1, dtype=torch.long, device=device)
        self.best = Hypotheses(
            torch.empty(B, L, dtype=torch.long, device=device),
            torch.empty(B, dtype=torch.long, device=device),
            torch.empty(B, device=device),
            torch.empty(B, device=device),
        )
        penalties = [((5 + length) / 6) ** settings.length_penalty for length in range(L)]
        self.penalties = torch.tensor(penalties, device=device)
        self.reset()

    def reset(self) -> None:
        """Returns to the first word. The caller resets `decoding` and `rules`."""
        self.tokens.fill_(self.settings.pad)
        self.tokens[..., 0] = self.settings.bos
        self.scores.fill_(0.0)
        self.scores[:, 1:] = -1e9  # all beams start equal, so only the first may branch
        self.done.fill_(False)
        self.position.fill_(0)
        self.best.tokens.copy_(self.tokens[:, 0])
        self.best.length.fill_(1)
        self.best.logprob.fill_(float("-inf"))
        self.best.score.fill_(float("-inf"))

    def run(self, advance: Callable[[], None] | None = None, check_every: int = 1) -> Hypotheses:
        """Runs the search and returns the best hypotheses. advance: the function for one step, by default
        `self.advance`. check_every: the number of words between checks whether all clips are done; each check waits for
        the device."""
        advance = advance or self.advance
        steps = self.settings.max_length - 1
        for step in range(1, steps + 1):
            advance()
            if step < steps and step % check_every == 0 and bool(self.done.all()):
                break
        return self.best

    def advance(self) -> None:
        """Adds one word to all beams of all clips. Clips that are done keep their hypothesis."""
        K, L, eos = self.settings.beams, self.settings.max_length, self.settings.eos
        following = self.position + 1
        is_last = following == L - 1
        logits = self.decoding.step(self.tokens, self.position).float()
        if self.settings.min_length > 1:
            too_short = following < self.settings.min_length
            logits[..., eos] = logits[..., eos].masked_fill(too_short, float("-inf"))
        vocab = logits.shape[-1]
        chances = logits.log_softmax(-1)
        if (
            self.rules is not None
        ):  # after the softmax: a caption that had to avoid its best words scores lower
            chances = chances.masked_fill(self.rules.forbidden(self.tokens, self.position), float("-inf"))
        totals = (chances + self.scores[..., None]).flatten(1)
        ranked, index = totals.topk(min(2 * K, totals.shape[1]), dim=1)
        parent, word = index // vocab, index % vocab
        # Nothing open can beat what is finished, even at the greatest length.
        self.done |= self.best.score >= ranked[:, 0] / self.penalties[-1]
        ended = (word == eos) | is_last
        reachable = ended & ((~ended).cumsum(1) < K) & ~self.done[:, None]
        score = ranked / self.penalties.index_select(0, following)
        self._keep_best(score.masked_fill(~reachable, float("-inf")), ranked, parent, following)
        open_first = ended.long().argsort(dim=1, stable=True)[:, :K]
        parent, word = parent.gather(1, open_first), word.gather(1, open_first)
        self.scores.copy_(ranked.gather(1, open_first))
        self.tokens.copy_(self.tokens.gather(1, parent[..., None].expand(-1, -1, L)))
        self.tokens.index_copy_(2, following, word[..., None])
        self.decoding.reorder(parent)
        self.position.copy_(following)

    def _keep_best(self, score: Tensor, total: Tensor, parent: Tensor, following: Tensor) -> None:
        """Replaces the best hypothesis of a clip if one of its candidates (B, 2K) has a higher score."""
        best = self.best
        top, place = score.max(dim=1)
        better = top > best.score
        beam = parent.gather(1, place[:, None])
        candidate = self.tokens.gather(1, beam[..., None].expand(-1, -1, self.tokens.shape[2]))[:, 0]
        candidate.index_fill_(1, following, self.settings.eos)
        best.tokens.copy_(torch.where(better[:, None], candidate, best.tokens))
        best.length.copy_(torch.where(better, following + 1, best.length))
        best.logprob.copy_(torch.where(better, total.gather(1, place[:, None])[:, 0], best.logprob))
        best.score.copy_(torch.where(better, top, best.score))


class CachedDecoding:
    """Steps of `BeamSearch` with cached keys and values: the prefix and each word are computed once.

    Every tensor keeps its shape and storage from step to step, and the numbers that change are tensors, so that a step
    is compiled or recorded only once.
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

    def reset(self, memory: Tensor, mask: Tensor | None) -> None:
        """Returns to the first word, with another memory of the same shape."""
        P = self.prefix
        for buffers, values in zip(self.cache, self.decoder.encode_prefix(memory, mask), strict=True):
            for buffer, value in zip(buffers, values, strict=True):
                buffer[:, :, :P] = value
        self.visible[..., :P] = True if mask is None else mask[:, None, None]
        self.visible[..., P:] = False
        self.slots.copy_(torch.arange(P, P + len(self.slots), device=self.slots.device))
        self.position.fill_(0)

    def step(self, tokens: Tensor, position: Tensor) -> Tensor:
        self.visible.index_copy_(3, self.slots, self.own)
        last = tokens.index_select(2, position)[..., 0]
        logits = self.decoder.step(self.cache, self.slots, self.visible, last, self.position, self.prefix)
        self.slots += tokens.shape[1]
        self.position += 1
        return logits

    def reorder(self, parent: Tensor) -> None:
        self.visible.copy_(self.visible.gather(2, parent[:, None, :, None].expand_as(self.visible)))


class RecomputedDecoding:
    """The same steps without a cache: each step recomputes all words of all beams. The reference for the cache."""

    def __init__(
        self, decoder: TextDecoder, memory: Tensor, mask: Tensor | None, settings: BeamSettings
    ) -> None:
        K = settings.beams
        self.decoder, self.memory = decoder, memory.repeat_interleave(K, dim=0)
        self.mask = None if mask is None else mask.repeat_interleave(K, dim=0)

    def step(self, tokens: Tensor, position: Tensor) -> Tensor:
        prefix = self.decoder.encode_prefix(self.memory, self.mask)
        chosen = tokens[..., : int(position) + 1].flatten(0, 1)
        hidden = self.decoder.hidden(prefix, self.mask, chosen)[:, -1]
        return self.decoder.logits(hidden).unflatten(0, tokens.shape[:2])

    def reorder(self, parent: Tensor) -> None:
        """Nothing is kept, so nothing moves."""


def _extend(x: Tensor, slots: int) -> Tensor:
    B, h, P, d = x.shape
    longer = x.new_zeros(B, h, P + slots, d)
    longer[:, :, :P] = x
    return longer
