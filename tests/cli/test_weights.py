from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..conftest import Evacap


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


def test_an_unknown_name_lists_the_known(evacap: Evacap, tmp_path: Path) -> None:
    result = evacap("weights", "info", "evacap-huge")
    assert result.exit_code == 2
    assert "evacap-huge" in result.stderr
    assert "evacap-base" in result.stderr


def test_a_folder_that_is_no_checkpoint_says_what_it_lacks(evacap: Evacap, tmp_path: Path) -> None:
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
