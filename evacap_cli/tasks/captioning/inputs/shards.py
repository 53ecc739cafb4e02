"""Reads the clips of shards as inputs: WebDataset tar files, and Parquet files with a column of media bytes."""

from __future__ import annotations

from typing import NamedTuple

from evacap_cli.data.bulk.files import shard_suffix
from evacap_cli.data.bulk.members import Member
from evacap_cli.data.bulk.parquet import PARQUETS, list_parquet, media_column
from evacap_cli.data.bulk.tar import TAR, TarFile, list_tar
from evacap_cli.errors import MediaError


class ShardClips(NamedTuple):
    """The clips of a shard, in order. error: why later clips may be missing."""

    members: list[Member]
    error: str = ""


def is_shard(path: str) -> bool:
    """Whether a file or URL is a tar file, by its suffix, or a Parquet file with media bytes, by its columns."""
    suffix = shard_suffix(path)
    if suffix not in PARQUETS:
        return suffix == TAR
    try:
        return media_column(path) is not None
    except MediaError:
        return False


def read_shard(path: str, shard: str) -> ShardClips:
    """Lists the clips of a shard. shard: its name for outputs."""
    if shard_suffix(path) == TAR:
        listing = list_tar(path)
        return ShardClips([
            _tar_member(shard, sample.key, sample.media, sample.sound)
            for sample in listing.samples if sample.media is not None
        ], listing.error)  # fmt: skip
    members: list[Member] = []
    try:
        column = media_column(path)
        if column is None:
            raise MediaError("no column with media bytes in it")
        for row in list_parquet(path, column):
            members.append(Member(shard, row.key, row.suffix, row.row, column=column.name))
    except MediaError as error:
        return ShardClips(members, error.message)
    return ShardClips(members, "" if members else "no rows in this shard")


def _tar_member(shard: str, key: str, media: TarFile, sound: TarFile | None) -> Member:
    heard = None if sound is None else _tar_member(shard, key, sound, None)
    return Member(shard, key, media.suffix, media.position, media.size, sound=heard)
