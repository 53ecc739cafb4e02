"""BERT's word list: found, fetched whole or not at all, and what is said when it cannot be had."""

from __future__ import annotations

import hashlib
import io
import urllib.error
from pathlib import Path
from typing import BinaryIO

import pytest

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks import vocabulary
from evacap_cli.tasks.vocabulary import fetch_vocabulary, find_vocabulary, vocabulary_path

from ..conftest import Evacap

WORDS = b"[PAD]\n[UNK]\ndog\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVACAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vocabulary, "SHA256", hashlib.sha256(WORDS).hexdigest())
    return tmp_path / "cache"


def answering(data: bytes) -> object:
    def open_url(url: str, timeout: float) -> BinaryIO:
        assert url.startswith("https://")
        return io.BytesIO(data)

    return open_url


def offline(url: str, timeout: float) -> BinaryIO:
    raise urllib.error.URLError("no route to host")


def test_fetched_once_and_then_found(cache: Path) -> None:
    place = fetch_vocabulary(answering(WORDS))  # type: ignore[arg-type]
    assert place.read_bytes() == WORDS
    assert [path for path in cache.rglob("*") if path.is_file()] == [place]
    assert find_vocabulary() == place
    assert fetch_vocabulary(offline) == place


@pytest.mark.parametrize("data", [b"", WORDS[:-1], WORDS + b"more\n", b"<html>"])
def test_another_file_is_not_kept(data: bytes, cache: Path) -> None:
    with pytest.raises(EvacapError, match="not the expected file"):
        fetch_vocabulary(answering(data))  # type: ignore[arg-type]
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_damaged_copy_is_fetched_again() -> None:
    vocabulary_path().parent.mkdir(parents=True)
    vocabulary_path().write_bytes(WORDS[:5])
    assert fetch_vocabulary(answering(WORDS)).read_bytes() == WORDS  # type: ignore[arg-type]


def test_offline_it_says_what_to_get_and_where_to_put_it(
    evacap: Evacap, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EvacapError) as caught:
        fetch_vocabulary(offline)
    assert vocabulary.URL in caught.value.cure
    assert str(vocabulary_path()) in caught.value.cure
    assert caught.value.exit_code == 1


def test_without_it_both_ways_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_vocabulary()
    assert "weights fetch-vocab" in caught.value.cure
    assert "--vocab" in caught.value.cure
    with pytest.raises(UsageError, match=r"none\.txt: no such file"):
        find_vocabulary(tmp_path / "none.txt")
