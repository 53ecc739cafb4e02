"""The words that a caption may contain: a sound is named only if YAMNet is confident enough in one of its classes.

`assets/lexicon.json` lists the words that name a sound or its source, the AudioSet classes (by number) that allow each
of them, and families of words of which a caption contains at most one. All other words are always allowed.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evacap_cli.model.config import LexiconConfig
from evacap_cli.model.tokenizer import Tokenizer

MIN_SHOWN = 0.3
"""Share of a picture that must show a class for `confirmed` to count instead of `confidence`."""

SPEECH = {
    "Speech",
    "Child speech, kid speaking",
    "Conversation",
    "Narration, monologue",
    "Babbling",
    "Speech synthesizer",
}
"""Classes for which `speech` counts instead of `confidence`."""


@lru_cache(maxsize=1)
def audioset_classes() -> tuple[str, ...]:
    """Names of YAMNet's classes, in its order."""
    text = (resources.files("evacap_cli") / "assets" / "audioset_classes.csv").read_text("utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(row["display_name"] for row in rows)


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[str, ...]:
    """Names of ImageNet's 1,000 classes, in timm's order; only the first of several synonyms.

    timm's files are read without importing timm, which takes seconds.
    """
    found = find_spec("timm")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "data" / "_info"
    try:
        lines = (folder / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines()
        synsets = (folder / "imagenet_synsets.txt").read_text("utf-8").split()
    except OSError:  # timm moved them
        from timm.data import ImageNetInfo

        described = ImageNetInfo().label_descriptions()
    else:
        lemmas = dict(line.split("\t", 1) for line in lines)
        described = [lemmas[synset] for synset in synsets]
    return tuple(names.split(",")[0] for names in described)


@lru_cache(maxsize=1)
def packaged_lexicon() -> dict[str, Any]:
    """`words`: the classes that allow each word; `families`: lists of words."""
    return json.loads((resources.files("evacap_cli") / "assets" / "lexicon.json").read_text("utf-8"))


class Lexicon(nn.Module):
    """The packaged lexicon for the words of a tokenizer. Words that the tokenizer splits into pieces are always
    allowed."""

    allowed_by: Tensor
    named: Tensor
    family: Tensor
    speech: Tensor

    def __init__(self, tokenizer: Tokenizer, config: LexiconConfig) -> None:
        super().__init__()
        self.config = config
        words, families = packaged_lexicon()["words"], packaged_lexicon()["families"]
        tokens = {word: _single_token(tokenizer, word) for word in {*words, *chain(*families)}}
        pairs = [(i, token) for word in words if (token := tokens[word]) is not None for i in words[word]]
        allowed_by = torch.zeros(len(audioset_classes()), len(tokenizer))
        named = torch.zeros(len(tokenizer), dtype=torch.bool)
        if pairs:
            allowed_by[tuple(torch.tensor(pairs).T)] = 1
        for word in words:  # also of words that no class allows
            if (token := tokens[word]) is not None:
                named[token] = True
        family = torch.zeros(len(tokenizer), dtype=torch.long)
        for number, members in enumerate(families, start=1):
            for word in members:
                if (token := tokens[word]) is not None:
                    family[token] = number
        self.register_buffer("allowed_by", allowed_by, persistent=False)
        self.register_buffer("named", named, persistent=False)
        self.register_buffer("family", family, persistent=False)
        self.families = int(family.max()) + 1
        spoken = torch.tensor([i for i, name in enumerate(audioset_classes()) if name in SPEECH])
        self.register_buffer("speech", spoken, persistent=False)

    def allowed(self, heard: Tensor, shown: Tensor | None = None) -> Tensor:
        """heard: tags of sounds (B, T_a, 2 + windows). shown: the share of a matching picture that shows each class,
        (B, T_a). Returns the allowed words, bool (B, V)."""
        if not self.config.confidence:
            return torch.ones(len(heard), len(self.named), dtype=torch.bool, device=heard.device)
        best = heard[..., 1:].amax(dim=2)  # of the clip and its windows
        least = torch.full_like(best, _logit(self.config.confidence))
        of_speech = (heard[..., 0].long()[..., None] == self.speech).any(dim=-1)
        least = torch.where(of_speech, _logit(max(self.config.speech, self.config.confidence)), least)
        enough = best >= least
        if shown is not None:
            enough |= (best >= _logit(self.config.confirmed)) & (shown >= MIN_SHOWN)
        classes = heard.new_zeros(len(heard), len(self.allowed_by))
        classes.scatter_(1, heard[..., 0].long(), enough.to(classes.dtype))
        return ~self.named | (classes @ self.allowed_by > 0)

    def rules(self, allowed: Tensor) -> Rules:
        return Rules(allowed, self.family, self.families)


@dataclass(frozen=True)
class Rules:
    """Rules for `BeamSearch`. Forbids words that are not `allowed`, bool (B, V), the last word, and words of a `family`
    that the caption contains already: int64 (V,), 0 for words without a family."""

    allowed: Tensor
    family: Tensor
    families: int
    """The number of families, including 0."""

    def forbidden(self, tokens: Tensor, position: Tensor) -> Tensor:
        """tokens: int64 (B, K, L), chosen up to `position`, int64 (1,), then padding. Returns bool (B, K, V)."""
        named = torch.zeros(*tokens.shape[:2], self.families, dtype=torch.bool, device=tokens.device)
        named.scatter_(2, self.family[tokens], True)
        named[..., 0] = False
        forbidden = named[..., self.family] | ~self.allowed[:, None]
        return forbidden.scatter_(2, tokens.index_select(2, position), True)  # no word twice in a row


def _single_token(tokenizer: Tokenizer, word: str) -> int | None:
    """The id of a word that is a single token; None for others."""
    tokens = tokenizer.encode(word)[1:-1]
    return tokens[0] if len(tokens) == 1 and tokenizer.decode(tokens) == word else None


def _logit(p: float) -> float:
    return math.log(p / (1 - p)) if p > 0 else -math.inf
