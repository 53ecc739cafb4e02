"""The vocabulary of BERT: where it is looked for, and what is printed if it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from evacap_cli.errors import UsageError
from evacap_cli.tasks.fetching.table import read_table
from evacap_cli.tasks.vocabulary import VOCABULARY, find_vocabulary, vocabulary_path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVACAP_CACHE", str(tmp_path / "cache"))


def test_the_file_in_the_cache_folder_is_found() -> None:
    vocabulary_path().parent.mkdir(parents=True)
    vocabulary_path().write_text("[PAD]\n")
    assert find_vocabulary() == vocabulary_path()


def test_without_it_the_error_lists_the_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_vocabulary()
    for way in ("weights fetch-vocab", "--vocab", read_table()[VOCABULARY].url, str(vocabulary_path())):
        assert way in caught.value.cure
    with pytest.raises(UsageError, match=r"none\.txt: no such file"):
        find_vocabulary(tmp_path / "none.txt")
