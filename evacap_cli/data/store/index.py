"""The metadata of a store: `store.yaml` with its settings, and the index of its clips."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from evacap_cli.atomic import written_whole
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.features.settings import FeatureSettings

FORMAT = 1  # increment when older stores can no longer be read
NOTE, INDEX = "store.yaml", "index.parquet"
OWN = re.compile(
    r"(?:store\.yaml|index\.parquet|shard-\d{6}\.tar|index-\d{6}\.parquet)(?:(?:\.[0-9a-f]{8})?\.tmp)?|store\.lock"
)
"""Matches the names of all files of a store, including temporary files after a kill."""
STATUSES = ("ok", "audio-only", "missing", "failed")
MADE = STATUSES[:2]  # statuses of clips with features
MEMBER = pa.struct([("offset", pa.int64()), ("size", pa.int64()), ("crc32", pa.int64())])
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),  # null if the clip has no features
        ("json", MEMBER),
        ("fbank", MEMBER),
        ("frames", pa.list_(MEMBER)),  # one per JPEG, or one for all frames
        ("seconds", pa.float64()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("captions", pa.list_(pa.string())),
        ("source", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("entry", pa.string()),  # hash of the manifest entry
    ]
)


@dataclass
class StoreNote:
    """The contents of `store.yaml`. made_with: other settings that affect the contents. counts: clips by status. media:
    the folders, relative to the store's, that contain the media files."""

    features: FeatureSettings
    frames_format: str = "jpeg"
    jpeg_quality: int | None = 95  # None for raw frames
    made_with: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    media: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        values = {
            "format": FORMAT,
            "fingerprint": self.features.fingerprint(),
            **asdict(self),
            "features": self.features.to_dict(),
        }
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        with written_whole(folder / NOTE) as aside:
            aside.write_text(text, "utf-8")

    @classmethod
    def read(cls, folder: Path) -> StoreNote:
        """Raises EvacapError if `folder` is not a store of this format."""
        path = folder / NOTE
        try:
            values = yaml.safe_load(path.read_text("utf-8"))
        except OSError as error:
            raise EvacapError(
                f"{folder}: not a feature store (no {NOTE}: {error.strerror})",
                "create one with `evacap prepare MANIFEST -o STORE`; --overwrite replaces a damaged store",
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise EvacapError(f"{path}: damaged: {error}", "recreate the store with --overwrite") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else None
            raise EvacapError(
                f"{path}: this version reads format {FORMAT}, not {found!r}",
                "recreate the store with --overwrite, or update evacap",
            )
        known = {name: values[name] for name in (f.name for f in fields(cls)) if name in values}
        try:
            return cls(**{**known, "features": FeatureSettings.from_dict(known["features"])})
        except (TypeError, KeyError, UsageError) as error:
            raise EvacapError(f"{path}: damaged: {error}", "recreate the store with --overwrite") from error

    def differences(self, other: StoreNote) -> list[str]:
        """The settings that differ between this store and `other`, one per item."""
        mine, wanted = self._decides(), other._decides()
        return differing(mine, wanted)

    def _decides(self) -> dict[str, Any]:
        rest = {"frames_format": self.frames_format, "jpeg_quality": self.jpeg_quality}
        return {**self.features.to_dict(), **rest, **self.made_with}


def differing(mine: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Describes every name whose values differ."""
    names = list(dict.fromkeys([*mine, *wanted]))
    return [
        f"{name} = {mine.get(name)} in the store, {wanted.get(name)} wanted"
        for name in names
        if mine.get(name) != wanted.get(name)
    ]


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06}.tar"


def part_path(folder: Path, number: int) -> Path:
    """The path of the index part of one shard. All parts are merged when the store is complete."""
    return folder / f"index-{number:06}.parquet"


def numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Shards (`shard-*.tar`) or index parts (`index-*.parquet`) by number."""
    return {
        int(path.name.split(".")[0].split("-")[1]): path
        for path in sorted(folder.glob(pattern))
        if OWN.fullmatch(path.name)
    }


def write_index(path: Path, table: pa.Table, following: int = 0) -> None:
    """Writes an index. `following`: the number of the first shard that is not in it."""
    table = table.replace_schema_metadata({"following": str(following)})
    with written_whole(path) as aside:
        pq.write_table(table, aside)


def read_index(path: Path) -> tuple[pa.Table, int]:
    """(rows, following). Raises EvacapError."""
    try:
        # single-threaded, because the caller may fork and threads do not survive a fork
        table = pq.read_table(path, schema=SCHEMA, use_threads=False)
        return table, int((pq.read_schema(path).metadata or {}).get(b"following", 0))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise EvacapError(f"{path}: damaged: {error}", "recreate the store with --overwrite") from error


def latest(tables: Sequence[pa.Table]) -> pa.Table:
    """One row per key, from the last table that has the key."""
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    last = {key: row for row, key in enumerate(table["key"].to_pylist())}
    return table if len(last) == len(table) else table.take(sorted(last.values()))
