"""What the pages of result folders have in common."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

Facts = Sequence[tuple[str, str]]


def prefixes(folders: Sequence[Path]) -> list[str]:
    """The text before the model names of each folder: its name and a colon, or nothing for a single folder."""
    if len(folders) == 1:
        return [""]
    names = [folder.absolute().name for folder in folders]
    return [
        f"{name if names.count(name) == 1 else folder}: " for name, folder in zip(names, folders, strict=True)
    ]


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 clip`, `1,200 clips`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def word_change(one: str, other: str) -> float:
    """The share of the words of two captions that only one of them has, 0 to 1."""
    a, b = set(one.lower().split()), set(other.lower().split())
    return 1 - len(a & b) / len(a | b) if a | b else 0.0
