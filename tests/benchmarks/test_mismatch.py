"""The mismatch benchmark: what its numbers mean, and all of it once, tiny, with recordings made up here."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evacap_cli.data.store import Store
from evacap_cli.metrics.statistics import Statistic
from evacap_cli.world import World
from tests.benchmarks.scripts import BENCHMARKS, scripts_of
from tests.metrics.java import hide_java
from tests.model.samples import fresh_model
from tests.tasks.training.colours import Colours

BENCHMARK = BENCHMARKS / "mismatch"
ARMS = ("audio-only", "cross-attention", "entropy-sms-0.05", "evidence")
CATEGORIES = ("baby_cry", "chainsaw", "clock_tick", "dog_bark", "fire_crackling", "helicopter", "person_sneeze", "rain",
              "rooster", "sea_waves")  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    with scripts_of("mismatch") as script:
        yield script


def scored(bench: Any, **by_arm: list[list[tuple[float, float]]]) -> Any:
    """Arms with a metric `share` of (hits, of) for every clip, by seed."""
    made = bench("scores").Scored(
        {(arm, seed): {} for arm, seeds in by_arm.items() for seed in range(len(seeds))}
    )
    for arm, seeds in by_arm.items():
        for seed, rows in enumerate(seeds):
            statistic = Statistic(np.array(rows, np.float64), lambda sums: sums[:, 0] / sums[:, 1])
            made.statistics[arm, seed, "own"] = {"share": statistic}
    return made


def test_a_mean_is_over_seeds_and_its_interval_over_clips_and_seeds(bench: Any) -> None:
    alike = scored(bench, a=[[(1, 2)] * 50] * 3)
    assert alike.mean("a", "own", "share") == (0.5, 0.5, 0.5)
    mean, low, high = scored(bench, a=[[(1, 2)] * 50, [(2, 2)] * 50]).mean("a", "own", "share")
    assert (mean, low, high) == (0.75, 0.5, 1.0), "clips are alike, seeds are not"
    mean, low, high = scored(bench, a=[[(1, 1), (0, 1)] * 50]).mean("a", "own", "share")
    assert mean == 0.5
    assert 0.38 < low < 0.43 < 0.57 < high < 0.62, "two standard errors of 100 coins"


def test_the_kept_share_draws_the_same_clips_for_both_means(bench: Any) -> None:
    rng = np.random.default_rng(0)
    whole = [[(float(hit), 1.0) for hit in rng.integers(0, 2, 80)] for _ in range(3)]
    half = [[(hit / 2, of) for hit, of in seed] for seed in whole]
    found = scored(bench, a=half, b=whole).kept("a", "own", "b", "own", "share")
    assert found == pytest.approx((0.5, 0.5, 0.5)), "clip by clip the half of the other"


@pytest.mark.parametrize(
    ("own", "other", "area"),
    [
        ([2, 3], [0, 1], 1.0),
        ([0, 1], [2, 3], 0.0),
        ([1, 1], [1, 1], 0.5),
        ([0, 2], [1, 1], 0.5),
        ([1, 3], [0, 2], 0.75),
    ],
)
def test_auroc_counts_pairs_in_the_right_order_and_ties_half(
    own: list[float], other: list[float], area: float, bench: Any
) -> None:
    made = bench("scores").Scored({("a", 0): {"own": {"evidence": own}, "unlike": {"evidence": other}}})
    detection = bench("detection")
    found = detection.auroc(made, "a", detection.number("evidence"), np.arange(2), "unlike")
    assert found[0] == area
    turned = detection.auroc(made, "a", detection.number("evidence", sign=-1.0), np.arange(2), "unlike")
    assert turned[0] == 1 - area


def test_a_probability_that_is_right_has_brier_0_and_a_half_a_quarter(bench: Any) -> None:
    def brier(own: list[float], other: list[float]) -> Any:
        numbers = {"own": {"evidence": own}, "any": {"evidence": other}}
        made = bench("scores").Scored({("a", 0): numbers})
        return bench("detection").reliability(made, "a", np.arange(len(own)))

    assert brier([1.0, 1.0], [0.0, 0.0, 0.0])["brier"] == 0
    assert brier([0.5], [0.5, 0.5, 0.5])["brier"] == 0.25
    assert brier([0.9, 0.9], [0.9])["curve"] == [[pytest.approx(0.9), pytest.approx(0.5), 3]], (
        "kinds count alike"
    )


def test_captions_name_only_their_sounds(bench: Any) -> None:
    catalogue = World(0).catalogue
    naming = bench("naming").Naming(catalogue)
    assert not naming.all_named("someone is playing something with the people")
    for event in catalogue.events:
        for subject, verb, ing in event.seen:
            for caption in (f"{subject} {verb}", f"in the distance {subject} {ing} twice"):
                assert event.sound in naming.all_named(caption), caption
    named = {event.name: event for event in catalogue.events if naming.source.get(event.name)}
    assert len(named) > 10, "families of which only the picture tells the member"
    for name, event in named.items():
        words = bench("naming").words_of(" ".join(part for wording in event.seen for part in wording))
        others = [n for n, other in named.items() if other.sound == event.sound and n != name]
        assert naming.source[name] & words
        assert not any(naming.source[other] & words for other in others)


def test_unlike_donors_share_no_label(bench: Any) -> None:
    world = World(5)
    scripts = [world.script(i) for i in range(120)]
    extras = [{"sounds": script.sound_labels, "things": script.object_labels} for script in scripts]
    store = SimpleNamespace(extra=lambda i: extras[i])
    rows = np.arange(10, 120)
    donors = bench("pairs").unlike_donors(store, rows, world.catalogue)
    could = {
        thing: {e.sound for e in world.catalogue.events if e.object == thing}
        for thing in world.object_classes
    }
    for row, donor in zip(rows, donors, strict=True):
        heard, there = set(extras[row]["sounds"]), extras[donor]
        assert donor in rows
        assert donor != row
        assert not heard & set(there["sounds"])
        assert not any(heard & could[thing] for thing in there["things"])
    assert len(set(donors)) > 40, "not always the same"
    assert (donors == bench("pairs").unlike_donors(store, rows, world.catalogue)).all()


def test_patches_have_the_order_of_a_strided_convolution(bench: Any) -> None:
    image = torch.randn(2, 3, 8, 12)
    layer = nn.Conv2d(3, 5, (4, 2), stride=(4, 2), bias=False)
    by_hand = bench("masked").patches_of(image, (4, 2)) @ layer.weight.flatten(1).T
    torch.testing.assert_close(by_hand, layer(image).flatten(2).transpose(1, 2))


def test_hidden_patches_are_not_visible(bench: Any) -> None:
    masked, settings = bench("masked"), bench("pretraining").PretrainSettings()
    encoder = fresh_model("entropy-gate", tag_classes=6).encoder
    trainer = masked.MaskedPretrainer(encoder, 3, settings)
    image, kept = torch.randn(2, 3, 32, 32), torch.tensor([[0], [3]])
    other = torch.where(
        masked.hide(torch.ones_like(image), kept, trainer.patch["v"]) > 0, image, torch.randn(2, 3, 32, 32)
    )
    assert not torch.equal(image, other)
    with torch.no_grad():
        assert torch.equal(trainer.tokens("v", image, kept), trainer.tokens("v", other, kept))
        assert not torch.equal(trainer.tokens("v", image, kept), trainer.tokens("v", image + 1, kept))


def test_hidden_patches_are_reconstructed_from_both_modalities(bench: Any) -> None:
    """The loss of a side depends on the other side's tokens, too, and on every part that is trained."""
    trainer = bench("masked").MaskedPretrainer(
        fresh_model("entropy-gate", tag_classes=6).encoder, 3, bench("pretraining").PretrainSettings()
    )
    pixels = torch.randn(2, 3, 3, 32, 32, requires_grad=True)
    torch.manual_seed(0)
    losses = trainer.rebuild(torch.randn(2, 1, 32, 64), pixels)
    losses["rebuild a"].backward(retain_graph=True)
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    torch.stack(list(losses.values())).sum().backward()
    still = {name for name, p in trainer.named_parameters() if p.grad is None}
    assert still == {
        "scale",
        *(f"encoder.tag_head.{rest}" for rest in ("0.weight", "0.bias", "1.weight", "1.bias")),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Pretrainer", "MaskedPretrainer"])
def test_pretraining_resumes(kind: str, bench: Any, tmp_path: Path) -> None:
    pretraining = bench("pretraining")
    maker = getattr(bench("masked" if kind == "MaskedPretrainer" else "pretraining"), kind)
    data, classes = Colours(24), np.eye(4, dtype=np.float32)[np.arange(24) % 4]
    labels = pretraining.Labels(classes, classes, np.ones(24, bool))

    def weights(folder: str, *until: int) -> dict[str, torch.Tensor]:
        for steps in until:
            torch.manual_seed(0)
            encoder = fresh_model("entropy-gate", tag_classes=8, frames=2).encoder
            settings = pretraining.PretrainSettings(
                steps=steps, batch_size=8, warmup=1000, freq_mask=2, time_mask=4
            )
            pretraining.pretrain(
                maker(encoder, 4, settings), data, labels, settings, tmp_path / folder, save_every=2
            )
        return {k: v.clone() for k, v in encoder.state_dict().items()}

    whole, pieces, begun = weights("whole", 6), weights("pieces", 2, 6), weights("begun", 2)
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)
    assert any(not torch.equal(whole[name], begun[name]) for name in whole)


def recordings(folder: Path) -> Path:
    """A folder in ESC-10's layout: a second of noise of its own colour for every category, one file a fold."""
    (folder / "audio").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for number, category in enumerate(CATEGORIES):
        for fold in (1, 4):
            name = f"{fold}-{number}.wav"
            tone = np.sin(np.arange(16000) * (0.05 + 0.1 * number)) * rng.normal(0.5, 0.2, 16000)
            with wave.open(str(folder / "audio" / name), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes((tone.clip(-1, 1) * 20000).astype("<i2").tobytes())
            rows.append({"file": name, "fold": fold, "category": category, "license": "CC0"})
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "fold", "category", "license"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_benchmark_runs_and_resumes(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process and without Java, but for a last run of the real script."""
    hide_java(monkeypatch, tmp_path)
    given, work = recordings(tmp_path / "recordings"), tmp_path / "work"
    monkeypatch.setattr(bench("measure"), "BEAM", 2)
    monkeypatch.setattr(bench("measure"), "WORDS", 6)
    monkeypatch.setattr(bench("scores"), "ALL", (*bench("scores").QUICK, "BLEU_2"))

    def script(name: str, *options: object) -> None:
        command = [f"{name}.py", "--recordings", given, "--work", work, *options]
        monkeypatch.setattr(sys, "argv", [*map(str, command)])
        bench(name).main()

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in work.rglob("*.safetensors")}

    small = ("--clips", 36, "--scale", 0.0004, "--seeds", 0, "--set", "test")  # one of the clips is dubbed
    script("run", *small, "--workers", 0, "--arms", ",".join(ARMS))
    made = files()
    assert len(made) == len(ARMS) + 1, "the words', too"
    script("run", *small, "--workers", 0, "--arms", ",".join(ARMS))
    assert files() == made, "what is done is not done again"

    said = {path: json.loads(path.read_text()) for path in sorted((work / "said" / "test").glob("*.json"))}
    first, *_, last = said.values()  # audio-only, evidence
    assert first["black"]["captions"] == last["black"]["captions"], "shut, it is the audio-only captioner"
    assert first["black"]["score"] == pytest.approx(last["black"]["score"], abs=1e-4)
    assert first["black"]["score"] != pytest.approx(
        said[work / "said" / "test" / "cross-attention-0.json"]["black"]["score"], abs=1e-4
    )
    store = Store(work / "test")
    # an untrained model says the same of every clip: give the report more to score
    for path, conditions in said.items():
        for number, (condition, one) in enumerate(conditions.items()):
            rows = [row if row % 3 or condition == "own" else row - number for row in one["rows"]]
            one["captions"] = [store.captions(row)[0] for row in rows]
        path.write_text(json.dumps(conditions))
    script("report", "--seeds", 0, "-o", tmp_path / "out")

    found: dict[str, Any] = json.loads((tmp_path / "out" / "results.json").read_text())
    values, kept = found["values"], found["kept"]
    assert set(values) == {*ARMS}
    for arm in ARMS:
        assert values[arm]["shuffled 0"] == {
            name: values[arm]["own"][name] for name in values[arm]["shuffled 0"]
        }
        assert values[arm]["shuffled 1"] == {
            name: values[arm]["any"][name] for name in values[arm]["shuffled 1"]
        }
        if f"own, of {arm}" in kept[arm]:
            assert kept[arm][f"own, of {arm}"]["CIDEr"] == [1, 1, 1]
        assert ("BLEU_2" in values[arm]["any"]) == (arm in ("audio-only", "entropy-sms-0.05", "evidence"))
        assert ("BLEU_2" in values[arm]["own"], "BLEU_2" in values[arm]["half"]) == (True, False)
    assert {"entropy", "gate"} <= set(found["auroc"]["entropy-sms-0.05"])
    assert {"evidence", "cosine", "best", "matcher", "tags"} == set(found["auroc"]["evidence"])
    tables = (tmp_path / "out" / "tables.md").read_text()
    assert all(f"| {arm} |" in tables for arm in ARMS)
    assert (tmp_path / "out" / "mismatch.png").read_bytes().startswith(b"\x89PNG")

    for path in (work / "said" / "test").glob("*.json"):
        if not path.stem.startswith(("audio-only", "cross-attention")):
            path.unlink()
    script("report", "--seeds", 0, "-o", tmp_path / "few")
    tables = (tmp_path / "few" / "tables.md").read_text()
    assert "| cross-attention |" in tables
    assert "evidence |" not in tables

    (work / "arms" / "words-0" / "done.json").unlink()  # work for a process of the script
    command = [sys.executable, BENCHMARK / "run.py", "--recordings", given, "--work", work, *small,
               "--workers", 1, "--arms", "words"]  # fmt: skip
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    assert "words-0: " in done.stdout
    assert (work / "arms" / "words-0" / "done.json").exists()
