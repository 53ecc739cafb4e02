from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from evacap_cli.data.files import take_lock
from evacap_cli.errors import EvacapError
from evacap_cli.tasks.fetching.download import download

from ...servers import FileServer

DATA = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(DATA).hexdigest()
NEVER = [100_000, *[0] * 20]
"""One part of the file, then nothing, for more attempts than are made."""


@pytest.fixture(autouse=True)
def _file(server: FileServer) -> None:
    server.files["/file.bin"] = DATA


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "file.bin"


def kept(path: Path) -> Path:
    return path.parent / "partial" / path.name


def test_a_file_is_downloaded_with_progress(server: FileServer, path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    digest = download(f"{server.url}/file.bin", path, progress=lambda *done: seen.append(done))
    assert (digest, path.read_bytes()) == (SHA256, DATA)
    assert seen[-1] == (len(DATA), len(DATA))
    assert not kept(path).exists()


def test_a_cut_transfer_resumes(server: FileServer, path: Path) -> None:
    server.cut["/file.bin"] = [100_000, 300_000]
    assert download(f"{server.url}/file.bin", path, SHA256) == SHA256
    assert [request.range for request in server.requests] == [None, "bytes=100000-", "bytes=400000-"]


def test_the_next_call_resumes_a_partial_download(server: FileServer, path: Path) -> None:
    server.cut["/file.bin"] = list(NEVER)
    path.parent.mkdir()
    path.write_bytes(b"the old one")
    with pytest.raises(EvacapError, match="cannot be downloaded") as caught:
        download(f"{server.url}/file.bin", path, SHA256, cure="get it elsewhere")
    assert caught.value.cure == "run the same command again to continue after 0.1 MB, or get it elsewhere"
    assert path.read_bytes() == b"the old one"
    server.cut.clear()
    server.requests.clear()
    download(f"{server.url}/file.bin", path, SHA256)
    assert [request.range for request in server.requests] == ["bytes=100000-"]
    assert path.read_bytes() == DATA


def test_without_range_support_the_download_restarts(server: FileServer, path: Path) -> None:
    server.ranges = False
    server.cut["/file.bin"] = [100_000]
    download(f"{server.url}/file.bin", path)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(("before", "requests"), [(DATA, 1), (DATA + b"more", 2)], ids=["all", "too much"])
def test_a_complete_partial_file_is_accepted(
    before: bytes, requests: int, server: FileServer, path: Path
) -> None:
    kept(path).parent.mkdir(parents=True)
    kept(path).write_bytes(before)
    download(f"{server.url}/file.bin", path)
    assert path.read_bytes() == DATA
    assert len(server.requests) == requests


def test_an_unexpected_file_is_not_kept(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"the old one")
    with pytest.raises(EvacapError, match=f"its SHA-256 is {SHA256}, not {'0' * 64}"):
        download(f"{server.url}/file.bin", path, "0" * 64)
    assert path.read_bytes() == b"the old one"
    assert not kept(path).exists()


def test_a_refused_file_is_not_kept(server: FileServer, path: Path) -> None:
    def refuse(file: Path) -> None:
        assert (file.name, file.read_bytes()) == ("file.bin", DATA)
        raise EvacapError("wants to run code")

    with pytest.raises(EvacapError, match="refused: wants to run code"):
        download(f"{server.url}/file.bin", path, check=refuse)
    assert not path.exists()
    assert not kept(path).exists()


def test_a_missing_file_is_reported(server: FileServer, path: Path) -> None:
    with pytest.raises(EvacapError, match="the server answers 404") as caught:
        download(f"{server.url}/none.bin", path, cure="get it elsewhere")
    assert caught.value.cure == "get it elsewhere"
    assert not path.exists()


def test_without_a_network_the_error_has_a_cure(closed_port: str, path: Path) -> None:
    with pytest.raises(EvacapError, match="cannot be downloaded") as caught:
        download(f"{closed_port}/file.bin", path, cure="get it elsewhere")
    assert caught.value.cure == "get it elsewhere"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device is Linux's")
def test_a_full_disk_is_reported(server: FileServer, path: Path) -> None:
    kept(path).parent.mkdir(parents=True)
    kept(path).symlink_to("/dev/full")
    with pytest.raises(EvacapError, match="No space left on device") as caught:
        download(f"{server.url}/file.bin", path)
    assert "free disk space" in caught.value.cure
    assert not path.exists()


def test_a_second_process_does_not_write_to_the_same_file(server: FileServer, path: Path) -> None:
    kept(path).parent.mkdir(parents=True)
    with (kept(path).parent / "lock").open("a+") as lock:
        assert take_lock(lock)
        with pytest.raises(EvacapError, match="another process"):
            download(f"{server.url}/file.bin", path)
    download(f"{server.url}/file.bin", path)
    assert path.read_bytes() == DATA


def test_redirects_are_followed_and_no_token_is_sent(
    server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.redirects["/moved"] = "/file.bin"
    download(f"{server.url}/moved?dl=1", path)
    assert path.read_bytes() == DATA
    assert [request.path for request in server.requests] == ["/moved?dl=1", "/file.bin"]
    assert not any("authorization" in request.headers for request in server.requests)
