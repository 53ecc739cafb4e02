"""Checkpoints written to the Hub, a server of this machine, and read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from evacap_cli.model import load_checkpoint

from ..conftest import Evacap
from ..servers import FileServer, HubServer, closed_address

FILES = ["README.md", "config.yaml", "tokenizer.json", "model.safetensors"]


@pytest.fixture
def mine(tiny: Path, tmp_path: Path) -> Path:
    """A checkpoint with a file that does not belong to it."""
    folder = tmp_path / "mine"
    shutil.copytree(tiny, folder)
    (folder / "training.pt").write_bytes(b"optimizer")
    return folder


@pytest.mark.slow
def test_a_pushed_model_is_loaded_from_the_hub(
    hub: HubServer, storage: FileServer, mine: Path, evacap: Evacap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    result = evacap("weights", "push", mine, "org/name", "--private", "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert list(summary["files"]) == FILES
    assert summary["commit"].startswith(f"{hub.url}/org/name/commit/")
    repository = hub.repositories["org/name"]
    assert repository.private
    assert sorted(repository.files) == sorted(FILES)
    card = repository.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: evacap\n")
    assert (mine / "README.md").read_text().strip() in card
    assert "evacap caption videos --model hf:org/name -o captions.csv" in card
    assert not [r for r in storage.requests if "authorization" in r.headers]

    found, own = load_checkpoint("hf:org/name"), load_checkpoint(mine)
    for name, value in own.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name
    assert evacap("weights", "push", mine, "hf:org/name").exit_code == 0  # also onto itself


def test_a_dry_run_lists_the_files_and_sends_nothing(hub: HubServer, mine: Path, evacap: Evacap) -> None:
    result = evacap("weights", "push", mine, "org/name", "--dry-run")
    assert result.exit_code == 0, result.stderr
    for text in (*FILES, "library_name: evacap", "audio_frames:", "nothing was sent"):
        assert text in result.stderr
    assert "training.pt" not in result.stderr
    assert hub.requests == []
    listed = evacap("weights", "push", mine, "org/name", "--dry-run", "--json")
    assert (
        json.loads(listed.stdout)["files"]["model.safetensors"] == (mine / "model.safetensors").stat().st_size
    )


def test_without_a_token_nothing_is_sent(hub: HubServer, mine: Path, evacap: Evacap) -> None:
    result = evacap("weights", "push", mine, "org/name")
    assert result.exit_code == 1
    assert "needs a token" in result.stderr
    assert "hf auth login" in result.stderr
    assert hub.requests == []


def test_a_read_only_token_is_reported(
    hub: HubServer, mine: Path, evacap: Evacap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    result = evacap("weights", "push", mine, "org/name")
    assert result.exit_code == 1
    assert "the Hub answers 403" in result.stderr
    assert "hf_other" not in result.output
    assert hub.repositories == {}


@pytest.mark.slow
def test_a_missing_network_is_reported(
    hub: HubServer, mine: Path, evacap: Evacap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("HF_ENDPOINT", closed_address())
    result = evacap("weights", "push", mine, "org/name")
    assert result.exit_code == 1
    assert "hf:org/name: the Hub: " in result.stderr
    assert "should not happen" not in result.stderr


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        ("demo", "org/name", "demo: is published already"),
        ("mine", "name", "is not the name of a model on the Hub"),
        ("mine", "org/name@v1", "a revision cannot be written to"),
        ("none", "org/name", "no such checkpoint"),
    ],
)
def test_wrong_usage(
    model: str, name: str, message: str, mine: Path, evacap: Evacap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine.parent)
    result = evacap("weights", "push", model, name)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_damaged_checkpoint_is_not_pushed(hub: HubServer, mine: Path, evacap: Evacap) -> None:
    (mine / "model.safetensors").write_bytes(b"0" * 100)
    result = evacap("weights", "push", mine, "org/name")
    assert result.exit_code == 1
    assert "damaged" in result.stderr
    assert hub.requests == []


def test_calibration_does_not_change_the_downloaded_copy(
    hub: HubServer, mine: Path, evacap: Evacap, tmp_path: Path
) -> None:
    hub.add("org/name", mine)
    result = evacap("weights", "calibrate", "hf:org/name", "--data", tmp_path / "none.store")
    assert result.exit_code == 2
    assert "hf:org/name: the downloaded copy is not changed" in result.stderr
    assert "-o" in result.stderr
