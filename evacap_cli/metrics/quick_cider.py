"""CIDEr without Java, to select among the checkpoints of one training run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def quick_cider(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> float:
    """Corpus CIDEr by pycocoevalcap on lower-case text without punctuation, without the PTB tokenizer.

    candidates: one caption per clip; references: at least one per clip, under the same keys. The value is close but not
    equal to that of `evacap score`. Do not report it.
    """
    from pycocoevalcap.cider.cider import Cider

    value, _ = Cider().compute_score(
        {key: [_words(text) for text in references[key]] for key in candidates},
        {key: [_words(text)] for key, text in candidates.items()},
    )
    return float(value)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))
