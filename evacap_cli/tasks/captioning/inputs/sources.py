"""The inputs of a run: files, URLs, and parts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """One input: a file, a URL, or a part of one.

    name: the value of the column `video`. path: the path or URL to open. start, end: the part in seconds, None for the
    whole file. size (bytes), mtime_ns: when it was listed, None if unknown. error: why it cannot be read, if known
    already. same_as: number of an earlier source with the same content and part. relative: its path below an output
    folder.
    """

    name: str
    path: str
    start: float | None = None
    end: float | None = None
    size: int | None = None
    mtime_ns: int | None = None
    error: str = ""
    same_as: int | None = None
    relative: str = ""


class Sources(list[Source]):
    """Inputs in order. left_out: number of files in folders that are no inputs, by reason ('no media', 'hidden')."""

    def __init__(self, sources: Iterable[Source] = (), left_out: Counter[str] | None = None) -> None:
        super().__init__(sources)
        self.left_out: Counter[str] = left_out or Counter()
