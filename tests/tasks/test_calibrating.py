"""`evacap weights calibrate`, on stores of noise and models of random weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load, load_file

from evacap_cli.data.store import Sample, Store, write_store
from evacap_cli.model import load_checkpoint, packaged_models, resolve_model, save_checkpoint
from evacap_cli.tasks import calibrating
from evacap_cli.tasks.calibrating import DONORS, card_section, with_section
from evacap_cli.tasks.mismatch import Calibration, fit, probability
from evacap_cli.tasks.pairing import Pairing
from evacap_cli.tasks.store_captioner import Captions, InferenceOptions, StoreCaptioner

from ..conftest import Evacap
from ..data.toys import Toy
from .noise import FEATURES, checkpoint, pictures

CLIPS, BLIND, DUBBED = 40, 7, 11


def make(toy: Toy) -> Sample:
    """Noise; one clip has no picture, and one is known to be dubbed."""
    number = int(toy.key.split("-")[1])
    rng = np.random.default_rng(number)
    frames = pictures(rng)
    extra = {"kind": "dubbed" if number == DUBBED else "matched"}
    heard = rng.standard_normal((64, 32)).astype(np.float32)
    return Sample(heard, None if number == BLIND else frames, end=10.0, extra=extra)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrating") / "noise.store"
    write_store(folder, [Toy(f"clip-{i}", ("a dog",)) for i in range(CLIPS)], make, FEATURES, frames_format="raw",
                workers=0)  # fmt: skip
    return folder


def saved(folder: Path, fusion: str = "entropy-gate") -> Path:
    toy = checkpoint(fusion)
    save_checkpoint(folder / "toy", toy.model, toy.tokenizer, toy.features, {"about": "a toy", "step": 3})
    return folder / "toy"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_only_config_and_card_change(evacap: Evacap, store: Path, tmp_path: Path) -> None:
    model = saved(tmp_path)
    before = files_of(model)
    result = evacap("weights", "calibrate", model, "--data", store, "--about", "forty of noise", "--json")
    assert result.exit_code == 0, result.output
    inputs_of = json.loads(result.stdout)
    after = files_of(model)
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == {"config.yaml", "README.md"}
    config, older = (yaml.safe_load(files["config.yaml"]) for files in (after, before))
    note = config["metadata"].pop("mismatch")
    assert config == older
    assert set(note) == {
        "method", "inputs", "weights", "bias", "prior", "auroc", "auroc_interval", "brier", "reliability", "clips",
        "pairs", "data", "date",
    }  # fmt: skip
    assert note["inputs"] == ["gate", "entropy"]
    # neither the blind clip nor the dubbed one has a picture of its own; as a donor, only the blind one lacks one
    assert (note["clips"], note["pairs"]) == (CLIPS - 2, DONORS * (CLIPS - 1))
    assert note["auroc"] == inputs_of["auroc"]
    assert note["auroc_interval"][0] <= note["auroc"] <= note["auroc_interval"][1]
    assert note["data"].startswith("forty of noise (store ")
    card = after["README.md"].decode()
    assert card.startswith(before["README.md"].decode().rstrip())
    assert f"AUROC {note['auroc']:.3f}" in card
    assert "forty of noise" in card
    assert note["method"] in " ".join(card.split())


@pytest.mark.slow
def test_it_is_fitted_to_the_outputs_of_the_model(evacap: Evacap, store: Path, tmp_path: Path) -> None:
    model = saved(tmp_path)
    assert evacap("weights", "calibrate", model, "--data", store, "-q", "--seed", 5).exit_code == 0
    own = load_checkpoint(model)
    seeds = np.random.default_rng(5).choice(CLIPS - 1, DONORS, replace=False)
    pairings = [Pairing.draw(CLIPS, int(seed)) for seed in seeds]
    kept = Store(store)
    alone, mixed = StoreCaptioner(
        own, kept, InferenceOptions(beam=2, max_words=5, batch_size=7)
    ).caption_paired(pairings)

    def inputs_of(captions: object) -> np.ndarray:
        values = np.column_stack([captions.gate, captions.entropy])
        values[captions.gate == 0] = np.nan
        return values

    matched = inputs_of(alone)
    matched[DUBBED] = np.nan
    found = fit(matched, np.stack(list(map(inputs_of, mixed))), seed=5)
    calibration = Calibration.of(own)
    assert calibration is not None
    assert calibration.weights == pytest.approx(found.calibration.weights, rel=1e-3)
    assert calibration.bias == pytest.approx(found.calibration.bias, rel=1e-3)
    gate, entropy = float(alone.gate[0]), float(alone.entropy[0])
    assert probability(own, gate, entropy) == pytest.approx(
        found.calibration.probability({"gate": gate, "entropy": entropy}), abs=1e-4
    )
    first = files_of(model)["config.yaml"]
    assert evacap("weights", "calibrate", model, "--data", store, "-q", "--seed", 5).exit_code == 0
    assert files_of(model)["config.yaml"] == first


def test_a_gate_without_entropy_is_one_input(evacap: Evacap, store: Path, tmp_path: Path) -> None:
    model = saved(tmp_path, "gate")
    result = evacap("weights", "calibrate", model, "--data", store)
    assert result.exit_code == 0, result.output
    assert "AUROC" in result.stderr
    assert "observed share of mismatches" in result.stdout
    own = load_checkpoint(model)
    assert own.metadata["mismatch"]["inputs"] == ["gate"]
    assert 0 < probability(own, 0.5, None) < 1
    assert probability(own, 0.0, None) is None  # no picture


def heard_and_seen(path: Path, store: Path, seed: int = 0) -> tuple[Captions, list[Captions]]:
    """What a checkpoint says of each clip with its own picture and with the donors'."""
    seeds = np.random.default_rng(seed).choice(CLIPS - 1, DONORS, replace=False)
    how = InferenceOptions(beam=1, max_words=3, batch_size=16)
    pairings = [Pairing.draw(CLIPS, int(each)) for each in seeds]
    return StoreCaptioner(load_checkpoint(path), Store(store), how).caption_paired(pairings)


def assert_goes_by_its_calibration(path: Path, store: Path, tolerance: float = 1e-5) -> None:
    """The evidence is that of a match where the calibration tells of a mismatch, of the same cues."""
    own = load_checkpoint(path)
    calibration = Calibration.of(own)
    assert calibration is not None
    evidence = own.model.fusion.evidence
    assert evidence.weights.tolist() == pytest.approx([-w for w in calibration.weights], rel=10 * tolerance)
    assert evidence.bias.item() == pytest.approx(-calibration.bias, rel=10 * tolerance)
    own_pictures, others = heard_and_seen(path, store)
    for captions in (own_pictures, *others):
        for clip in range(CLIPS):
            numbers = {name: float(values[clip]) for name, values in captions.cues.items()}
            mismatch = calibration.probability(numbers)
            if mismatch is None:
                assert np.isnan(captions.evidence[clip])
                assert captions.gate[clip] == 0
            else:
                assert captions.evidence[clip] == pytest.approx(1 - mismatch, abs=10 * tolerance)
                assert captions.gate[clip] == (captions.evidence[clip] >= 0.5)
    assert np.nanstd(own_pictures.evidence) > 0.01  # else a wrong sign would not be seen
    assert abs(np.nanmean(own_pictures.evidence - 0.5)) > 20 * tolerance


@pytest.mark.slow
def test_a_switch_uses_the_calibration(evacap: Evacap, store: Path, tmp_path: Path) -> None:
    model = saved(tmp_path, "evidence")
    before = files_of(model)
    own, mixed = heard_and_seen(model, store)
    assert evacap("weights", "calibrate", model, "--data", store, "-q").exit_code == 0
    after = files_of(model)
    assert {name for name in after if after[name] != before[name]} == {
        "config.yaml", "README.md", "model.safetensors",
    }  # fmt: skip
    assert after.keys() == before.keys()
    was, now = (load(files["model.safetensors"]) for files in (before, after))
    changed = {name for name in now if not torch.equal(now[name], was[name])}
    assert changed == {"fusion.evidence.weights", "fusion.evidence.bias"}
    assert now.keys() == was.keys()

    def inputs_of(captions: Captions) -> np.ndarray:
        return np.column_stack(list(captions.cues.values()))

    matched = inputs_of(own)
    matched[DUBBED] = np.nan
    found = fit(matched, np.stack(list(map(inputs_of, mixed)))).calibration
    note = load_checkpoint(model).metadata["mismatch"]
    assert note["inputs"] == ["cosine", "best", "matcher"]
    assert note["weights"] == pytest.approx(found.weights, rel=1e-3)
    assert note["bias"] == pytest.approx(found.bias, rel=1e-3)
    assert (note["clips"], note["pairs"]) == (CLIPS - 2, DONORS * (CLIPS - 1))
    assert "Inputs: cosine, best, matcher of a clip." in " ".join(after["README.md"].decode().split())
    assert_goes_by_its_calibration(model, store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy"]  # nothing is left beside it
    assert evacap("weights", "calibrate", model, "--data", store, "-q").exit_code == 0
    assert load_checkpoint(model).metadata["mismatch"] == note  # of the cues, which are what they were


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_switch_in_one_file(precision: str, evacap: Evacap, store: Path, tmp_path: Path) -> None:
    model, one = saved(tmp_path, "evidence"), tmp_path / "one.safetensors"
    assert evacap("weights", "export", model, "-o", one, "--precision", precision, "-q").exit_code == 0
    before = load_file(one)
    assert evacap("weights", "calibrate", one, "--data", store, "-q").exit_code == 0
    after = load_file(one)
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"fusion.evidence.weights", "fusion.evidence.bias"}
    assert_goes_by_its_calibration(one, store)


@pytest.mark.slow
def test_a_copy_of_a_switch(evacap: Evacap, store: Path, tmp_path: Path) -> None:
    model, out = saved(tmp_path, "evidence"), tmp_path / "copy"
    before = files_of(model)
    assert evacap("weights", "calibrate", model, "--data", store, "-o", out, "-q").exit_code == 0
    assert files_of(model) == before
    assert_goes_by_its_calibration(out, store)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "single"),
    [("save_file", True), ("save_file", False), ("with_section", False), ("atomic._replace_folder", False)],
)
def test_a_switch_is_calibrated_completely_or_not_at_all(
    act: str, single: bool, evacap: Evacap, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails while weights are written, which is all of a single file, after they are, or at the very end."""
    model = saved(tmp_path, "evidence")
    if single:
        evacap("weights", "export", model, "-o", tmp_path / "one.safetensors", "-q")
        model = tmp_path / "one.safetensors"

    def content() -> dict[str, bytes]:
        return {model.name: model.read_bytes()} if single else files_of(model)

    def fails(*given: object) -> None:
        if act == "save_file":
            Path(given[1]).write_bytes(b"half")  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    before = content()
    monkeypatch.setattr(f"evacap_cli.{act}" if "." in act else f"evacap_cli.tasks.calibrating.{act}", fails)
    result = evacap("weights", "calibrate", model, "--data", store)
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert content() == before
    monkeypatch.undo()
    assert evacap("weights", "calibrate", model, "--data", store, "-q").exit_code == 0
    assert_goes_by_its_calibration(model, store)


@pytest.mark.parametrize("fusion", ["concat", "audio-only", "cross-attention"])
def test_models_without_a_gate_are_refused(fusion: str, evacap: Evacap, store: Path, tmp_path: Path) -> None:
    model = saved(tmp_path, fusion)
    before = files_of(model)
    result = evacap("weights", "calibrate", model, "--data", store)
    assert result.exit_code == 2
    assert "has no gate" in result.stderr
    assert files_of(model) == before


@pytest.mark.slow
def test_a_copy(evacap: Evacap, store: Path, tmp_path: Path) -> None:
    model, out = saved(tmp_path), tmp_path / "copy"
    before = files_of(model)
    assert evacap("weights", "calibrate", model, "--data", store, "-o", out, "-q").exit_code == 0
    assert files_of(model) == before
    assert (out / "model.safetensors").read_bytes() == before["model.safetensors"]
    assert "mismatch" in load_checkpoint(out).metadata
    again = evacap("weights", "calibrate", model, "--data", store, "-o", out)
    assert again.exit_code == 2
    assert "already exists" in again.stderr
    assert (
        evacap("weights", "calibrate", model, "--data", store, "-o", out, "--overwrite", "-q").exit_code == 0
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "toy"]


@pytest.mark.slow
def test_one_file(evacap: Evacap, store: Path, tmp_path: Path) -> None:
    model, one = saved(tmp_path), tmp_path / "one.safetensors"
    assert evacap("weights", "export", model, "-o", one, "--precision", "fp16", "-q").exit_code == 0
    before = load_file(one)
    assert evacap("weights", "calibrate", one, "--data", store, "-q").exit_code == 0
    after = load_file(one)
    assert all(
        torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items()
    )
    assert after.keys() == before.keys()
    own = load_checkpoint(one)
    assert own.metadata["about"] == "a toy"
    assert probability(own, 0.5, 0.5) is not None
    result = evacap("weights", "calibrate", one, "--data", store, "-o", tmp_path / "folder")
    assert result.exit_code == 2
    assert "use the suffix .safetensors" in result.stderr


@pytest.mark.slow
def test_unwritable_output_is_reported_first(
    evacap: Evacap, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path)
    plain = os.access
    monkeypatch.setattr(
        calibrating.os, "access", lambda path, mode: str(path) != str(model) and plain(path, mode)
    )
    result = evacap("weights", "calibrate", model, "--data", store)
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert "-o" in result.stderr
    switch = saved(tmp_path / "switches", "evidence")  # whose folder is replaced
    monkeypatch.setattr(
        calibrating.os, "access", lambda path, mode: str(path) != str(switch.parent) and plain(path, mode)
    )
    result = evacap("weights", "calibrate", switch, "--data", store)
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    result = evacap("weights", "calibrate", model, "--data", store, "-o", tmp_path / "no" / "where")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_too_few_clips(evacap: Evacap, tmp_path: Path) -> None:
    few = tmp_path / "few.store"
    write_store(
        few, [Toy(f"clip-{i}", ("a",)) for i in range(12)], make, FEATURES, frames_format="raw", workers=0
    )
    result = evacap("weights", "calibrate", saved(tmp_path), "--data", few)
    assert result.exit_code == 2
    assert "too few" in result.stderr


NOTE = {
    "method": "M", "inputs": ["gate", "entropy"], "auroc": 0.6, "auroc_interval": [0.55, 0.65], "brier": 0.24,
    "reliability": [[0.4, 0.41]], "clips": 10, "pairs": 40, "data": "D", "date": "2026-01-01",
}  # fmt: skip


def test_a_card_has_one_calibration_section() -> None:
    first, second = card_section(NOTE), card_section({**NOTE, "auroc": 0.7})
    for card in ("# toy\n\nA toy.\n", "# toy\n\n## Data\nd\n\n## Limits\nl\n", "# toy\n"):
        once = with_section(card, first)
        assert once.count("## Mismatch") == 1
        assert with_section(once, first) == once
        twice = with_section(once, second)
        assert "AUROC 0.700" in twice
        assert "AUROC 0.600" not in twice
        assert all(line in twice for line in card.splitlines())
        assert "\n\n\n" not in twice
        if "## Limits" in card:
            assert once.index("## Data") < once.index("## Mismatch") < once.index("\n\n## Limits")


@pytest.mark.slow
def test_the_packaged_models_are_calibrated() -> None:
    """As committed: cards and configurations say the same; the gate is weak, the evidence is not."""
    for name, at_least in (("demo", 0.75), ("entropy-demo", 0.4)):
        note = load_checkpoint(name).metadata["mismatch"]
        assert card_section(note) in (resolve_model(name) / "README.md").read_text("utf-8")
        assert at_least < note["auroc_interval"][0] < note["auroc"] < note["auroc_interval"][1]
        assert note["clips"] >= 100
    for name in set(packaged_models()) - {"demo", "entropy-demo"}:
        assert "mismatch" not in load_checkpoint(name).metadata


def test_the_packaged_switch_uses_its_calibration() -> None:
    checkpoint = load_checkpoint("demo")
    note, evidence = checkpoint.metadata["mismatch"], checkpoint.model.fusion.evidence
    assert note["inputs"] == list(checkpoint.model.cues)
    assert (-evidence.weights).tolist() == pytest.approx(note["weights"], rel=1e-5)
    assert -evidence.bias.item() == pytest.approx(note["bias"], rel=1e-5)
