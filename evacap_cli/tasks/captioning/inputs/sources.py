"""The inputs of a run: files, URLs, and parts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # keeps workers that read files from importing the code of shards
    from evacap_cli.data.bulk.members import Member


@dataclass(frozen=True, slots=True)
class Source:
    """One input: a file, a URL, a member of a shard, or a part of one.

    name: the value of the column `video`. path: the path or URL to open. start, end: the part in seconds, None for the
    whole file. size (bytes), mtime_ns: when it was listed, None if unknown. error: why it cannot be read, if known
    already. same_as: number of an earlier source with the same content and part. relative: its path below an output
    folder. member: the file inside the shard `path`; then `size` is the member's, and `mtime_ns` the shard's.
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
    member: Member | None = None


class Sources(list[Source]):
    """Inputs in order. left_out: number of files in folders that are no inputs, by reason ('no media', 'hidden')."""

    def __init__(self, sources: Iterable[Source] = (), left_out: Counter[str] | None = None) -> None:
        super().__init__(sources)
        self.left_out: Counter[str] = left_out or Counter()
