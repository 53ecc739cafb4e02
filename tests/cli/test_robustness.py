"""`evacap evaluate` and `evacap robustness`: tables, files and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from evacap_cli.data.store import Store
from evacap_cli.model import load_checkpoint, parameter_counts, save_checkpoint
from evacap_cli.report import robustness_figure
from evacap_cli.tasks import sample

from ..conftest import Evacap
from ..tasks.noise import CLIPS, checkpoint, noise_store

QUICK = ("--metrics", "BLEU,CIDEr", "--beam", 2, "--max-words", 6, "--batch-size", 3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and four models that fit it."""
    folder = tmp_path_factory.mktemp("robustness")
    noise_store(folder / "store")
    for fusion, preset in (
        ("entropy-gate", "evacap-base"),
        ("concat", "avcap-base"),
        ("audio-only", "audio-base"),
        ("evidence", "evidence-base"),
    ):
        made = checkpoint(fusion)
        save_checkpoint(folder / fusion, made.model, made.tokenizer, made.features, {"preset": preset})
    return folder


@pytest.mark.slow
def test_evaluate_writes_a_row_per_model(evacap: Evacap, world: Path, tmp_path: Path) -> None:
    models = ("--model", world / "entropy-gate", "--model", world / "audio-only")
    result = evacap("evaluate", *models, "--data", world / "store", *QUICK, "-o", tmp_path / "out",
                    "--report", tmp_path / "page.html")  # fmt: skip
    assert "paper&#39;s Proposed (AudioCaps)" in (tmp_path / "page.html").read_text("utf-8")
    assert result.exit_code == 0, result.output
    assert "entropy-gate" in result.stdout
    assert "paper's Proposed (AudioCaps)" in result.stdout
    assert f"{CLIPS} clips, hash of their names" in result.stdout
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["models"]
    assert [model["fusion"] for model in found] == ["entropy-gate", "audio-only"]
    for model in found:  # as they are before weights are packed
        total = parameter_counts(load_checkpoint(world / model["fusion"]).model)["total"]
        assert model["parameters"] == total > 0
    assert found[0]["metrics"].keys() == {"BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "CIDEr"}
    assert found[0]["paper"]["metrics"]["CIDEr"] == 0.649
    assert "| entropy-gate |" in (tmp_path / "out" / "table.md").read_text()
    with (tmp_path / "out" / "predictions-entropy-gate.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == Store(world / "store").keys
    assert all(0 <= float(row["gate"]) <= 1 for row in rows)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "metrics.json", "predictions-audio-only.csv", "predictions-entropy-gate.csv", "table.md",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_sweep_can_be_repeated(evacap: Evacap, world: Path, tmp_path: Path) -> None:
    models = [item for name in ("entropy-gate", "concat", "audio-only") for item in ("--model", world / name)]
    args = ("--data", world / "store", "--probs", "0,0.5,1", "--seeds", "0,4", *QUICK)
    for name, count in (("a", 3), ("b", 2)):
        result = evacap("robustness", *models[: 2 * count], *args, "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
    first, second = (json.loads((tmp_path / name / "robustness.json").read_text()) for name in ("a", "b"))
    for made in (first, second):
        for model in made["models"]:
            del model["seconds"]
    assert first | {"models": first["models"][:2]} == second
    assert [pairing["seed"] for pairing in first["pairings"]] == [0, 4]
    assert all(clip != donor for pairing in first["pairings"] for clip, donor in pairing["donor"].items())
    ours, _, heard = first["models"]
    assert [point["at"] for point in ours["points"]] == [0, 0.5, 1]
    assert ours["points"][0]["paper"]["CIDEr"] == 0.649
    assert all(point["values"] == heard["points"][0]["values"] for point in heard["points"])
    assert heard["followed"] == heard["told_apart"] == {}
    assert ours["followed"].keys() == {"sound", "picture", "share nearer the picture"}
    assert 0 <= ours["told_apart"]["gate"] <= 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "clips.csv", "robustness.csv", "robustness.json", "robustness.md", "robustness.png",
    ]  # fmt: skip
    evaluated = evacap("evaluate", "--model", world / "concat", "--data", world / "store", *QUICK, "--json")
    (row,) = json.loads(evaluated.stdout)["models"]
    assert row["metrics"] == pytest.approx(first["models"][1]["points"][0]["values"], abs=1e-12)


@pytest.mark.slow
def test_evaluate_takes_captions_of_other_systems(evacap: Evacap, world: Path, tmp_path: Path) -> None:
    """Captions that one of our models made are scored as its own."""
    data = ("--data", world / "store", *QUICK)
    out = tmp_path / "out"
    assert evacap("evaluate", "--model", world / "concat", *data, "-o", out).exit_code == 0
    (first,) = json.loads((out / "metrics.json").read_text())["models"]
    with (out / "predictions-concat.csv").open(newline="", encoding="utf-8") as file:
        captions = {row["key"]: row["caption"] for row in csv.DictReader(file)}
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps({f"audio/{key}.wav": text for key, text in reversed(captions.items())}))
    files = ("--captions", theirs, "--captions", out / "predictions-concat.csv")
    result = evacap("evaluate", "--model", world / "audio-only", *files, *data, "-o", tmp_path / "both")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "both" / "metrics.json").read_text())["models"]
    assert [row["model"] for row in found] == ["audio-only", "theirs", "predictions-concat"]
    for row in found[1:]:
        assert (row["metrics"], row["intervals"]) == (first["metrics"], first["intervals"])
        assert (row["id_hash"], row["parameters"], row["seconds_per_clip"]) == (first["id_hash"], None, None)
    assert evacap("report", tmp_path / "both").exit_code == 0
    alone = evacap("evaluate", "--captions", theirs, *data, "--json")
    assert json.loads(alone.stdout)["models"][0]["metrics"] == first["metrics"]
    store = Store(world / "store")
    named = [{"video": store.source(i)[0], "caption": captions[key]} for i, key in enumerate(store.keys)]
    theirs.write_text(json.dumps(named))
    by_file = evacap("evaluate", "--captions", theirs, *data, "--json")
    assert json.loads(by_file.stdout)["models"][0]["metrics"] == first["metrics"]
    captions.popitem()
    theirs.write_text(json.dumps(captions))
    result = evacap("evaluate", "--captions", theirs, *data)
    assert result.exit_code == 2
    assert f"has no caption for 1 of {CLIPS} clips" in result.stderr
    result = evacap("evaluate", *data)
    assert result.exit_code == 2
    assert "--model and --captions are missing" in result.stderr


@pytest.mark.slow
def test_evidence_is_reported(evacap: Evacap, world: Path, tmp_path: Path) -> None:
    given = ("--model", world / "evidence", "--data", world / "store", *QUICK)
    result = evacap("evaluate", *given, "-o", tmp_path / "table")
    assert result.exit_code == 0, result.output
    with (tmp_path / "table" / "predictions-evidence.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert any(row["evidence"] for row in rows)
    for row in rows:  # one of them has no picture
        assert float(row["gate"]) == (float(row["evidence"] or 0) >= 0.5)
    for perturb, has_evidence in (("shuffle", True), ("black", False)):  # who sees nothing has no evidence
        args = ("--perturb", perturb, "--seeds", "0", "-o", tmp_path / perturb, "--json")
        result = evacap("robustness", *given, *args)
        assert result.exit_code == 0, result.output
        (found,) = json.loads(result.stdout)["models"]
        assert 0 <= found["told_apart"]["gate"] <= 1
        assert ("evidence" in found["told_apart"]) == has_evidence
        assert "entropy" not in found["told_apart"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("perturb", "points"),
    [
        ("swap-audio", 4),
        ("black", 4),
        ("noise", 4),
        ("freeze", 4),
        ("drop-video", 4),
        ("noise-audio", 5),
        ("shift", 4),
    ],
)
def test_every_perturbation(
    evacap: Evacap, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, perturb: str, points: int
) -> None:
    monkeypatch.setattr(robustness_figure, "draw_sweep", lambda *_: None)
    only_pictures = perturb in ("black", "noise", "freeze", "drop-video")
    models = (
        "--model",
        world / "entropy-gate",
        *(("--model", world / "audio-only") if only_pictures else ()),
    )
    args = ("--perturb", perturb, "--seeds", "0", "--metrics", "BLEU_1,ROUGE_L", *QUICK[2:])
    result = evacap("robustness", *models, "--data", world / "store", *args, "-o", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    ours, *others = json.loads(result.stdout)["models"]
    assert len(ours["points"]) == points
    for heard in others:
        assert heard["points"][0]["values"] == heard["points"][-1]["values"]
    if perturb == "drop-video":  # without a picture it is only heard
        assert ours["told_apart"]["gate"] > 0.9


@pytest.mark.slow
def test_without_options_it_uses_the_built_in_benchmark(
    evacap: Evacap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVACAP_CACHE", str(tmp_path / "cache"))
    pairs = sample.read_pairs()[:4]
    monkeypatch.setattr(sample, "read_pairs", lambda: pairs)
    monkeypatch.chdir(tmp_path)
    args = ("robustness", "--probs", "0,1", "--metrics", "ROUGE_L", "--seeds", "0", "--workers", 0)
    result = evacap(*args)
    assert result.exit_code == 0, result.output
    made = json.loads((tmp_path / "robustness" / "robustness.json").read_text())
    assert [model["name"] for model in made["models"]] == ["demo", "entropy-demo", "avcap-demo", "audio-demo"]
    assert made["clips"] == 4
    demo = made["models"][0]
    assert demo["points"][0]["values"]["ROUGE_L"] > 0.3
    assert sum(kind["clips"] for kind in demo["by_kind"].values()) == 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.tar")}
    assert before
    assert evacap(*args, "--model", "audio-demo", "-o", tmp_path / "again").exit_code == 0  # they are found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.tar")} == before
    assert len(list((tmp_path / "cache").glob("sample-*"))) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--probs", "1.5"), "--probs 1.5: must be between 0 and 1"),
        (("--probs", "0,half"), "not a list of numbers"),
        (("--probs", ","), "give at least one"),
        (("--perturb", "shuffel"), "shuffel: must be one of shuffle, swap-audio"),
        (("--levels", "3"), "shuffle has no levels"),
        (("--seeds", "1,1"), "different numbers"),
        (("--seeds", "0.5"), "not a list of whole numbers"),
        (("--metrics", "FENSE"), "unknown metric: FENSE"),
        (("--beam", "0"), "--beam 0 must be 1 or more"),
        (("--model", "entropy-gate"), "given twice"),
        (("--data", "nowhere"), "not a feature store"),
    ],
)
def test_impossible_options_are_named(
    evacap: Evacap,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(world)
    given = ("--model", "entropy-gate", "--data", "store", "-o", tmp_path / "out")
    result = evacap("robustness", *given, *args)
    assert result.exit_code == (1 if "nowhere" in args else 2), result.output
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_store_of_other_features_is_refused(evacap: Evacap, world: Path, tmp_path: Path) -> None:
    for command in ("evaluate", "robustness"):
        result = evacap(command, "--model", "demo", "--data", world / "store", "-o", tmp_path / "out")
        assert result.exit_code == 2, result.output
        assert "image_size = 32 in the store, 224 wanted" in " ".join(result.stderr.split())
