"""`fetch-vocab`: the entry of the table whose SHA-256 is known."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from evacap_cli.errors import EvacapError
from evacap_cli.tasks.fetching import table
from evacap_cli.tasks.fetching.fetch import fetch
from evacap_cli.tasks.fetching.table import PublishedFile, read_table
from evacap_cli.tasks.vocabulary import VOCABULARY, find_vocabulary, vocabulary_path

from ...conftest import Evacap
from ...servers import FileServer

WORDS = b"[PAD]\n[UNK]\ndog\n"


@pytest.fixture
def entries(server: FileServer) -> dict[str, PublishedFile]:
    server.files["/vocab.txt"] = WORDS
    entry = replace(
        read_table()[VOCABULARY], url=f"{server.url}/vocab.txt", sha256=hashlib.sha256(WORDS).hexdigest()
    )
    return {VOCABULARY: entry}


def test_fetched_once_and_then_found(server: FileServer, entries: dict[str, PublishedFile]) -> None:
    (found,) = fetch(VOCABULARY, entries)
    assert found.path == find_vocabulary() == vocabulary_path()
    assert found.path.read_bytes() == WORDS
    server.files.clear()
    assert not fetch(VOCABULARY, entries)[0].downloaded


@pytest.mark.parametrize("data", [b"", WORDS[:-1], WORDS + b"more\n", b"<html>"])
def test_another_file_is_not_kept(
    data: bytes, server: FileServer, entries: dict[str, PublishedFile], cache: Path
) -> None:
    server.files["/vocab.txt"] = data
    with pytest.raises(EvacapError, match="not the expected file"):
        fetch(VOCABULARY, entries)
    assert not [path for path in cache.rglob("vocab*") if path.is_file()]


def test_a_damaged_copy_is_downloaded_again(entries: dict[str, PublishedFile]) -> None:
    vocabulary_path().parent.mkdir(parents=True)
    vocabulary_path().write_bytes(WORDS[:5])
    assert fetch(VOCABULARY, entries)[0].path.read_bytes() == WORDS


def test_the_command_prints_the_path_or_the_cure(
    evacap: Evacap, entries: dict[str, PublishedFile], server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "read_table", lambda: entries)
    server.redirects["/vocab.txt"] = "/nowhere"
    offline = evacap("weights", "fetch-vocab")
    assert offline.exit_code == 1
    assert f"download {entries[VOCABULARY].url} in a browser" in offline.stderr
    assert str(vocabulary_path()) in offline.stderr
    server.redirects.clear()
    fetched = evacap("weights", "fetch-vocab")
    assert (fetched.exit_code, fetched.stderr) == (0, f"{vocabulary_path()}\n")
