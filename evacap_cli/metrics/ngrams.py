"""BLEU, ROUGE_L and CIDEr, computed by pycocoevalcap's Python scorers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evacap_cli.metrics.statistics import Array, Measured, Statistic

_ORDERS = 4
_SMALL, _TINY = 1e-9, 1e-15  # from pycocoevalcap's bleu_scorer.py


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Measured:
    """BLEU_1 to BLEU_4 of tokenized captions, one candidate per clip."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=_ORDERS)
    for candidate, captions in zip(candidates, references, strict=True):
        scorer += (candidate, list(captions))
    corpus, per_clip = scorer.compute_score(option="closest", verbose=0)
    rows = np.array(
        [
            [counts["testlen"], _closest(counts["reflen"], counts["testlen"]), *counts["correct"], *counts["guess"]]
            for counts in scorer.ctest
        ],
        dtype=np.float64,
    )  # fmt: skip
    found = Measured()
    for order in range(1, _ORDERS + 1):
        statistic = Statistic(rows, lambda sums, order=order: bleu_of_sums(sums, order))  # type: ignore[misc]
        found.add(f"BLEU_{order}", corpus[order - 1], np.array(per_clip[order - 1]), statistic)
    return found


def bleu_of_sums(sums: Array, order: int) -> Array:
    """Corpus BLEU (R,) from sums (R, 2 + 8): candidate and closest reference lengths, correct and total n-grams."""
    correct, guessed = sums[:, 2 : 2 + order], sums[:, 2 + _ORDERS : 2 + _ORDERS + order]
    precision = np.prod((correct + _TINY) / (guessed + _SMALL), axis=1) ** (1 / order)
    ratio = (sums[:, 0] + _TINY) / (sums[:, 1] + _SMALL)
    return precision * np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)


def _closest(lengths: Sequence[int], length: int) -> int:
    return min((abs(other - length), other) for other in lengths)[1]


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Measured:
    """ROUGE_L of tokenized captions."""
    from pycocoevalcap.rouge.rouge import Rouge

    gts, res = _as_dicts(candidates, references)
    found = Measured()
    found.add("ROUGE_L", *Rouge().compute_score(gts, res))
    return found


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]], sets: int = 1) -> Measured:
    """CIDEr of tokenized captions. Document frequencies come from `references`; for a single clip CIDEr is 0.

    `sets`: the number of equally long sets in the input, one after another. Each set uses its own document frequencies.
    """
    found = Measured()
    if sets > 1:
        size = len(candidates) // sets
        starts = range(0, len(candidates), size)
        parts = [cider(candidates[i : i + size], references[i : i + size]) for i in starts]
        per_clip = np.concatenate([part.per_clip["CIDEr"] for part in parts])
        found.add("CIDEr", float(per_clip.mean()), per_clip)
        return found
    # pycocoevalcap fails if no reference contains a word
    if not any(text for captions in references for text in captions):
        found.add("CIDEr", 0.0, np.zeros(len(candidates)))
        return found
    from pycocoevalcap.cider.cider import Cider

    gts, res = _as_dicts(candidates, references)
    found.add("CIDEr", *Cider().compute_score(gts, res))
    return found


def _as_dicts(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    return {i: list(captions) for i, captions in enumerate(references)}, {
        i: [candidate] for i, candidate in enumerate(candidates)
    }
