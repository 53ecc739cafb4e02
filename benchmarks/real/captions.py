"""Training captions: AudioCaps' captions with the labels of their clips, and composed captions for other sounds."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import Tensor

from evacap_cli.model import load_preset
from evacap_cli.model.lexicon import SPEECH as SPEECH_CLASSES
from evacap_cli.model.lexicon import audioset_classes, packaged_lexicon

DATA = Path(__file__).with_name("data")
COUNTS = re.compile(
    r"\b(once|twice|thrice|(two|three|four|five|six|several|\d+) times|two|three|four|five|six|\d+)\b"
)
THEN = re.compile(
    r",? (?:and )?(?:followed by|then|before|until)\b|,? (?:and )?(?:later|eventually|finally)\b"
)
AFTER = re.compile(r"^after (.+?), (.+)$|^(.+?) after (.+)$")
SPEECH = "Speech"
RARE_BELOW = 200
"""Number of captions from which a label is drawn like the others; rarer labels get composed captions."""
MAX_WORDS = 18
MUSIC_KINDS = {
    "Music genre", "Music mood", "Music role", "Pop music", "Rock music", "Electronic music", "Traditional music",
    "Music of Asia", "Music of Latin America", "Music of Africa", "Vocal music", "Musical concepts", "Jazz", "Blues",
}  # fmt: skip
UNINTERESTING = {
    "Silence", "White noise", "Pink noise", "Noise", "Environmental noise", "Static", "Cacophony", "Sound effect",
    "Drum machine", "Sampler", "Effects unit", "Synthesizer", "Bass guitar", "Heart murmur", "Heart sounds, heartbeat",
    "Chirp tone", "Sine wave", "Harmonic", "Pulse", "Echo", "Reverberation", "Distortion", "Mains hum", "Throbbing",
    "Cap gun", "Arrow", "Skateboard", "Single-lens reflex camera", "Shuffling cards", "Rimshot",
}  # fmt: skip
JOINED = ("and", "as", "while")
RULES = load_preset("evidence-tags").model.lexicon
CONFIDENCE, CONFIRMED, SPEECH_CONFIDENCE = RULES.confidence, RULES.confirmed, RULES.speech
"""Minimum probability of a named class: in general, if a picture shows it, and for speech."""


def read_yaml(path: Path) -> Any:
    """Reads a YAML table, with the faster LibYAML if it is available."""
    return yaml.load(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@dataclass(frozen=True)
class Event:
    """A sound in a clip: its class, whether the caption names it, and the index of its part of the caption (-1: the
    whole clip)."""

    label: int
    named: bool
    part: int


@dataclass(frozen=True)
class Scene:
    """A caption and the sounds of its clip. parts: number of consecutive parts."""

    caption: str
    events: tuple[Event, ...]
    parts: int
    unsure: bool = False
    """Whether the caption is generic, for sounds that are recognised poorly."""
    tags: Tensor | None = None
    """Tags of a real recording; None to simulate them."""
    shown: bool = False
    """Whether a picture of the scene always shows the sound source."""


def strengths(tags: Tensor) -> dict[int, float]:
    """The maximum probability of each class over the clip and its windows, from tags (heard, 2 + windows)."""
    highest = tags[:, 1:].amax(dim=1).sigmoid()
    return dict(zip(tags[:, 0].int().tolist(), highest.tolist(), strict=True))


class Vocabulary:
    """The lexicon: maps the words of captions to labels."""

    def __init__(self) -> None:
        self.classes = audioset_classes()
        self.place = {name: i for i, name in enumerate(self.classes)}
        lexicon = packaged_lexicon()
        self.labels: dict[str, list[int]] = lexicon["words"]
        self.family = {word: i for i, words in enumerate(lexicon["families"]) for word in words}

        self.speech = {self.place[name] for name in SPEECH_CLASSES}
        self.usual: dict[str, int] = {}
        """The most frequent label of a word, see `learn`."""

    def named(self, text: str) -> list[tuple[str, list[int]]]:
        """The restricted words of a text, each with the labels that allow it."""
        return [(word, found) for word in re.findall(r"[a-z]+", text) if (found := self.labels.get(word))]

    def allows(self, text: str, heard: dict[int, float], shown: bool = False) -> bool:
        """Whether beam search allows all words of a caption. heard: see `strengths`."""
        threshold = CONFIRMED if shown else CONFIDENCE
        return all(
            any(
                heard.get(label, 0.0)
                >= (max(threshold, SPEECH_CONFIDENCE) if label in self.speech else threshold)
                for label in labels
            )
            for _, labels in self.named(text)
        )

    def learn(self, captions: Iterable[tuple[str, set[int]]]) -> None:
        """Computes `usual` from captions and the labels of their clips: the label that occurs with a word much more
        often than with other words. A word without such a label gets the label with the same name."""
        seen, together = Counter[int](), Counter[tuple[str, int]]()
        for text, labels in captions:
            seen.update(labels)
            together.update(
                (word, label) for word, wanted in self.named(text) for label in labels.intersection(wanted)
            )
        best: dict[str, float] = {}
        for (word, label), count in together.items():
            weight = count * count / (seen[label] + 50)
            if count >= 3 and weight > best.get(word, 0.0):
                best[word], self.usual[word] = weight, label
        for word, wanted in self.labels.items():
            stem = word[: max(4, len(word) - 3)]
            called = [label for label in wanted if stem in self.classes[label].lower()]
            if word not in self.usual and called:
                self.usual[word] = min(called, key=lambda label: len(self.classes[label]))

    def repeats_a_sound(self, text: str) -> bool:
        """Whether a caption names the same sound twice."""
        families = [self.family[word] for word in re.findall(r"[a-z]+", text) if word in self.family]
        return len(families) > len(set(families))


def tidy(caption: str) -> str:
    """Converts to lower case, normalises spaces, and removes the final full stop."""
    text = re.sub(r"[^a-z0-9', -]", " ", caption.lower().replace("-", " "))
    return re.sub(r"\s+", " ", text).replace(" ,", ",").strip(" ,")


def parts_of(caption: str) -> list[str]:
    """The clauses of a caption in the order of their sounds."""
    if found := AFTER.match(caption):
        first, second, third, fourth = found.groups()
        return [first, second] if first else [fourth, third]
    return [part for part in THEN.split(caption) if part and part.strip(" ,")]


def scene_of(caption: str, labels: set[int], vocabulary: Vocabulary) -> Scene | None:
    """The scene of a real caption. None if it names no sound, counts, or repeats a sound."""
    caption = tidy(caption)
    if COUNTS.search(caption) or vocabulary.repeats_a_sound(caption) or len(caption.split()) > MAX_WORDS:
        return None
    if any(vocabulary.labels.get(word) == [] for word in re.findall(r"[a-z]+", caption)):
        return None  # no class allows this word
    parts = parts_of(caption)
    events: dict[int, Event] = {}
    for number, part in enumerate(parts):
        where = number if len(parts) > 1 else -1
        for word, wanted in vocabulary.named(part):
            present = [label for label in wanted if label in labels]
            if not present and (usual := vocabulary.usual.get(word)) is not None:
                present = [usual]
            for label in present:
                events.setdefault(label, Event(label, True, where))
    if not events:
        return None
    for label in labels:
        events.setdefault(label, Event(label, False, -1))
    return Scene(caption, tuple(events.values()), len(parts))


def audiocaps(folder: Path, labels_file: Path, split: str, vocabulary: Vocabulary) -> list[list[Scene]]:
    """The scenes of all AudioCaps clips with labels and a usable caption."""
    labels = clip_labels(labels_file, _places(labels_file.with_name("class_labels_indices.csv"), vocabulary))
    with (folder / f"{split}.csv").open(encoding="utf-8") as file:
        rows = [
            ((row["youtube_id"], str(int(float(row["start_time"])))), row["caption"])
            for row in csv.DictReader(file)
        ]
    if not vocabulary.usual:
        vocabulary.learn((tidy(caption), labels[key]) for key, caption in rows if key in labels)
    clips: dict[tuple[str, str], list[Scene]] = {}
    for key, caption in rows:
        if key in labels and (scene := scene_of(caption, labels[key], vocabulary)) is not None:
            clips.setdefault(key, []).append(scene)
    return list(clips.values())


def clip_labels(labels_file: Path, place: dict[str, int]) -> dict[tuple[str, str], set[int]]:
    """AudioSet's classes of clips by (YouTube id, start in seconds)."""
    labels: dict[tuple[str, str], set[int]] = {}
    with gzip.open(labels_file, "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found = {place[mid] for mid in row["mids"].split(",") if mid in place}
            labels[row["youtube_id"], str(int(float(row["start_time"])))] = found
    return labels


def audioset_places(shared: Path, vocabulary: Vocabulary) -> dict[str, int]:
    return _places(shared / "ears" / "class_labels_indices.csv", vocabulary)


def _places(classes: Path, vocabulary: Vocabulary) -> dict[str, int]:
    """Maps AudioSet ids to class indices of the audio network, which has no classes for the sex of a speaker."""
    spoken = {"Male speech, man speaking": SPEECH, "Female speech, woman speaking": SPEECH, "Male singing": "Singing",
              "Female singing": "Singing", "Child singing": "Singing"}  # fmt: skip
    found = {}
    with classes.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = spoken.get(row["display_name"], row["display_name"])
            if name in vocabulary.place:
                found[row["mid"]] = vocabulary.place[name]
    return found


class Composer:
    """Composes captions of labels from hand-written clauses (`data/phrases.yaml`)."""

    def __init__(self, vocabulary: Vocabulary, counts: Counter[int], ontology: Path) -> None:
        """counts: number of captions that name each label. Rare labels are drawn more often."""
        self.vocabulary = vocabulary
        phrases = read_yaml(DATA / "phrases.yaml")
        known = {vocabulary.place[k]: v for k, v in phrases["labels"].items() if k in vocabulary.place}
        self.phrases: dict[int, dict[str, list[str]]] = known
        self.labels = np.array(sorted(known))
        self.parents = _parents(ontology)
        names = [vocabulary.classes[int(i)] for i in self.labels]
        weight = np.array([self.interest(name) for name in names])
        weight /= 1 + np.array([counts[int(i)] for i in self.labels]) / RARE_BELOW
        self.rare = weight / weight.sum()
        common = np.array([float(counts[int(i)]) ** 0.5 for i in self.labels])
        self.common = common / common.sum()
        self.general = phrases["general"]
        self.fits: Callable[[Scene], bool] = lambda scene: True

    def compose(self, rng: np.random.Generator) -> Scene:
        """Composes a scene of one to three sounds, the first a rare one."""
        count = int(rng.choice([1, 2, 3], p=[0.5, 0.4, 0.1]))
        chosen = [int(rng.choice(self.labels, p=self.rare))]
        while len(chosen) < count:
            label = int(rng.choice(self.labels, p=self.common if rng.random() < 0.6 else self.rare))
            if label not in chosen and self.vocabulary.classes[label] not in UNINTERESTING:
                chosen.append(label)
        if (
            count == 1
            and rng.random() < 0.05
            and (family := self.family(self.vocabulary.classes[chosen[0]])) is not None
        ):
            text = str(rng.choice(self.general[family]["alone"]))
            return Scene(text, (Event(chosen[0], True, -1),), 1, unsure=True)
        rng.shuffle(chosen)
        text, part, events = "", 0, []
        for number, label in enumerate(chosen):
            kinds = self.phrases[label]
            if number == 0:
                text = str(rng.choice(kinds["alone"]))
            elif rng.random() < 0.4:
                text += f" followed by {rng.choice(kinds['noun'])}"
                part += 1
            elif rng.random() < 0.15:
                text += f" with {rng.choice(kinds['noun'])} in the background"
            else:
                text += f" {rng.choice(JOINED)} {rng.choice(kinds['alone'])}"
            events.append((label, part))
        scene = Scene(text, tuple(Event(label, True, p if part else -1) for label, p in events), part + 1)
        return scene if self.fits(scene) and not self.vocabulary.repeats_a_sound(text) else self.compose(rng)

    def interest(self, name: str) -> float:
        """Relative sampling weight of a label among equally rare ones. Kinds of music and noise have lower weights,
        because the audio network confuses them and they matter less."""
        rare = name in UNINTERESTING or any(parent in MUSIC_KINDS for parent in self.parents.get(name, []))
        return 0.1 if rare else 1.0

    def family(self, label: str) -> str | None:
        """The nearest family of a label."""
        names, seen = [label], set[str]()
        while names:
            name = names.pop(0)
            if name in self.general:
                return name
            seen.add(name)
            names += [parent for parent in self.parents.get(name, []) if parent not in seen]
        return None


def _parents(ontology: Path) -> dict[str, list[str]]:
    entries: list[dict[str, Any]] = json.loads(ontology.read_text("utf-8"))
    names = {entry["id"]: entry["name"] for entry in entries}
    found: dict[str, list[str]] = {}
    for entry in entries:
        for child in entry["child_ids"]:
            found.setdefault(names[child], []).append(entry["name"])
    return found


class Scenes:
    """The training scenes: real captions, with rare labels oversampled, and composed captions."""

    def __init__(
        self, shared: Path, split: str = "train", composed: float = 0.2, recorded: float = 0.3
    ) -> None:
        """composed, recorded: shares of captions composed for simulated sound, and for real sound (`self.recorded`)."""
        self.vocabulary = Vocabulary()
        ears = shared / "ears"
        self.clips = audiocaps(
            shared / "audiocaps", ears / "audiocaps_audioset_labels.csv.gz", split, self.vocabulary
        )
        self.counts: Counter[int] = Counter()
        for clip in self.clips:
            for scene in clip:
                self.counts.update({event.label for event in scene.events if event.named})
        self.composer = Composer(self.vocabulary, self.counts, ears / "audioset_ontology.json")
        self.composed, self.share = composed, recorded
        self.recorded: Any = None
        """`recorded.Recorded` or None."""

    def keep_whole(self, whole: Callable[[str], bool]) -> None:
        """Drops captions with a restricted word that is not a single token, because it cannot be restricted."""

        def fit(scene: Scene) -> bool:
            return all(whole(word) for word, _ in self.vocabulary.named(scene.caption))

        self.clips = [kept for clip in self.clips if (kept := [scene for scene in clip if fit(scene)])]
        self.composer.fits = fit

    @cached_property
    def _cumulative(self) -> np.ndarray:
        """Cumulative sampling probabilities of the clips, higher for clips with a rare named label."""
        weights = []
        for clip in self.clips:
            rarest = min(self.counts[e.label] for scene in clip for e in scene.events if e.named)
            weights.append(min(4.0, max(0.35, (400 / rarest) ** 0.5)))
        total = np.cumsum(weights)
        return total / total[-1]

    def draw(self, rng: np.random.Generator, picture: bool = False) -> Scene:
        """Draws a scene. picture: whether it will have a picture."""
        kind = rng.random()
        if kind < self.composed:
            return self.composer.compose(rng)
        if kind < self.composed + self.share and self.recorded is not None:
            scene: Scene = self.recorded.draw(rng, picture)
            return scene
        clip = self.clips[int(np.searchsorted(self._cumulative, rng.random()))]
        return clip[int(rng.integers(len(clip)))]
