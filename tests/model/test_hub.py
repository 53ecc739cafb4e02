"""Checkpoints of the Hub, from a server of this machine with its layout."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import load_checkpoint
from evacap_cli.model.checkpoint import read_features
from evacap_cli.model.hub import HubModel

from ..conftest import Evacap
from ..servers import FileServer, HubServer, closed_address

FILES = {"config.yaml", "model.safetensors", "tokenizer.json"}


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A checkpoint with a file of the kind that is never loaded."""
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    return folder


@pytest.mark.slow
def test_a_model_from_the_hub_equals_its_folder(hub: HubServer, copy: Path, tmp_path: Path) -> None:
    repository = hub.add("org/tiny-model", copy)
    found, own = load_checkpoint("hf:org/tiny-model"), load_checkpoint(copy)
    assert found.name == "tiny-model"
    assert found.features == own.features == read_features("hf:org/tiny-model@main")
    for name, value in own.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name
    assert {request.path.rpartition("/")[2] for request in hub.requests} == FILES
    assert found.path.name == repository.commit
    assert {path.name for path in found.path.iterdir()} == FILES


@pytest.mark.slow
def test_without_a_network_the_downloaded_copy_is_used(
    hub: HubServer, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("org/name", copy).commit
    load_checkpoint("hf:org/name")
    monkeypatch.setenv("HF_ENDPOINT", closed_address())
    load_checkpoint("hf:org/name")
    load_checkpoint(f"hf:org/name@{commit}")
    with pytest.raises(EvacapError, match="hf:org/other: the Hub cannot be reached") as caught:
        load_checkpoint("hf:org/other")
    assert "hf download" in caught.value.cure


def test_all_files_are_of_one_commit(hub: HubServer, copy: Path) -> None:
    repository = hub.add("org/name", copy)
    repository.revisions["v1"] = repository.commit
    load_checkpoint("hf:org/name@v1")
    asked = {(request.path.split("/")[4], request.path.split("/")[5]) for request in hub.requests}
    assert asked == {
        ("v1", "config.yaml"),
        (repository.commit, "tokenizer.json"),
        (repository.commit, "model.safetensors"),
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:org/none", "no such model on the Hub"),
        ("hf:org/name@v9", "has no such revision"),
        ("hf:name", "is not the name of a model"),
        ("hf:org/na me", "is not the name of a model"),
        ("hf:org/../x", "is not the name of a model"),
        ("hf:", "is not the name of a model"),
    ],
)
def test_wrong_names_are_reported(
    name: str, message: str, hub: HubServer, copy: Path, evacap: Evacap
) -> None:
    hub.add("org/name", copy)
    result = evacap("weights", "export", name, "-o", copy / "out.safetensors")
    assert result.exit_code == 2
    assert f"{name}: {message}" in result.stderr


def test_only_safetensors_are_loaded(hub: HubServer, copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    hub.add("org/name", copy)
    with pytest.raises(EvacapError, match=r"has no model\.safetensors") as caught:
        load_checkpoint("hf:org/name")
    assert "safetensors only" in caught.value.cure
    assert not [r for r in hub.requests if r.path.endswith((".bin", ".py"))]


def test_a_private_model_needs_the_token_and_only_the_hub_receives_it(
    hub: HubServer, storage: FileServer, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/name", copy).private = True
    with pytest.raises(UsageError, match="or it is private") as caught:
        load_checkpoint("hf:org/name")
    assert "HF_TOKEN" in caught.value.cure
    monkeypatch.setenv("HF_TOKEN", hub.token)
    load_checkpoint("hf:org/name")
    assert storage.requests
    assert not [request for request in storage.requests if "authorization" in request.headers]


@pytest.mark.slow
def test_a_cut_transfer_resumes_or_leaves_no_file(
    hub: HubServer, storage: FileServer, copy: Path, tmp_path: Path
) -> None:
    hub.add("org/name", copy)
    (address,) = storage.files
    storage.cut[address] = [100_000]
    load_checkpoint("hf:org/name")
    assert [request.range for request in storage.requests] == [None, "bytes=100000-"]

    shutil.rmtree(tmp_path / "hub")
    storage.cut[address] = [100_000, *[0] * 20]
    with pytest.raises(EvacapError, match=r"hf:org/name: model\.safetensors: ") as caught:
        load_checkpoint("hf:org/name")
    assert "try again" in caught.value.cure
    assert not [
        path for path in (tmp_path / "hub").rglob("*") if path.is_file() and path.stat().st_size > 1e5
    ]


@pytest.mark.slow
def test_weights_with_another_sha256_are_not_loaded(
    hub: HubServer, storage: FileServer, copy: Path, tmp_path: Path
) -> None:
    hub.add("org/name", copy)
    (address,) = storage.files
    right = storage.files[address]
    storage.files[address] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(EvacapError, match="does not have the SHA-256 that the Hub states"):
        load_checkpoint("hf:org/name")
    assert len(storage.requests) == 2
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.name == address[1:]]
    storage.files[address] = right
    load_checkpoint("hf:org/name")


@pytest.mark.slow
def test_a_copy_damaged_on_the_disk_is_downloaded_again(
    hub: HubServer, storage: FileServer, copy: Path
) -> None:
    hub.add("org/name", copy)
    weights = load_checkpoint("hf:org/name").path / "model.safetensors"
    blob = weights.resolve()
    blob.write_bytes(bytes(blob.stat().st_size))
    load_checkpoint("hf:org/name")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == blob.name


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device is Linux's")
def test_a_full_disk_is_reported(hub: HubServer, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/name", copy)
    opened = Path.open

    def full(self: Path, *args: object, **kwargs: object) -> object:
        return opened(Path("/dev/full") if self.suffix == ".incomplete" else self, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(EvacapError, match="No space left on device") as caught:
        load_checkpoint("hf:org/name")
    assert "HF_HOME" in caught.value.cure


def test_names() -> None:
    assert HubModel.parse("hf:org/name") == HubModel("org/name")
    assert HubModel.parse("hf:o-r.g/n_a-m.e@refs/pr/1") == HubModel("o-r.g/n_a-m.e", "refs/pr/1")
    assert HubModel.parse("hf:org/name").name == "name"
