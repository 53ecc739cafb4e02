"""Decides whether a caption names a sound. The word tables are derived from the wordings of the world's events."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from evacap_cli.world.events import Catalogue

_GRAMMAR = frozenset(
    [
        "a",
        "an",
        "the",
        "is",
        "are",
        "of",
        "on",
        "in",
        "to",
        "over",
        "with",
        "into",
        "it",
        "their",
        "its",
        "up",
        "down",
        "out",
        "off",
        "by",
        "for",
        "as",
        "and",
        "someone",
        "something",
        "person",
        "people",
        "being",
        "goes",
        "plays",
        "play",
        "played",
        "playing",
        "sounds",
        "sounding",
        "runs",
        "run",
        "running",
        "adult",
        "high",
        "large",
        "strong",
        "young",
    ]
)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))


class Naming:
    """A caption names a sound if it has a word or a phrase that occurs only in the wordings of this sound."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.words: dict[str, set[str]] = {}
        for event in catalogue.events:
            said = {
                word
                for wording in (*event.seen, *event.words_unseen)
                for part in wording
                for word in words_of(part)
            }
            self.words.setdefault(event.sound, set()).update(said - _GRAMMAR)
        spread = Counter(word for words in self.words.values() for word in words)
        self.own = {sound: {w for w in words if spread[w] == 1} for sound, words in self.words.items()}
        phrases: dict[str, set[str]] = {}
        for event in catalogue.events:
            for subject, verb, ing in (*event.seen, *event.words_unseen):
                for phrase in (f"{subject} {verb}", f"{subject} {ing}"):
                    phrases.setdefault(phrase, set()).add(event.sound)
        self.phrases = {s: {p for p, owners in phrases.items() if owners == {s}} for s in self.words}
        self.source: dict[str, set[str]] = {}
        """By event, the words that only one member of a family has."""
        families = Counter(event.sound for event in catalogue.events)
        for event in catalogue.events:
            if families[event.sound] < 2:
                continue
            mine = {w for wording in event.seen for part in wording for w in words_of(part)} - _GRAMMAR
            others = {
                w
                for other in catalogue.events
                if other.sound == event.sound and other.name != event.name
                for wording in (*other.seen, *event.unseen)
                for part in wording
                for w in words_of(part)
            }
            self.source[event.name] = mine - others

    def named(self, caption: str, sound: str) -> bool:
        said = words_of(caption)
        return bool(said & self.own[sound]) or any(
            phrase in caption.lower() for phrase in self.phrases[sound]
        )

    def all_named(self, caption: str) -> list[str]:
        return [sound for sound in self.words if self.named(caption, sound)]


def recall_by_class(
    naming: Naming, captions: Sequence[str], truths: Iterable[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """For each sound, the number of clips with it (`clips`) and the share whose caption names it (`recall`)."""
    hits: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for caption, truth in zip(captions, truths, strict=True):
        for sound in truth:
            total[sound] += 1
            hits[sound] += naming.named(caption, sound)
    return {
        sound: {"clips": total[sound], "recall": round(hits[sound] / total[sound], 3)}
        for sound in sorted(total)
    }
