from __future__ import annotations

import random

import pytest

from evacap_cli.metrics.java import Runtime
from evacap_cli.metrics.tokens import plain_tokens, ptb_tokens

from .java import needs_java

KNOWN = {
    "A dog barks.": "a dog barks",
    "A man's voice; it wasn't loud, they can't hear": "a man 's voice it was n't loud they ca n't hear",
    "“Go, go!” (laughter) [noise]": "go go -lrb- laughter -rrb- -lsb- noise -rsb-",
    "Mother-in-law speaks, then vroom...": "mother-in-law speaks then vroom",
    "I cannot, I'm gonna": "i can not i 'm gon na",
    "At 10:30, 1/2 of it": "at 10:30 1/2 of it",
    "": "",
    "...": "",
}
ODD = [
    "two\nlines", "a\r\nb", "bar ||| bar", "😀", "a 😀 dog", "", "   ", "line\u2028end", "x\u0085y\x0bz\x0cw\x00v",
    "\ud83d half", "Etc.", "Dr.", '"quoted', "SCORE ||| a", "-lrb-", "\u200f", "日本語 の 音", "tab\there", "&amp; <b>",
]  # fmt: skip


@needs_java
def test_words_of_both_tokenizers(runtime: Runtime) -> None:
    assert ptb_tokens(runtime, list(KNOWN)) == list(KNOWN.values())
    assert plain_tokens(list(KNOWN)) == list(KNOWN.values())


@pytest.mark.slow
@needs_java
def test_special_characters_do_not_shift_lines(runtime: Runtime) -> None:
    """Each caption keeps its place among others, wherever odd ones stand."""
    draw = random.Random(0)
    captions = []
    for i in range(400):
        captions += [draw.choice(ODD), f"marker{i}"]
    captions += ["", ""]
    for found in (ptb_tokens(runtime, captions), plain_tokens(captions)):
        assert len(found) == len(captions)
        assert [found[i] for i in range(1, 800, 2)] == [f"marker{i}" for i in range(400)]
        assert not any("\n" in text or "|||" in text for text in found)


@pytest.mark.slow
@needs_java
@pytest.mark.parametrize("captions", [[], [""], ["", "a", ""], ["a", "😀"]])
def test_few_captions(runtime: Runtime, captions: list[str]) -> None:
    found = ptb_tokens(runtime, captions)
    assert found == ["a" if text == "a" else "" for text in captions]
