"""Caption tokenization for all metrics: lower case, Penn Treebank tokens, without punctuation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evacap_cli.metrics.java import MetricError, Program, Runtime
from evacap_cli.metrics.spice_files import pycocoevalcap_file

# the tokens that pycocoevalcap's PTBTokenizer drops, https://github.com/salaniz/pycocoevalcap
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
# control characters and everything that some program treats as a line break
_BREAKS = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")

_CONTRACTIONS = re.compile(r"(?<=\w)('s|'m|'d|'re|'ve|'ll|n't)(?![\w'])")
_DOUBLES = re.compile(r"\b(can)(not)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b|\b(gim|lem)(me)\b")
_ABBREVIATION = r"(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|prof|inc|co|ltd|no|[a-z](?:\.[a-z])+|[a-z])\."
_WORD = re.compile(
    rf"""(?:{_ABBREVIATION}(?=\s|$))|\d+(?:[.,:/]\d+)+|n't|'(?:s|m|d|re|ve|ll)\b|\.\.+|--+"""
    r"""|\w+(?:[-'&/.]\w+)*|[^\w\s]""",
    re.VERBOSE,
)
_UNKNOWN = re.compile("[\U00010000-\U0010ffff\ud800-\udfff]")  # emoji etc.; CoreNLP also drops them
_QUOTES = str.maketrans({"\u2018": "`", "\u2019": "'", "\u201c": "`", "\u201d": "`"})
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}


def one_line(text: str) -> str:
    """Replaces every character of `text` that may end a line by a space."""
    return _BREAKS.sub(" ", text)


def ptb_tokens(runtime: Runtime, captions: Sequence[str]) -> list[str]:
    """Tokenizes captions with CoreNLP 3.4.1 and the rules of pycocoevalcap. Returns space-separated tokens.

    As in pycocoevalcap, all captions are one input in order, because the tokens of a line can depend on the next line.
    """
    if not captions:
        return []
    jar = pycocoevalcap_file("tokenizer/stanford-corenlp-3.4.1.jar")
    program = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    with Program(runtime, "PTB tokenizer", program, "256M") as tokenizer:
        tokenizer.send(map(one_line, captions), close=True)
        lines = list(tokenizer.receive())
    while lines and not lines[-1].strip() and len(lines) > len(captions):
        lines.pop()
    lines += [""] * (len(captions) - len(lines) if not any(map(str.strip, captions[len(lines) :])) else 0)
    if len(lines) != len(captions):
        raise MetricError(f"PTB tokenizer: returned {len(lines)} lines for {len(captions)} captions")
    return [_without_punctuation(line.rstrip().split(" ")) for line in lines]


def plain_tokens(captions: Sequence[str]) -> list[str]:
    """Approximates `ptb_tokens` without Java. Most AudioCaps captions get the same tokens, but metrics computed with it
    can differ slightly from published ones."""
    return [_without_punctuation(_plain(one_line(caption))) for caption in captions]


def _plain(text: str) -> list[str]:
    text = _UNKNOWN.sub("", text.lower().translate(_QUOTES))
    text = _CONTRACTIONS.sub(r" \1", text)
    text = _DOUBLES.sub(lambda found: " ".join(filter(None, found.groups())), text)
    return [_BRACKETS.get(word, "..." if set(word) == {"."} and len(word) > 1 else word)
            for word in _WORD.findall(text)]  # fmt: skip


def _without_punctuation(words: Sequence[str]) -> str:
    return " ".join(word for word in words if word not in PUNCTUATION)
