from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ..conftest import Evacap
from ..media.clips import write


@pytest.mark.parametrize(
    ("preset", "millions"), [("evacap-base", 235), ("avcap-base", 233), ("audio-base", 153)]
)
def test_published_sizes(evacap: Evacap, preset: str, millions: int) -> None:
    """Table 1 of the paper."""
    result = evacap("weights", "info", preset, "--json")
    (model,) = json.loads(result.stdout)["models"]
    assert round(model["parameters"]["total"] / 1e6) == millions
    assert (
        sum(n for part, n in model["parameters"].items() if part != "total") == model["parameters"]["total"]
    )


def test_table_of_presets_and_checkpoints(evacap: Evacap, tiny: Path) -> None:
    result = evacap("weights", "info", "evacap-base", tiny)
    assert result.exit_code == 0
    assert "235 M (234.51)" in result.stdout
    assert str(tiny) in result.stdout.replace("\n", "")
    assert result.stderr == ""


def test_an_unknown_name_lists_the_known_ones(evacap: Evacap, tmp_path: Path) -> None:
    result = evacap("weights", "info", "evacap-huge")
    assert result.exit_code == 2
    assert "evacap-huge" in result.stderr
    assert "evacap-base" in result.stderr


def test_a_folder_without_a_checkpoint_lists_missing_files(evacap: Evacap, tmp_path: Path) -> None:
    result = evacap("weights", "info", tmp_path)
    assert result.exit_code == 1
    assert "model.safetensors" in result.stderr


def test_a_damaged_checkpoint(evacap: Evacap, tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"0" * 100)
    result = evacap("weights", "info", tmp_path)
    assert result.exit_code == 1
    assert "damaged" in result.stderr


@pytest.mark.slow
def test_an_exported_file_captions_as_the_folder(evacap: Evacap, tiny: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    out = tmp_path / "one.safetensors"
    exported = evacap("weights", "export", tiny, "-o", out)
    assert exported.exit_code == 0, exported.output
    rows = []
    for model in (tiny, out):
        result = evacap("caption", tmp_path / "a.mp4", "--model", model, "--workers", 0)
        assert result.exit_code == 0, result.output
        rows.append(result.stdout)
    assert rows[0] == rows[1]
    shown = evacap("weights", "info", out, "--json")
    assert json.loads(shown.stdout)["models"][0]["kind"] == "checkpoint"
    again = evacap("weights", "export", tiny, "-o", out)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    half = evacap("weights", "export", tiny, "-o", out, "--overwrite", "--precision", "fp16", "--json")
    assert json.loads(half.stdout)["bytes"] < 0.6 * (tiny / "model.safetensors").stat().st_size
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.parametrize(("name", "precision"), [("one.pth", "fp32"), ("one.safetensors", "int4")])
def test_wrong_exports_are_refused(
    evacap: Evacap, tiny: Path, tmp_path: Path, name: str, precision: str
) -> None:
    result = evacap("weights", "export", tiny, "-o", tmp_path / name, "--precision", precision)
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_published_file_is_recognised(evacap: Evacap, tmp_path: Path) -> None:
    names = ("blocks_a.0.norm1.weight", "blocks_v.0.norm1.weight", "blocks_u.0.norm1.weight")
    torch.save({f"module.{name}": torch.ones(4) for name in names}, tmp_path / "a.pth")
    torch.save({"conv.weight": torch.ones(4)}, tmp_path / "b.pth")
    result = evacap("weights", "info", tmp_path / "a.pth", tmp_path / "b.pth")
    assert result.exit_code == 0
    summary = " ".join(result.stdout.split())
    assert "CAV-MAE, 3 tensors of float32" in summary
    assert "--init-encoder" in summary
    assert "unknown, 1 tensors" in summary


@pytest.mark.slow
def test_networks_of_tag_towers_are_counted(evacap: Evacap) -> None:
    """They are part of the towers' numbers; a model that only hears has one. Of checkpoints as of presets."""
    summary = json.loads(
        evacap("weights", "info", "evidence-tags", "demo", "audio-tags", "evacap-base", "--json").stdout
    )
    preset, checkpoint, ear, other = summary["models"]
    assert preset["networks"] == {"YAMNet": 3_729_481, "efficientnet_lite0": 4_652_008}
    assert checkpoint["networks"] == preset["networks"]
    assert list(ear["networks"]) == ["YAMNet"]
    assert other["networks"] == {}
    for model in (preset, checkpoint):
        for part, network in (("audio tower", "YAMNet"), ("picture tower", "efficientnet_lite0")):
            assert model["parameters"][part] > model["networks"][network]
    shown = evacap("weights", "info", "evidence-tags")
    assert "pre-trained and frozen: YAMNet 3.7 M and efficientnet_lite0 4.7 M" in " ".join(
        shown.stdout.split()
    )


def test_files_of_published_networks_are_recognised(evacap: Evacap, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"weight:layer_with_weights-0/kernel": np.ones((3, 3, 1, 32), np.float32)})
    torch.save({"_conv_stem.weight": torch.ones(4)}, tmp_path / "b.pth")
    result = evacap("weights", "info", tmp_path / "a.npz", tmp_path / "b.pth")
    assert result.exit_code == 0, result.stderr
    summary = " ".join(result.stdout.split())
    assert "YAMNet, 1 tensors of float32, 0.0 M (0.00) parameters" in summary
    assert "weights import yamnet" in summary
    assert "weights import efficientnet-lite0" in summary
