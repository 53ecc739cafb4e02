"""METEOR 1.5, computed by pycocoevalcap's jar with the same protocol as in pycocoevalcap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evacap_cli.metrics.java import MetricError, Program, Runtime
from evacap_cli.metrics.spice_files import pycocoevalcap_file
from evacap_cli.metrics.statistics import Array, Measured, Statistic
from evacap_cli.metrics.tokens import one_line

# the jar's parameters for English, http://www.cs.cmu.edu/~alavie/METEOR/
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # of exact, stem, synonym and paraphrase matches
_BAR = "|||"  # separates the fields of a METEOR line


def meteor(runtime: Runtime, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Measured:
    """METEOR of tokenized captions. The corpus value is computed from summed counts; it is not the mean over clips."""
    arguments = [
        "-jar",
        str(pycocoevalcap_file("meteor/meteor-1.5.jar")),
        "-",
        "-",
        "-stdio",
        "-l",
        "en",
        "-norm",
    ]
    # by default, the jar does not find this file if its path contains a space
    arguments += ["-a", str(pycocoevalcap_file("meteor/data/paraphrase-en.gz"))]
    lines = (_score_line(*pair) for pair in zip(candidates, references, strict=True))
    with Program(runtime, "METEOR", arguments, "2G") as program:
        program.send(lines)
        counts = list(program.receive(len(candidates)))
        program.send([f" {_BAR} ".join(["EVAL", *counts])], close=True)
        *per_clip, corpus = map(_number, program.receive(len(candidates) + 1))
    rows = np.array([[_number(number) for number in line.split()] for line in counts])
    whole = (rows[:, 21:23] == rows[:, 0:2]).all(axis=1) & (rows[:, 20] == 1)
    rows[whole, 20] = 0  # as in the jar: a caption that equals its reference has no fragmentation penalty
    found = Measured()
    found.add("METEOR", corpus, np.array(per_clip), Statistic(rows, meteor_of_sums))
    return found


def _score_line(candidate: str, references: Sequence[str]) -> str:
    candidate = one_line(candidate).replace(_BAR, "").replace("  ", " ")
    return f" {_BAR} ".join(["SCORE", *(one_line(text).replace(_BAR, "") for text in references), candidate])


def _number(line: str) -> float:
    try:
        return float(line)
    except ValueError:
        raise MetricError(f"METEOR: the jar returned {line!r} instead of a score") from None


def meteor_of_sums(sums: Array) -> Array:
    """Corpus METEOR (R,) from sums (R, 23) of the counts that the jar prints for each clip.

    The columns are: words and function words of candidate and reference (4); matched content and function words of
    both for each kind of match (4 x 4); chunks (0 for a perfect match) and matched words of both (3).
    """
    words, functions = sums[:, 0:2], sums[:, 2:4]  # (R, 2): candidate, reference
    matched = sums[:, 4:20].reshape(-1, 4, 2, 2)  # (R, kind, content or function, side)
    chunks, matched_words = sums[:, 20], sums[:, 21:23]
    by_kind = _DELTA * matched[:, :, 0] + (1 - _DELTA) * matched[:, :, 1]  # (R, kind, side)
    weighted = (_WEIGHTS[:, None] * by_kind).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = weighted / (_DELTA * (words - functions) + (1 - _DELTA) * functions)
        mean = 1 / ((1 - _ALPHA) / shares[:, 0] + _ALPHA / shares[:, 1])
        fragments = chunks / (matched_words.sum(axis=1) / 2)
        score = mean * (1 - _GAMMA * fragments**_BETA)
    return np.nan_to_num(score, nan=0.0, posinf=0.0, neginf=0.0)
