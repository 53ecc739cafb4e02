"""Published files by name, through the command line, from a server of this machine."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import resolve_model
from evacap_cli.tasks.fetching.fetch import fetch
from evacap_cli.tasks.fetching.table import PublishedFile

from ...conftest import Evacap
from ...servers import FileServer
from ..test_importing import SMALL, Thief, cav_mae, git, published

WORDS = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(92))]).encode()


def saved(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def git_file() -> bytes:
    return saved({"model": git(published())})


@pytest.fixture
def table(server: FileServer, tmp_path: Path) -> Path:
    """The packaged entries with addresses on this machine."""
    rows: dict[str, Any] = {
        "avcap": {"url": f"{server.url}/AVCap.pth", "settings": list(SMALL)},
        "bert-base-uncased": {"url": f"{server.url}/vocab.txt", "sha256": sha256(WORDS)},
        "cav-mae-base": {"url": f"{server.url}/cav-mae.pth"},
        "git-base": {"url": f"{server.url}/git.pt", "needs": []},
    }
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(rows))
    server.files["/vocab.txt"] = WORDS
    return path


@pytest.mark.slow
def test_a_fetched_avcap_captions_by_its_name(
    evacap: Evacap, server: FileServer, table: Path, cache: Path, clip: Path
) -> None:
    unknown = evacap("caption", clip, "--model", "avcap", "--workers", 0)
    assert unknown.exit_code == 2
    assert "evacap weights fetch" in unknown.stderr
    data = server.files["/AVCap.pth"] = saved({"model": published()})
    result = evacap("weights", "fetch", "avcap", "--table", table, "--json")
    assert result.exit_code == 0, result.stderr
    words, model = json.loads(result.stdout)["files"]
    assert (words["name"], words["path"]) == (
        "bert-base-uncased",
        str(cache / "bert-base-uncased" / "vocab.txt"),
    )
    assert (model["name"], model["model"], model["downloaded"]) == ("avcap", "avcap", True)
    assert Path(model["path"]).read_bytes() == data
    assert Path(model["path"] + ".sha256").read_text() == f"{sha256(data)}  AVCap.pth\n"

    captions = evacap("caption", clip, "--model", "avcap", "--workers", 0, "--max-words", 4)
    assert captions.exit_code == 0, captions.stderr
    (row,) = csv.DictReader(io.StringIO(captions.stdout))
    assert row["status"] == "ok"

    weights, asked = cache / "models" / "avcap" / "model.safetensors", len(server.requests)
    before = weights.stat().st_mtime_ns
    again = evacap("weights", "fetch", "avcap", "--table", table)
    assert again.exit_code == 0
    assert f"avcap: {model['path']} (already here): evacap caption VIDEOS --model avcap" in again.stderr
    assert (len(server.requests), weights.stat().st_mtime_ns) == (asked, before)

    server.files["/AVCap.pth"] = other = saved({"model": published(), "epoch": 8})
    changed = evacap("weights", "fetch", "avcap", "--table", table, "--sha256", sha256(other))
    assert changed.exit_code == 0, changed.stderr
    assert weights.stat().st_mtime_ns != before


@pytest.mark.slow
def test_parts_are_named_with_the_option_that_takes_them(
    evacap: Evacap, server: FileServer, table: Path, cache: Path, git_file: bytes
) -> None:
    server.files["/git.pt"] = git_file
    server.files["/cav-mae.pth"] = saved(cav_mae(published()))
    result = evacap("weights", "fetch", "git-base", "cav-mae-base", "--table", table)
    assert result.exit_code == 0, result.stderr
    assert f"--init-decoder {cache / 'weights' / 'git-base' / 'git-base.pt'}" in result.stderr
    assert f"--init-encoder {cache / 'weights' / 'cav-mae-base' / 'cav-mae-base.pth'}" in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
def test_the_first_sha256_is_stored_and_checked_later(
    evacap: Evacap, server: FileServer, table: Path, cache: Path, git_file: bytes
) -> None:
    server.files["/git.pt"] = git_file
    path = cache / "weights" / "git-base" / "git-base.pt"
    assert evacap("weights", "fetch", "git-base", "--table", table).exit_code == 0

    path.write_bytes(git_file[:-1] + b"x")  # damaged on the disk
    mended = evacap("weights", "fetch", "git-base", "--table", table)
    assert mended.exit_code == 0, mended.stderr
    assert "downloaded again" in mended.stderr
    assert path.read_bytes() == git_file

    path.unlink()
    server.files["/git.pt"] = other = saved({"model": git(published()), "epoch": 1})
    refused = evacap("weights", "fetch", "git-base", "--table", table)
    assert refused.exit_code == 1
    assert f"its SHA-256 is {sha256(other)}, not {sha256(git_file)}" in refused.stderr
    assert f"--sha256 {sha256(other)}" in refused.stderr
    assert not path.exists()

    accepted = evacap("weights", "fetch", "git-base", "--table", table, "--sha256", sha256(other).upper())
    assert accepted.exit_code == 0, accepted.stderr
    server.requests.clear()
    assert evacap("weights", "fetch", "git-base", "--table", table).exit_code == 0
    assert server.requests == []


def test_offline_the_error_names_url_and_path_and_a_copied_file_is_used(
    evacap: Evacap, closed_port: str, table: Path, cache: Path, git_file: bytes
) -> None:
    table.write_text(f"git-base: {{url: '{closed_port}/git.pt', needs: []}}\n")
    path = cache / "weights" / "git-base" / "git-base.pt"
    offline = evacap("weights", "fetch", "git-base", "--table", table)
    assert offline.exit_code == 1
    assert f"download {closed_port}/git.pt in a browser" in offline.stderr
    assert f"copy the file to {path}" in offline.stderr
    path.write_bytes(git_file)
    taken = evacap("weights", "fetch", "git-base", "--table", table)
    assert taken.exit_code == 0, taken.stderr
    assert "already here" in taken.stderr
    assert path.with_name("git-base.pt.sha256").read_text().startswith(sha256(git_file))


def test_a_web_page_instead_of_the_file_is_refused_with_the_page_to_open(
    evacap: Evacap, server: FileServer, table: Path, cache: Path
) -> None:
    """Google Drive answers so if too many people download a file."""
    server.files["/AVCap.pth"] = b"<!DOCTYPE html><title>Quota exceeded</title>"
    result = evacap("weights", "fetch", "avcap", "--table", table)
    assert result.exit_code == 1
    assert "is a web page" in result.stderr
    assert "download https://drive.google.com/file/d/" in result.stderr
    assert not [path for path in (cache / "weights").rglob("AVCap*") if path.is_file()]


def test_a_pickle_with_code_is_refused_by_name(
    evacap: Evacap, server: FileServer, table: Path, cache: Path, tmp_path: Path
) -> None:
    server.files["/git.pt"] = saved({"model": Thief(tmp_path / "loot")})
    result = evacap("weights", "fetch", "git-base", "--table", table)
    assert result.exit_code == 1
    assert "mkdir" in result.stderr
    assert not (tmp_path / "loot").exists()
    assert not [path for path in (cache / "weights").rglob("git*.pt") if path.is_file()]


def test_weights_of_another_kind_are_refused(evacap: Evacap, server: FileServer, table: Path) -> None:
    server.files["/git.pt"] = saved(cav_mae(published()))
    result = evacap("weights", "fetch", "git-base", "--table", table)
    assert result.exit_code == 1
    assert "has weights of CAV-MAE, not of kind git" in result.stderr


def test_a_corrupted_first_download_is_detected(server: FileServer, git_file: bytes, cache: Path) -> None:
    state = git(published())
    number = next(iter(state.values())).numpy().tobytes()
    at = git_file.index(number)
    server.files["/git.pt"] = git_file[:at] + bytes([git_file[at] ^ 1]) + git_file[at + 1 :]
    entry = PublishedFile("git-base", "git", f"{server.url}/git.pt", "git-base.pt")
    with pytest.raises(EvacapError, match="is damaged in"):
        fetch("git-base", {"git-base": entry})
    assert not [path for path in cache.rglob("git-base.pt") if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["avcat"], "avcat: no published file of this name"),
        ([], "Usage"),
        (["--quiet"], "give the name"),
        (["avcap", "--sha256", "12"], "--sha256 12: is not 64"),
        (["avcap", "git-base", "--sha256", "0" * 64], "--sha256: belongs to one file"),
        (["avcap", "--table", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, evacap: Evacap) -> None:
    result = evacap("weights", "fetch", *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_the_list_marks_downloaded_files(
    evacap: Evacap, table: Path, monkeypatch: pytest.MonkeyPatch, server: FileServer
) -> None:
    monkeypatch.setenv("EVACAP_WEIGHTS_TABLE", str(table))
    assert evacap("weights", "fetch", "bert-base-uncased").exit_code == 0
    listed = evacap("weights", "fetch", "--list")
    assert listed.exit_code == 0
    for text in ("avcap", "BSD-2-Clause", "1030", "initial weights of the encoder", "microsoft"):
        assert text in listed.stdout
    files = {
        file["name"]: file
        for file in json.loads(evacap("weights", "fetch", "--list", "--json").stdout)["files"]
    }
    assert files["bert-base-uncased"]["here"]
    assert not files["avcap"]["here"]
    assert files["git-base"]["url"] == f"{server.url}/git.pt"


def test_only_a_checkpoint_takes_precedence_over_a_fetched_model(
    cache: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny, cache / "models" / "avcap")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("avcap") == cache / "models" / "avcap"
    (tmp_path / "avcap").mkdir()
    assert resolve_model("avcap") == cache / "models" / "avcap"
    (tmp_path / "avcap").rmdir()
    shutil.copytree(tiny, tmp_path / "avcap")
    assert resolve_model("avcap") == Path("avcap")
    with pytest.raises(UsageError):
        resolve_model("../models/avcap")
