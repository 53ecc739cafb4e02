"""Writes a feature store shard by shard. An interrupted run leaves a valid store that the next run continues.

A shard is valid once its index part exists. At the end, all parts are merged into `index.parquet`. Until then, the
store is not complete, and the next run processes the items without a row.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from evacap_cli.atomic import TEMPORARY
from evacap_cli.data.files import STORE_LOCK, disk_errors, locked, size_of
from evacap_cli.data.store.blocks import Block, Distribute, Recipe
from evacap_cli.data.store.index import (
    INDEX,
    MADE,
    NOTE,
    OWN,
    STATUSES,
    StoreNote,
    latest,
    numbered,
    read_index,
    shard_path,
    write_index,
)
from evacap_cli.data.store.members import Encoding, Packed, Sample, StoreItem
from evacap_cli.data.store.shards import ShardWriter, entry_hash, publish
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.features.settings import FeatureSettings
from evacap_cli.media.pool import DecodePool

Item = TypeVar("Item", bound=StoreItem)
Progress = Callable[[int, int], None]  # clips done, total clips
KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass
class StoreReport:
    """The result of a run. counts: items of this run by status. failed: those without features (key, source, status,
    error). new: items that this run processed. clips, bytes: totals of the whole store; other: clips that are not among
    the items of this run. damaged: truncated or missing shards whose clips were made again. notes: remarks on the clips
    that this run made (key, source, note), see `Sample`.
    """

    counts: dict[str, int]
    failed: list[dict[str, str]]
    new: int
    clips: int
    bytes: int
    other: int
    seconds: float
    damaged: list[str]
    notes: list[dict[str, str]]


def write_store(
    folder: str | Path,
    items: Sequence[Item],
    make: Callable[[Item], Sample],
    settings: FeatureSettings,
    *,
    rescue: Callable[[Item], Sample] | None = None,
    frames_format: str = "jpeg",
    jpeg_quality: int = 95,
    made_with: Mapping[str, Any] | None = None,
    workers: int = 1,
    timeout: float | None = None,
    memory: int | None = None,
    shard_clips: int = 256,
    retry_failed: bool = False,
    overwrite: bool = False,
    media: Sequence[Path] = (),
    progress: Progress | None = None,
    distribute: Distribute | None = None,
) -> StoreReport:
    """Makes samples of the items that the store lacks, in `workers` processes (0: in this process), and writes them.

    `make` and `rescue` must be picklable; `rescue` processes items that killed a worker. If they raise an error, the
    item gets a row with status `failed`. An item with an `error` gets the status `missing`; a later run makes it once
    it has no error. `made_with`: other settings that affect the contents. Raises UsageError if the store has other
    settings, or other captions or sources for the same clips, unless `overwrite`. `timeout`: seconds per item;
    `memory`: bytes per worker. `media`: the folders of the media files, which reports use to find them. `distribute`:
    makes the shards elsewhere, instead of `workers`.
    """
    folder = Path(folder)
    quality = jpeg_quality if frames_format == "jpeg" else None
    made = json.loads(json.dumps(dict(made_with or {})))  # the same types as after reading a file
    note = StoreNote(
        settings, frames_format, quality, made, media=[_relative(path, folder) for path in media]
    )
    encoding = Encoding(settings, frames_format, jpeg_quality)
    _check_keys(items)
    began = time.monotonic()
    _check_folder(folder)
    with locked(folder, "store"):
        with disk_errors(folder):
            damaged = _begin(folder, note, overwrite)
            tables, following = _read(folder)
            todo = _todo(folder, items, latest(tables), retry_failed)
            if todo:
                note.write(folder)
        recipe = Recipe(make, encoding, rescue, timeout, memory)
        if distribute is not None:
            notes = _collect(folder, following, recipe, todo, shard_clips, distribute, len(items), progress)
        else:
            with ShardWriter(folder, following, shard_clips) as writer, recipe.pool(workers) as pool:
                try:
                    notes = _fill(writer, pool, todo, len(items), progress)
                    writer.commit()
                except (KeyboardInterrupt, EvacapError):
                    if not writer.committing:
                        writer.commit()  # keep the finished clips
                    raise
        with disk_errors(folder):
            new = sum(not item.error for item in todo)
            return _finish(folder, note, items, new, damaged, notes, began)


def _relative(path: Path, folder: Path) -> str:
    """`path` relative to `folder`, so that both can be moved together."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return str(path.absolute())


def _fill(
    writer: ShardWriter,
    pool: DecodePool[Item, Packed],
    todo: Sequence[Item],
    total: int,
    progress: Progress | None,
) -> list[dict[str, str]]:
    """Writes a row for every item, with its sample if there is one, in the order of completion. Returns their notes."""
    done = total - len(todo)
    notes: list[dict[str, str]] = []
    for item in todo:
        if item.error:
            writer.add(item, None, "missing", item.error)
            done += 1
    if progress:
        progress(done, total)
    for outcome in pool.imap((item for item in todo if not item.error), ordered=False):
        notes += writer.add_outcome(outcome)
        done += 1
        if progress:
            progress(done, total)
    return notes


def _collect(
    folder: Path,
    following: int,
    recipe: Recipe[Item],
    todo: Sequence[Item],
    shard_clips: int,
    distribute: Distribute,
    total: int,
    progress: Progress | None,
) -> list[dict[str, str]]:
    """Publishes a shard for every block of items, in the order of completion. Returns the notes of the clips."""
    missing, rest = [item for item in todo if item.error], [item for item in todo if not item.error]
    with ShardWriter(folder, following, shard_clips) as writer:
        for item in missing:
            writer.add(item, None, "missing", item.error)
        writer.commit()
        following = writer.number
    done, notes = total - len(rest), []
    if progress:
        progress(done, total)
    starts = range(0, len(rest), shard_clips)
    blocks = [Block(following + i, rest[start : start + shard_clips]) for i, start in enumerate(starts)]
    for staged in distribute(folder.absolute(), recipe, blocks):
        with disk_errors(folder):
            publish(folder, staged.number, folder / staged.name if staged.name else None, staged.rows)
        notes += staged.notes
        done += len(staged.rows)
        if progress:
            progress(done, total)
    with disk_errors(folder):
        _remove_temporary(folder)  # of attempts that were repeated
    return notes


def _remove_temporary(folder: Path) -> None:
    for path in folder.glob(f"*{TEMPORARY}"):
        if OWN.fullmatch(path.name):
            path.unlink()


def _check_folder(folder: Path) -> None:
    """Raises UsageError if the folder has other files and no store."""
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in there if not OWN.fullmatch(name)]
    if foreign and NOTE not in there:
        raise UsageError(
            f"{folder}: contains files that are not of a store "
            f"({', '.join(foreign[:3])}{', ...' * (len(foreign) > 3)})",
            "give a new or an empty folder",
        )


def _begin(folder: Path, note: StoreNote, overwrite: bool) -> list[str]:
    """Prepares the folder for new rows with the settings of `note`. Returns the names of damaged shards."""
    _remove_temporary(folder)
    if overwrite:
        # delete the index before the shards it refers to
        parts = [*numbered(folder, "index-*.parquet").values(), *numbered(folder, "shard-*.tar").values()]
        for path in (folder / INDEX, *parts, folder / NOTE):
            path.unlink(missing_ok=True)
    elif any(path.name != STORE_LOCK for path in folder.iterdir()):
        wrong = StoreNote.read(folder).differences(note)
        if wrong:
            raise UsageError(
                f"{folder}: the store was made with other settings: {'; '.join(wrong)}",
                "give another folder, or recreate this one with --overwrite",
            )
    return _clean(folder, note)


def _clean(folder: Path, note: StoreNote) -> list[str]:
    """Removes index parts that are already merged, shards without rows, and rows of truncated or missing shards."""
    parts = numbered(folder, "index-*.parquet")
    index = folder / INDEX
    files = []
    if index.exists():
        following = read_index(index)[1]
        for number in [number for number in parts if number < following]:
            parts.pop(number).unlink()
        files = [index]
    files += parts.values()
    known: set[int] = set()
    damaged: list[str] = []
    for path in files:
        table, following = read_index(path)
        ends: dict[int, int] = {}
        for shard, json_, frames, fbank in zip(
            *(table[name].to_pylist() for name in ("shard", "json", "frames", "fbank")), strict=True
        ):
            if shard is not None:
                last = max(member["offset"] + member["size"] for member in (json_, fbank, *frames))
                ends[shard] = max(ends.get(shard, 0), last)
        lost = [shard for shard, end in ends.items() if size_of(shard_path(folder, shard)) < end]
        if lost:
            note.write(folder)  # the store is no longer complete
            damaged += [shard_path(folder, shard).name for shard in lost]
            keep = [shard not in lost for shard in table["shard"].to_pylist()]
            write_index(path, table.filter(pa.array(keep)), following)
        known |= set(ends) - set(lost)
    for number, path in numbered(folder, "shard-*.tar").items():
        if number not in known:
            path.unlink()
    return damaged


def _read(folder: Path) -> tuple[list[pa.Table], int]:
    """All tables of rows, oldest first, and the number of the next shard."""
    paths = [folder / INDEX] if (folder / INDEX).exists() else []
    found = [read_index(path) for path in (*paths, *numbered(folder, "index-*.parquet").values())]
    return [table for table, _ in found], max((following for _, following in found), default=0)


def _todo(folder: Path, items: Sequence[Item], before: pa.Table, retry_failed: bool) -> list[Item]:
    """Items without a row, and failed or missing items that this run retries."""
    columns = (before[name].to_pylist() for name in ("key", "status", "entry"))
    known = {key: (status, entry) for key, status, entry in zip(*columns, strict=True)}
    todo, changed = [], []
    for item in items:
        status, entry = known.get(item.key, ("", ""))
        other = entry != entry_hash(item)
        if status in MADE:
            if other:
                changed.append(item.key)
        elif not status or other or (retry_failed if status == "failed" else not item.error):
            todo.append(item)
    if changed:
        names = ", ".join(changed[:5]) + ", ..." * (len(changed) > 5)
        raise UsageError(
            f"{folder}: the captions or source of {len(changed)} clips changed since they were stored: {names}",
            "give another folder, or recreate this one with --overwrite",
        )
    return todo


def _finish(
    folder: Path,
    note: StoreNote,
    items: Sequence[StoreItem],
    new: int,
    damaged: list[str],
    notes: list[dict[str, str]],
    began: float,
) -> StoreReport:
    """Merges all parts into one index in the order of the items. Clips that are not among the items follow."""
    tables, following = _read(folder)
    table = latest(tables)
    position = {item.key: number for number, item in enumerate(items)}
    keys = table["key"].to_pylist()
    order = sorted(range(len(keys)), key=lambda row: position.get(keys[row], len(position)))
    parts = numbered(folder, "index-*.parquet")
    table = table.take(pa.array(order, pa.int64()))
    if parts or not (folder / INDEX).exists() or order != list(range(len(keys))):
        write_index(folder / INDEX, table, following)
    for path in parts.values():
        path.unlink()
    rows = table.select(["key", "source", "status", "error"]).to_pylist()
    note.counts = _counts(rows)
    note.bytes = sum(size_of(path) for path in numbered(folder, "shard-*.tar").values())
    note.complete = True
    note.write(folder)
    requested = [row for row in rows if row["key"] in position]
    return StoreReport(
        counts=_counts(requested),
        failed=[row for row in requested if row["status"] not in MADE],
        new=new,
        clips=sum(note.counts[status] for status in MADE),
        bytes=note.bytes,
        other=sum(row["key"] not in position and row["status"] in MADE for row in rows),
        seconds=time.monotonic() - began,
        damaged=damaged,
        notes=notes,
    )


def _counts(rows: Sequence[Mapping[str, str]]) -> dict[str, int]:
    counts = Counter(row["status"] for row in rows)
    return {status: counts[status] for status in STATUSES}


def _check_keys(items: Sequence[StoreItem]) -> None:
    counts = Counter(item.key for item in items)
    wrong = [key for key, count in counts.items() if count > 1 or not KEY.fullmatch(key)]
    if wrong:
        raise UsageError(
            f"keys must be unique and contain only letters, digits, _ and -: {', '.join(map(repr, wrong[:5]))}",
            "rename the clips",
        )
