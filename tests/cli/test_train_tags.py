"""`evacap train` on tag towers: from files to a checkpoint that captions and says what it heard."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from evacap_cli.cli.app import app
from evacap_cli.model import load_checkpoint
from evacap_cli.model.tag_encoder import NETWORKS
from evacap_cli.model.towers import TIES, shared_weights
from evacap_cli.tasks.training import loop

from ..conftest import Evacap
from ..media.clips import write

SMALL = ("training.epochs=2", "training.warmup_epochs=0", "training.batch_size=2", "training.log_every=1",
         "model.encoder.width=32", "model.encoder.heads=2", "model.encoder.depth=1", "model.decoder.width=32",
         "model.decoder.heads=2", "model.decoder.layers=1", "model.decoder.feedforward=64",
         "--workers", "0")  # fmt: skip


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves are drawn in the tests of the training loop; they take as long as the training here."""
    monkeypatch.setattr(loop, "draw_curves", lambda log, path: path.touch())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, with the features of the presets on tags."""
    folder = tmp_path_factory.mktemp("world")
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["video", "caption"])
        for name, seconds, caption in (
            ("a", 2.0, "a tone rises"),
            ("b", 1.0, "a bell"),
            ("c", 1.5, "a beep"),
        ):
            write(folder / f"{name}.mp4", seconds)
            table.writerow([f"{name}.mp4", caption])
    args = [
        "prepare",
        folder / "captions.csv",
        "-o",
        folder / "store",
        "--preset",
        "evacap-tags",
        "--workers",
        0,
    ]
    made = CliRunner().invoke(app, [str(arg) for arg in args])
    assert made.exit_code == 0, made.output
    return folder / "store"


@pytest.fixture(scope="module")
def heard(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a model that only hears."""
    run = tmp_path_factory.mktemp("runs") / "run"
    args = ["train", "audio-tags", "--data", store, "--val", store, "-o", run, *SMALL]
    made = CliRunner().invoke(app, [str(arg) for arg in args])
    assert made.exit_code == 0, made.output
    return run


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["evacap-tags", "evidence-tags", "audio-tags"])
def test_trains_and_captions(evacap: Evacap, store: Path, heard: Path, tmp_path: Path, preset: str) -> None:
    """The losses are finite; the networks are the packaged ones before and after; captions come with tags."""
    run = heard if preset == "audio-tags" else tmp_path / "run"
    if run != heard:
        result = evacap("train", preset, "--data", store, "--val", store, "-o", run, *SMALL)
        assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["caption"] for line in lines if "caption" in line]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    assert any("match" in line for line in lines) == (preset == "evidence-tags")
    model = load_checkpoint(run / "last").model
    assert model.lexicon is not None
    state = model.state_dict()
    names = [name for name in state if name.split(".")[1] in NETWORKS]
    known = shared_weights([*names, TIES])
    assert all(torch.equal(state[name], known[name].to(state[name].dtype)) for name in names)
    if preset == "evidence-tags":
        assert torch.equal(state[TIES], known[TIES].float())
        assert not torch.equal(state["fusion.evidence.affinity"], state[TIES])
    out = tmp_path / "out.jsonl"
    captioned = evacap("caption", store.parent / "a.mp4", "--model", run / "best", "-o", out, "--tags",
                       "--workers", 0)  # fmt: skip
    assert captioned.exit_code == 0, captioned.output
    row = json.loads(out.read_text())
    assert row["status"] == "ok"
    assert row["heard"]


@pytest.mark.slow
def test_continues_from_a_checkpoint(evacap: Evacap, store: Path, heard: Path, tmp_path: Path) -> None:
    """From hearing alone to a switch, which gets eyes and ties from the package."""
    result = evacap("train", "evidence-tags", "--init", heard / "last", "--data", store, "-o", tmp_path, *SMALL,
                    "training.epochs=1", "training.freeze=[decoder]")  # fmt: skip
    assert result.exit_code == 0, result.output
    before, now = (load_checkpoint(run / "last").model for run in (heard, tmp_path))
    was, state = before.decoder.state_dict(), now.state_dict()
    assert all(torch.equal(state[f"decoder.{name}"], value) for name, value in was.items())
    eyes = [name for name in state if name.startswith("encoder.network_v.")]
    known = shared_weights([*eyes, TIES])
    assert all(torch.equal(state[name], known[name].to(state[name].dtype)) for name in eyes)
    assert torch.equal(state[TIES], known[TIES].float())


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["avcap-tags", "evidence-tags"])
def test_a_dry_run_counts_what_is_trained(evacap: Evacap, store: Path, preset: str) -> None:
    """The networks count as parameters, and not as trained ones."""
    result = evacap("train", preset, *SMALL, "--data", store, "--dry-run")
    assert result.exit_code == 0, result.output
    shown = yaml.safe_load(result.stdout)
    parameters = shown["parameters"]
    assert parameters["total"] - parameters["trained"] > 8e6
    assert parameters["total"] == sum(
        count for part, count in parameters.items() if part not in ("total", "trained")
    )
    assert shown["steps"]["clips"] == 3


@pytest.mark.slow
def test_stores_of_other_features_are_refused(evacap: Evacap, store: Path, tmp_path: Path) -> None:
    result = evacap("train", "evacap-tiny", "--data", store, "-o", tmp_path / "run", "--workers", 0)
    assert result.exit_code == 2, result.output
    assert "spectrogram" in result.stderr
