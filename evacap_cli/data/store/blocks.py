"""Writes blocks of a store in other processes, also of other machines. Only the holder of the store's lock makes them
valid, so that a process that outlives its run changes nothing."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa

from evacap_cli.atomic import TEMPORARY
from evacap_cli.data.files import STORE_LOCK
from evacap_cli.data.store.index import shard_path
from evacap_cli.data.store.members import Encoding, Packed, Sample, StoreItem, make_packed
from evacap_cli.data.store.shards import ShardWriter
from evacap_cli.errors import EvacapError
from evacap_cli.media.pool import DecodePool

Item = TypeVar("Item", bound=StoreItem)


@dataclass(frozen=True)
class Recipe(Generic[Item]):
    """How samples are made and encoded; picklable. rescue: for items that killed a worker. timeout: seconds per item;
    memory: bytes per worker."""

    make: Callable[[Item], Sample]
    encoding: Encoding
    rescue: Callable[[Item], Sample] | None = None
    timeout: float | None = None
    memory: int | None = None

    def pool(self, workers: int) -> DecodePool[Item, Packed]:
        """Returns processes that make and encode samples."""
        rescue = self.rescue and partial(make_packed, make=self.rescue, encoding=self.encoding)
        return DecodePool(
            workers,
            partial(make_packed, make=self.make, encoding=self.encoding),
            timeout=self.timeout,
            ahead=4 * workers + 4,
            rescue=rescue,
            memory=self.memory,
        )


@dataclass(frozen=True)
class Block(Generic[Item]):
    """Items that share one shard. number: of the shard."""

    number: int
    items: Sequence[Item]


@dataclass
class StagedShard:
    """A shard under a temporary name, `name`, "" if none of its clips has features. rows: of the index."""

    number: int
    name: str
    rows: pa.Table
    notes: list[dict[str, str]] = field(default_factory=list)


Distribute = Callable[[Path, Recipe[Any], Sequence[Block[Any]]], Iterator[StagedShard]]
"""Stages blocks of the store in a folder, and yields each when it is done, in any order."""


def stage_block(folder: Path, block: Block[Item], pool: DecodePool[Item, Packed]) -> StagedShard:
    """Writes the clips of a block, in order, to a shard with a name that no other attempt has.

    Raises EvacapError if the store's folder is not visible here, or writing fails.
    """
    if not (folder / STORE_LOCK).exists():
        raise EvacapError(
            f"{folder}: does not exist on the machine {platform.node()}",
            "give a folder on a file system that all machines of the cluster share",
        )
    name = f"{shard_path(folder, block.number).name}.{secrets.token_hex(4)}{TEMPORARY}"
    notes: list[dict[str, str]] = []
    with ShardWriter(folder, block.number, len(block.items), name) as writer:
        for outcome in pool.imap(block.items, ordered=True):
            notes += writer.add_outcome(outcome)
        staged, rows = writer.stage()
    return StagedShard(block.number, staged, rows, notes)
