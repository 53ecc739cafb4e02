"""CIDEr without Java, for choosing between checkpoints of one run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def quick_cider(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> float:
    """Corpus CIDEr by pycocoevalcap on text lower-cased and stripped of punctuation, in place of the PTB tokenizer.

    candidates: a caption a clip; references: at least one a clip, under the same names. Close to what `score` computes
    but not equal to it: not for tables.
    """
    from pycocoevalcap.cider.cider import Cider

    value, _ = Cider().compute_score(
        {key: [_words(text) for text in references[key]] for key in candidates},
        {key: [_words(text)] for key, text in candidates.items()},
    )
    return float(value)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))
