"""Captions as the words that all metrics compare: lower case, split as the Penn Treebank does, without punctuation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evacap_cli.metrics.java import MetricError, Program, Runtime
from evacap_cli.metrics.parts import pycocoevalcap_file

# what pycocoevalcap's PTBTokenizer drops, https://github.com/salaniz/pycocoevalcap
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
_BREAKS = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]"
)  # ends of lines for some program, and controls

_CONTRACTIONS = re.compile(r"(?<=\w)('s|'m|'d|'re|'ve|'ll|n't)(?![\w'])")
_DOUBLES = re.compile(r"\b(can)(not)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b|\b(gim|lem)(me)\b")
_ABBREVIATION = r"(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|prof|inc|co|ltd|no|[a-z](?:\.[a-z])+|[a-z])\."
_WORD = re.compile(
    rf"""(?:{_ABBREVIATION}(?=\s|$))|\d+(?:[.,:/]\d+)+|n't|'(?:s|m|d|re|ve|ll)\b|\.\.+|--+"""
    r"""|\w+(?:[-'&/.]\w+)*|[^\w\s]""",
    re.VERBOSE,
)
_UNKNOWN = re.compile("[\U00010000-\U0010ffff\ud800-\udfff]")  # emoji and the like, which CoreNLP drops, too
_QUOTES = str.maketrans({"\u2018": "`", "\u2019": "'", "\u201c": "`", "\u201d": "`"})
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}


def one_line(text: str) -> str:
    """`text` with spaces for whatever could end a line. Nothing else is changed."""
    return _BREAKS.sub(" ", text)


def ptb_tokens(runtime: Runtime, captions: Sequence[str]) -> list[str]:
    """Each caption as words with spaces between them, by the tokenizer (CoreNLP 3.4.1) and the rules of pycocoevalcap.

    Captions go in together and in order, as they do there: now and then a line's words depend on the next line.
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
        raise MetricError(f"PTB tokenizer: {len(lines)} lines came back for {len(captions)} captions")
    return [_without_punctuation(line.rstrip().split(" ")) for line in lines]


def plain_tokens(captions: Sequence[str]) -> list[str]:
    """The same without Java, for where there is none. Of AudioCaps' captions nearly all become the same words; numbers
    that rest on it are not to be compared with published ones to the last digit."""
    return [_without_punctuation(_plain(one_line(caption))) for caption in captions]


def _plain(text: str) -> list[str]:
    text = _UNKNOWN.sub("", text.lower().translate(_QUOTES))
    text = _CONTRACTIONS.sub(r" \1", text)
    text = _DOUBLES.sub(lambda found: " ".join(filter(None, found.groups())), text)
    return [_BRACKETS.get(word, "..." if set(word) == {"."} and len(word) > 1 else word)
            for word in _WORD.findall(text)]  # fmt: skip


def _without_punctuation(words: Sequence[str]) -> str:
    return " ".join(word for word in words if word not in PUNCTUATION)
