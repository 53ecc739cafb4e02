"""The benchmark that makes the packaged models: captions to scenes, scenes to tags, and what its numbers mean."""

from __future__ import annotations

import json
import re
import sys
import wave
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evacap_cli.features import FeatureSettings
from evacap_cli.model import load_checkpoint
from evacap_cli.model.lexicon import audioset_classes, imagenet_classes, packaged_lexicon
from evacap_cli.tasks.training.settings import TrainSettings
from evacap_cli.tasks.training.validation import sample_captions
from tests.benchmarks.scripts import BENCHMARKS, scripts_of

BENCHMARK = BENCHMARKS / "real"
PLACE = {name: i for i, name in enumerate(audioset_classes())}


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    with scripts_of("real") as script:
        yield script


@pytest.fixture(scope="module")
def vocabulary(bench: Any) -> Any:
    made = bench("captions").Vocabulary()
    made.learn([])
    return made


def labels_of(scene: Any) -> dict[str, tuple[bool, int]]:
    return {audioset_classes()[event.label]: (event.named, event.part) for event in scene.events}


@pytest.mark.parametrize(
    ("caption", "parts"),
    [
        ("a dog barks followed by a man speaking", ["a dog barks", " a man speaking"]),
        ("after a dog barks, a man speaks", ["a dog barks", "a man speaks"]),
        ("a man speaks after a dog barks", ["a dog barks", "a man speaks"]),
        ("rain falls and thunder rumbles", ["rain falls and thunder rumbles"]),
    ],
)
def test_a_caption_is_split_into_consecutive_events(bench: Any, caption: str, parts: list[str]) -> None:
    assert [part.strip() for part in bench("captions").parts_of(caption)] == [part.strip() for part in parts]


def test_a_scene_has_named_and_omitted_sounds(bench: Any, vocabulary: Any) -> None:
    labels = {PLACE["Bark"], PLACE["Dog"], PLACE["Speech"], PLACE["Rain"]}
    scene = bench("captions").scene_of("A dog barks, followed by a man speaking.", labels, vocabulary)
    found = labels_of(scene)
    assert found["Dog"] == (True, 0)
    assert found["Bark"] == (True, 0)
    assert found["Speech"] == (True, 1)
    assert found["Rain"] == (False, -1)
    assert scene.parts == 2


@pytest.mark.parametrize(
    "caption",
    [
        "A dog barks three times",  # counts
        "a dog barks followed by a dog barking",  # says it twice
        "Something happens nearby",  # names nothing that the labels have
        "an elephant is near",  # a word that no class earns
    ],
)
def test_captions_that_teach_invention_are_left_out(bench: Any, vocabulary: Any, caption: str) -> None:
    scene = bench("captions").scene_of(caption, set(), vocabulary)
    assert scene is None or not any(event.named for event in scene.events)


def statistics(bench: Any) -> Any:
    classes, pictures = len(audioset_classes()), len(imagenet_classes())
    relatives = torch.eye(classes)
    relatives[PLACE["Dog"], PLACE["Bark"]] = 0.8
    ties = torch.zeros(classes, pictures)
    ties[PLACE["Dog"], 151:269] = 1
    return bench("simulate").Statistics(
        torch.full((classes,), -9.0), torch.ones(classes), relatives, torch.linspace(0, 3, 9),
        torch.ones(classes) / classes, torch.eye(pictures), ties,
        torch.zeros(pictures).index_fill(0, torch.tensor([834]), 1),
    )  # fmt: skip


def test_simulated_sound_ranks_its_labels_first_in_their_windows(bench: Any) -> None:
    captions, simulate = bench("captions"), bench("simulate")
    simulation = simulate.Simulation(statistics(bench))
    dog, rain = PLACE["Dog"], PLACE["Rain"]
    scene = captions.Scene("", (captions.Event(dog, True, 0), captions.Event(rain, True, 1)), 2)
    tags = simulation.sound([scene] * 200, np.random.default_rng(0))
    assert tags.shape == (200, 12, 7)
    best = [set(row[:4, 0].long().tolist()) for row in tags]
    assert np.mean([{dog, rain} <= found for found in best]) > 0.6
    early = []
    for row in tags:
        places = {int(tag[0]): tag for tag in row}
        if dog in places and rain in places:
            early += [
                places[dog][2] - places[dog][-1] > 0 and places[rain][2] - places[rain][-1] < 0,
            ]
    assert np.mean(early) > 0.9  # the dog fades, the rain comes
    barks = np.mean([PLACE["Bark"] in row[:, 0].long().tolist() for row in tags])
    assert barks > 0.9  # its relative rises with it


def test_simulated_pictures_show_sounding_objects(bench: Any) -> None:
    captions, simulate = bench("captions"), bench("simulate")
    simulation = simulate.Simulation(statistics(bench))
    scene = captions.Scene("", (captions.Event(PLACE["Dog"], True, -1),), 1)
    tags = simulation.picture([scene] * 200, np.random.default_rng(0))
    assert tags.shape == (200, 8, 3)
    shown = [(151 <= int(row[0, 0]) < 269) for row in tags]
    assert 0.5 < np.mean(shown) < 0.95  # at times it is out of sight
    assert torch.allclose(tags[..., 2].amax(dim=1), tags[:, 0, 2])


def test_training_captions_samples_of_fixed_clips(bench: Any) -> None:
    """As at the end of each epoch of `arms.py`."""
    captions, simulate, demo = bench("captions"), bench("simulate"), load_checkpoint("demo")
    scene = captions.Scene("a dog barks", (captions.Event(PLACE["Dog"], True, 0),), 1)
    features = FeatureSettings.from_dict(demo.features)
    clips = simulate.FixedClips([[scene]] * 3, simulate.Simulation(statistics(bench)), features, True)
    found = sample_captions(demo.model, demo.tokenizer, clips, TrainSettings(), None)
    assert len({sample["clip"] for sample in found}) == 3
    for sample in found:
        assert sample["reference"] == "a dog barks"
        assert "dog" in sample["caption"]
        assert 0 <= sample["gate"] <= 1


def test_the_same_clip_is_drawn_the_same_way(bench: Any) -> None:
    simulate = bench("simulate")

    class Scenes:
        def draw(self, rng: np.random.Generator, picture: bool) -> Any:
            captions = bench("captions")
            label = int(rng.integers(100))
            return captions.Scene(f"sound {label}", (captions.Event(label, True, -1),), 1)

    clips = simulate.SimulatedClips(Scenes(), simulate.Simulation(statistics(bench)), None, 50, True)
    again = simulate.SimulatedClips(Scenes(), simulate.Simulation(statistics(bench)), None, 50, True)
    draw = bench("simulate").Augmentation((3, 1))
    first, second = clips.batch([4, 9], draw), again.batch([4, 9], draw)
    assert first.captions == second.captions
    assert torch.equal(first.audio, second.audio)
    assert torch.equal(first.picture, second.picture)
    assert clips.batch([4, 9], simulate.Augmentation((3, 2))).captions != first.captions


def tags_of(**heard: float) -> torch.Tensor:
    """Tags of a sound in which the ear gives classes the named probabilities all the time, and others none."""
    tags = torch.full((12, 7), -12.0)
    tags[:, 0] = torch.arange(500, 512)
    for row, (name, p) in enumerate(heard.items()):
        tags[row, 0] = PLACE[name.replace("_", " ")]
        tags[row, 1:] = torch.tensor(p).logit()
    return tags


@pytest.fixture(scope="module")
def composer(bench: Any, vocabulary: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    ontology = tmp_path_factory.mktemp("ontology") / "ontology.json"
    kinds = {"Animal": ["Dog"], "Dog": ["Bark"], "Bark": [], "Rain": [], "Speech": []}
    ontology.write_text(json.dumps([{"id": k, "name": k, "child_ids": v} for k, v in kinds.items()]))
    return bench("captions").Composer(vocabulary, Counter(range(521)), ontology)


def test_words_are_earned_by_audible_classes(bench: Any, vocabulary: Any) -> None:
    heard = bench("captions").strengths(tags_of(Dog=0.2, Speech=0.2, Rain=0.05))
    assert heard[PLACE["Dog"]] == pytest.approx(0.2)
    assert vocabulary.allows("a dog barks", heard)
    assert not vocabulary.allows("a dog barks as rain falls", heard)
    assert vocabulary.allows("a dog barks as rain falls", heard, shown=True)
    assert not vocabulary.allows("a man speaks", heard)  # the ear suspects speech everywhere


def described(bench: Any, composer: Any, tags: torch.Tensor, *sounds: Any, shown: bool = False) -> list[Any]:
    recorded = bench("recorded")
    clip, rng = recorded.Clip(tags, sounds), np.random.default_rng(0)
    drawer = recorded.Recorded([clip], composer)
    return [drawer.describe(clip, rng, shown) for _ in range(30)]


@pytest.mark.slow
def test_confident_sounds_are_named_and_others_described_in_general_words(bench: Any, composer: Any) -> None:
    dog = bench("soundscapes").Sound(("Bark", "Dog", "Animal"))
    judge = bench("naming").Judge()
    for scene in described(bench, composer, tags_of(Bark=0.4, Dog=0.5, Animal=0.6), dog):
        assert judge.named(scene.caption, ["Bark", "Dog"])
        assert scene.parts == 1
    for scene in described(bench, composer, tags_of(Animal=0.6, Dog=0.05, Growling=0.05), dog):
        assert "animal" in scene.caption
        assert not re.search("dog|bark|growl", scene.caption)
    assert described(bench, composer, tags_of(Rain=0.9), dog) == [None] * 30  # nothing of it was heard
    faint = described(bench, composer, tags_of(Dog=0.05), dog, shown=True)
    assert all(judge.named(scene.caption, ["Dog"]) for scene in faint)


def test_sounds_are_described_by_order_and_loudness(bench: Any, composer: Any) -> None:
    sound = bench("soundscapes").Sound
    tags = tags_of(Dog=0.6, Rain=0.8)
    for scene in described(bench, composer, tags, sound(("Rain",), part=1), sound(("Dog",), part=0)):
        assert re.fullmatch("(?=.*(dog|dogs) .*).* followed by .*rain.*", scene.caption), scene.caption
        assert [event.part for event in scene.events] == [0, 1]
    behind = described(bench, composer, tags, sound(("Dog",), 0.2), sound(("Rain",), 1.0))
    assert any(scene.caption.endswith("in the background") for scene in behind)
    assert all(scene.caption.index("rain") < scene.caption.index("dog") for scene in behind)


def test_sources_are_split_into_balanced_groups(bench: Any) -> None:
    recordings = [
        bench("soundscapes").Recording(f"{source}/{i}", source, "train", ())
        for source, count in {"a": 10, "b": 6, "c": 5, "d": 4}.items()
        for i in range(count)
    ]
    group = bench("soundscapes").groups_of(recordings, 2)
    assert group["a"] == group["d"] != group["b"] == group["c"]


@pytest.mark.slow
def test_a_clip_lists_its_sounds(bench: Any, tmp_path: Path) -> None:
    scapes = bench("soundscapes")
    for name, hertz in (("low", 200), ("high", 2000)):
        tone = np.sin(2 * np.pi * hertz * np.arange(32000) / 32000)
        soundfile(tmp_path / f"{name}.wav", (tone * 20000).astype(np.int16))
    made = scapes.Soundscapes(
        [
            scapes.Recording(str(tmp_path / f"{name}.wav"), "made", "train", (name,))
            for name in ("low", "high")
        ],
        0,
    )
    clips = [made.make(i) for i in range(60)]
    assert all(clip.shape == (320_000,) and np.abs(clip).max() <= 1 for clip, _ in clips)
    assert {label for _, sounds in clips for label in scapes.labels_of(sounds)} >= {"low", "high", "Silence"}
    assert max(sound.part for _, sounds in clips for sound in sounds) >= 1
    assert all(max(sound.level for sound in sounds) == 1 for _, sounds in clips)
    again, sounds = made.make(7)
    assert np.array_equal(again, clips[7][0])
    assert sounds == clips[7][1]


def soundfile(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(32000)
        file.writeframes(samples.tobytes())


def test_captions_that_name_a_sound(bench: Any) -> None:
    judge = bench("naming").Judge()
    assert judge.named("a dog barks loudly", ["Dog"])
    assert judge.named("a harp is being played", ["Harp"])
    assert not judge.named("music is playing", ["Harp"])
    assert not judge.named("an animal calls", ["Dog"])
    assert not judge.named("", ["Dog"])
    spoken = bench("naming").speaks_of_speech
    assert spoken("a man is speaking")
    assert bench("naming").has_speech(["Male speech, man speaking"])
    assert not bench("naming").has_speech(["Dog"])


def test_auroc_is_the_probability_of_the_right_order(bench: Any) -> None:
    auroc = bench("measure").auroc
    assert auroc([2, 3], [0, 1]) == 1
    assert auroc([0, 1], [2, 3]) == 0
    assert auroc([1, 1], [1, 1]) == 0.5
    assert auroc([0, 2], [1]) == 0.5


def test_other_pictures_are_of_other_sounds(bench: Any) -> None:
    labels = [["Dog", "Bark"], ["Dog"], ["Rain"], ["Rain", "Water"], ["Harp"]]
    for seed in range(20):
        donors = bench("measure").unlike(labels, np.random.default_rng(seed))
        assert all(not set(labels[i]) & set(labels[donor]) for i, donor in enumerate(donors))


def test_pairs_use_no_file_twice_while_there_are_others(bench: Any) -> None:
    rows = [
        {"sound_path": f"s{i}", "photo_path": f"p{j}", "label": label}
        for label, sounds, photos in (("Dog", range(3), range(2)), ("Cat", range(10, 11), range(10, 13)))
        for i in sounds
        for j in photos
    ]
    chosen = bench("run").choose_pairs(rows, limit=2)
    assert sorted(row["label"] for row in chosen) == ["Cat", "Dog", "Dog"]
    for side in ("sound_path", "photo_path"):
        assert len({row[side] for row in chosen}) == len(chosen)
    more = bench("run").choose_pairs(rows, limit=9)
    assert len(more) == len({row["sound_path"] for row in more}) == 4  # a photograph may serve two


@pytest.mark.slow
def test_the_packaged_lexicon_is_that_of_the_table(bench: Any, tmp_path: Path) -> None:
    bench("lexicon").write_lexicon(
        BENCHMARK / "data" / "lexicon.yaml", audioset_classes(), tmp_path / "lexicon.json"
    )
    packaged = Path(sys.modules["evacap_cli"].__file__ or "").parent / "assets" / "lexicon.json"
    assert (tmp_path / "lexicon.json").read_text() == packaged.read_text()
    assert packaged_lexicon()["words"]["dog"]


@pytest.mark.slow
def test_phrases_are_of_known_classes_and_name_them(bench: Any) -> None:
    phrases = bench("captions").read_yaml(BENCHMARK / "data" / "phrases.yaml")
    unknown = [name for name in phrases["labels"] if name not in PLACE]
    assert len(phrases["labels"]) - len(unknown) > 500  # the others are classes that YAMNet has not
    judge = bench("naming").Judge()
    for name in ("Harp", "Cattle, bovinae", "Chainsaw", "Crying, sobbing", "Church bell"):
        assert all(judge.named(text, [name]) for text in phrases["labels"][name]["alone"][:1])
