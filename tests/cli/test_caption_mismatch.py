"""`evacap caption --flag-mismatch` with a model whose fusion is `evidence`: the column is what its switch goes by."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from evacap_cli.features import FeatureSettings, normalize_frames
from evacap_cli.model import load_checkpoint
from evacap_cli.model.checkpoint import CONFIG, WEIGHTS
from evacap_cli.tasks.clips import ClipSettings, load_clip

from ..conftest import Evacap, save_tiny
from ..media.clips import write

SHOWN, UNSEEN = ("a.mp4", "b.mp4", "c.mp4"), ("black.mp4", "sound.wav")
INLINE = ("--workers", "0", "--device", "cpu", "--precision", "fp32", "--max-words", "3")
NOTE = {"inputs": ["cosine", "best", "matcher"], "weights": [-2.0, 3.0, -1.0], "bias": -4.96}


@pytest.fixture(scope="module")
def uncalibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models"), "evidence-tiny", depth=1, picture_depth=1)


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With random weights, and a calibration as if it were one."""
    path = save_tiny(tmp_path_factory.mktemp("models"), "evidence-tiny", depth=1, picture_depth=1)
    config = yaml.safe_load((path / CONFIG).read_text("utf-8"))
    config["metadata"] = {"mismatch": NOTE}
    (path / CONFIG).write_text(yaml.safe_dump(config), "utf-8")
    fitted = {"fusion.evidence.weights": -torch.tensor(NOTE["weights"]),
              "fusion.evidence.bias": -torch.tensor(NOTE["bias"])}  # fmt: skip
    save_file(load_file(path / WEIGHTS) | fitted, path / WEIGHTS)
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for place, name in enumerate(SHOWN):
        write(folder / name, 1.0 + place, draw=lambda t, w, h, place=place: stripes(t + 3 * place, w, h))
    write(folder / "black.mp4", 1.0, draw=lambda t, w, h: np.zeros((h, w, 3), np.uint8))
    write(folder / "sound.wav", 1.0, video=None, audio="pcm_s16le")
    return folder


def stripes(t: float, width: int, height: int) -> np.ndarray:
    wide = np.sin(np.arange(width) / (2 + t) + t)[None, :, None] * np.array([100, 60, -90])
    return np.clip(128 + wide + np.zeros((height, 1, 1)), 0, 255).astype(np.uint8)


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return {Path(row["video"]).name: row for row in csv.DictReader(file, strict=True)}


def evidence_of(model: Path, film: Path) -> float:
    """By the plain way through the model."""
    own = load_checkpoint(model)
    features = FeatureSettings.from_dict(own.features)
    clip = load_clip(film, ClipSettings(features))
    pixels = normalize_frames(torch.from_numpy(clip.frames)[None], features)
    out = own.model.generate(torch.from_numpy(clip.fbank)[None], pixels, beam=1, max_words=3)
    return float(out.evidence[0])


@pytest.mark.slow
def test_the_column_is_the_probability_of_the_switch(
    evacap: Evacap, switch: Path, films: Path, tmp_path: Path
) -> None:
    """A clip without a picture, or with one that shows nothing, has an empty cell."""
    result = evacap(
        "caption", films, "-o", tmp_path / "o.csv", "--model", switch, "--flag-mismatch", *INLINE, "-q"
    )
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path / "o.csv")
    assert set(rows) == {*SHOWN, *UNSEEN}
    summary = [float(rows[name]["mismatch"]) for name in SHOWN]
    assert summary == pytest.approx([1 - evidence_of(switch, films / name) for name in SHOWN], abs=2e-4)
    assert np.std(summary) > 1e-3
    assert max(abs(p - 0.5) for p in summary) > 0.01  # else its contrary would do as well
    assert {float(rows[name]["gate"]) for name in SHOWN} == {0.0, 1.0}
    for name in SHOWN:
        assert float(rows[name]["gate"]) == (float(rows[name]["mismatch"]) <= 0.5)
    for name in UNSEEN:
        assert (rows[name]["mismatch"], float(rows[name]["gate"])) == ("", 0.0)
    assert [rows[name]["status"] for name in (*SHOWN, *UNSEEN)] == ["ok"] * 4 + ["audio-only"]
    assert all(row["entropy"] == "" for row in rows.values())


@pytest.mark.slow
def test_kept_rows_have_the_column(evacap: Evacap, switch: Path, films: Path, tmp_path: Path) -> None:
    """Asked for afterwards, no clip is described again."""
    whole, out = tmp_path / "whole.csv", tmp_path / "o.csv"
    command = ("--model", switch, *INLINE, "-q")
    assert evacap("caption", films, "-o", whole, "--flag-mismatch", *command).exit_code == 0
    assert evacap("caption", films, "-o", out, *command).exit_code == 0
    assert "mismatch" not in out.read_text("utf-8").splitlines()[0]
    again = evacap("caption", films, "-o", out, "--flag-mismatch", *command, "--json")
    assert again.exit_code == 0, again.output
    assert rows_of(out) == rows_of(whole)
    streamed = evacap("caption", films, "--flag-mismatch", *command)
    assert list(csv.DictReader(streamed.stdout.splitlines())) == list(rows_of(whole).values())


@pytest.mark.slow
def test_an_uncalibrated_switch_has_no_column(
    evacap: Evacap, uncalibrated: Path, films: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.csv"
    result = evacap("caption", films, "-o", out, "--model", uncalibrated, "--flag-mismatch", *INLINE)
    assert result.exit_code == 0, result.output
    assert "is not calibrated" in result.stderr
    assert all("mismatch" not in row for row in rows_of(out).values())


@pytest.mark.slow
def test_curves_of_a_switch(evacap: Evacap, switch: Path, films: Path, tmp_path: Path) -> None:
    kept: Any = tmp_path / "curves"
    result = evacap(
        "caption", films, "-o", tmp_path / "o.csv", "--model", switch, "--curves", kept, *INLINE, "-q"
    )
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path / "o.csv")
    for name in (*SHOWN, "black.mp4"):
        with np.load(kept / f"{name}.npz") as curve:
            assert set(curve["gate"].tolist()) == {float(rows[name]["gate"])}
            assert np.isnan(curve["entropy"]).all()
