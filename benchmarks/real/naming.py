"""Decides whether a caption names a sound: it does if one of its words belongs to that sound and to few others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from captions import DATA, Vocabulary, read_yaml

MAX_LABELS = 9
"""Maximum number of labels of a word that still names each of them."""
EXTRA_WORDS = {
    "Cattle, bovinae": ["cow", "moo", "cattle", "bull"], "Moo": ["cow", "moo", "cattle"],
    "Vehicle": ["car", "truck", "vehicle", "engine", "motorcycle"], "Car": ["car", "vehicle", "engine"],
    "Engine": ["engine", "motor"], "Idling": ["engine", "idles", "idling"],
    "Drum": ["drum"], "Drum kit": ["drum"], "Percussion": ["drum", "percussion"],
    "Gunshot, gunfire": ["gun", "shot", "shoot", "rifle"], "Hammer": ["hammer", "bang"],
    "Waterfall": ["waterfall", "water", "rush"], "Water": ["water"], "Stream": ["stream", "water", "river"],
    "Speech": ["speak", "speech", "talk", "says", "voice"], "Cheering": ["cheer", "crowd", "applau"],
    "Ocean": ["ocean", "sea", "wave", "surf"], "Waves, surf": ["ocean", "wave", "surf", "sea"],
    "Tick-tock": ["clock", "tick"], "Clock": ["clock", "tick"], "Fire": ["fire", "crackl"],
    "Chainsaw": ["chainsaw", "saw"], "Wood block": ["wood", "drum", "percussion"],
}  # fmt: skip
"""Word prefixes that name a label, in addition to the phrases."""
VOICES = {
    "Conversation", "Narration, monologue", "Babbling", "Whispering", "Shout", "Singing", "Crowd", "Chatter",
    "Cheering",
}  # fmt: skip
"""Labels other than speech for which a caption may mention speech."""
SPEECH_WORDS = re.compile(
    r"\b(speak|speech|talk|says|voice|conversation|convers|monologue|narrat|announc|chatter|convers)\w*"
)


class Judge:
    """The words that name each label."""

    def __init__(self) -> None:
        vocabulary = Vocabulary()
        phrases = read_yaml(DATA / "phrases.yaml")["labels"]
        words: dict[str, set[str]] = {}
        for label, kinds in phrases.items():
            text = " ".join(kinds["alone"] + kinds["noun"]) + " " + label.lower()
            words[label] = {word for word in re.findall(r"[a-z]+", text) if word in vocabulary.labels}
        spread = Counter(word for found in words.values() for word in found)
        self.words = {
            label: {word for word in found if spread[word] <= MAX_LABELS or word in label.lower()}
            for label, found in words.items()
        }

    def named(self, caption: str, labels: Iterable[str]) -> bool:
        """Whether a caption names one of the labels."""
        words = re.findall(r"[a-z]+", caption.lower())
        for label in labels:
            if any(word in self.words.get(label, ()) for word in words):
                return True
            if any(word.startswith(tuple(EXTRA_WORDS.get(label, ("\0",)))) for word in words):
                return True
        return False


def speaks_of_speech(caption: str) -> bool:
    return bool(SPEECH_WORDS.search(caption.lower()))


def has_speech(labels: Iterable[str]) -> bool:
    """Whether one of the labels is a voice that may be called speech."""
    names = set(labels)
    return any("speech" in name.lower() or "speaking" in name.lower() for name in names) or bool(
        names & VOICES
    )
