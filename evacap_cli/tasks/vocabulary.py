"""The vocabulary of BERT, which GIT and AVCap use. Only `evacap weights fetch` and `fetch-vocab` download it."""

from __future__ import annotations

from pathlib import Path

from evacap_cli.cache import cache_folder
from evacap_cli.errors import UsageError
from evacap_cli.tasks.fetching.table import read_table

VOCABULARY = "bert-base-uncased"
"""Its name in the table of published files."""


def vocabulary_path() -> Path:
    """Returns the path of the downloaded vocabulary, which may not exist."""
    return cache_folder() / VOCABULARY / "vocab.txt"


def find_vocabulary(path: Path | None = None) -> Path:
    """Returns `path`, or the path of the downloaded vocabulary. Raises UsageError if the file does not exist."""
    found = vocabulary_path() if path is None else Path(path)
    if found.is_file():
        return found
    if path is not None:
        raise UsageError(f"--vocab {path}: no such file", "give bert-base-uncased's vocab.txt")
    url = read_table()[VOCABULARY].url
    raise UsageError(
        "BERT's word list is needed, but is not on this machine",
        f"run `evacap weights fetch-vocab`, or download {url} on another machine and copy it to {found} "
        "(or name it with --vocab)",
    )
