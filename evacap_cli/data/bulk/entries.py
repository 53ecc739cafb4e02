"""The samples of shards as clips with captions, as those of a manifest."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evacap_cli.data.bulk.files import expand_range, is_remote, shard_name, shard_suffix, state_of
from evacap_cli.data.bulk.members import Member
from evacap_cli.data.bulk.parquet import PARQUETS, list_parquet, media_column
from evacap_cli.data.bulk.tar import TAR, TarFile, list_tar
from evacap_cli.data.manifest import Entry
from evacap_cli.data.manifest.columns import is_caption
from evacap_cli.data.manifest.keys import Keys
from evacap_cli.errors import MediaError, UsageError

_TEXT = "text"


def find_shards(name: str) -> list[str]:
    """Returns the paths of shards that a name stands for: a tar file, a Parquet file with media bytes, a range such as
    `shard-{000..999}.tar`, or a wildcard. Returns nothing for other names, such as those of manifests.

    Raises UsageError if shards of a range do not exist.
    """
    if shard_suffix(name) not in (TAR, *PARQUETS):
        return []
    found = [name] if os.path.lexists(name) else expand_range(name)
    if len(found) == 1 and not os.path.lexists(name):
        found = sorted(glob.glob(name))
    if missing := [path for path in found if not os.path.exists(path)]:
        raise UsageError(
            f"{name}: {len(missing)} shards do not exist, the first is {missing[0]}", "check the name"
        )
    return found if all(map(_has_media, found)) else []


def read_shard_entries(paths: Iterable[str]) -> list[Entry]:
    """Returns the samples of shards, which are files or URLs, as clips in order, with the captions of their `.json`
    (`caption`, `captions`, `text`), otherwise of their `.txt`, or of such columns.

    A damaged shard also gives an entry with an `error`.
    """
    keys = Keys()
    entries = []
    for path in paths:
        name = shard_name(path)
        try:
            mtime = None if is_remote(path) else state_of(path)[1]
            for member, captions in _samples(path):
                file = f"{name}/{member.key}{member.suffix}"
                key = keys.make(member.key, file)
                place = path if is_remote(path) else Path(path)
                entries.append(Entry(key, file, captions, place, member=member, mtime_ns=mtime))
        except MediaError as error:
            entries.append(Entry(keys.make(f"{name}-rest", name), name, (), None, error=error.message))
    return entries


def _has_media(path: str) -> bool:
    if shard_suffix(path) == TAR:
        return True
    try:
        return media_column(path) is not None
    except MediaError:
        return False


def _samples(path: str) -> Iterator[tuple[Member, tuple[str, ...]]]:
    """Yields the members of a shard with their captions. Raises MediaError if the shard is damaged."""
    if shard_suffix(path) == TAR:
        listing = list_tar(path, texts=True)
        for sample in listing.samples:
            assert sample.media is not None
            sound = None if sample.sound is None else _member(sample.key, sample.sound)
            yield _member(sample.key, sample.media, sound), _captions_of(sample.texts)
        if listing.error:
            raise MediaError(listing.error)
        return
    column = media_column(path)
    assert column is not None
    for row in list_parquet(path, column, _is_caption):
        yield Member("", row.key, row.suffix, row.row, column=column.name), _captions_in(row.cells)


def _member(key: str, file: TarFile, sound: Member | None = None) -> Member:
    return Member("", key, file.suffix, file.position, file.size, sound=sound)


def _captions_of(texts: Mapping[str, bytes]) -> tuple[str, ...]:
    try:
        found = json.loads(texts.get(".json", b"{}"))
    except ValueError:
        found = {}
    captions = _captions_in(found) if isinstance(found, dict) else ()
    text = texts.get(".txt", b"").decode("utf-8", "replace").strip()
    return captions or ((text,) if text else ())


def _captions_in(cells: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the captions of an object or a row: its texts, and lists of texts, under the names of captions."""
    captions: list[str] = []
    for name, value in cells.items():
        if _is_caption(name):
            values = value if isinstance(value, list) else [value]
            captions += [text for each in values if isinstance(each, str) and (text := each.strip())]
    return tuple(captions)


def _is_caption(name: str) -> bool:
    plain = name.strip().lower()
    return plain == _TEXT or is_caption(plain)
