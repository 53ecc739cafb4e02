"""Prepares a feature store: decodes every clip of a manifest once, in worker processes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from evacap_cli.data.bulk.entries import find_shards, read_shard_entries
from evacap_cli.data.bulk.files import expand_range
from evacap_cli.data.manifest import Entry, read_manifest
from evacap_cli.data.store import FRAMES_FORMATS, Progress, Store, StoreReport, write_store
from evacap_cli.errors import MediaError, UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.media import TRACKS, WINDOW_MODES, is_track
from evacap_cli.model.checkpoint import read_features
from evacap_cli.model.presets import load_preset
from evacap_cli.tasks.captioning.inputs.shards import is_shard
from evacap_cli.tasks.captioning.inputs.urls import (
    check_protocol,
    is_url,
    list_remote,
    protocol,
    without_password,
)
from evacap_cli.tasks.clips import SAFE_READERS, ClipSettings, load_entry
from evacap_cli.tasks.cluster.pipeline import ClusterOptions
from evacap_cli.tasks.cluster.preparing import stage_on_cluster

DEFAULT_PRESET = "evacap-base"
MAX_NAMES = 3  # clips named for each cause of failure
MAX_FAILURES = 10  # failures listed in messages; the store's index has all


@dataclass(frozen=True)
class PrepareOptions:
    """Settings of a store; `workers` None: the number of cores."""

    frames_format: str = "jpeg"
    jpeg_quality: int = 95
    window: str = "loudest"
    """Which part of a long file to use, unless the manifest gives one."""
    audio_track: str | None = None
    """The audio track: its number, from 1, or its language; None: the default track."""
    workers: int | None = None
    """Decoding processes; 0 decodes in this process, without limits on time and memory."""
    timeout: float = 300.0
    """Time limit for decoding one clip, in seconds."""
    memory: float = 4.0
    """Memory limit of one worker in GiB; 0: no limit."""
    shard_clips: int = 256
    retry_failed: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        wrong = [
            f"--{name.replace('_', '-')} {getattr(self, name)} must be {allowed}"
            for name, valid, allowed in (
                ("frames_format", self.frames_format in FRAMES_FORMATS, " or ".join(FRAMES_FORMATS)),
                ("jpeg_quality", 1 <= self.jpeg_quality <= 100, "from 1 to 100"),
                ("window", self.window in WINDOW_MODES, f"one of {', '.join(WINDOW_MODES)}"),
                ("audio_track", self.audio_track is None or is_track(self.audio_track), TRACKS),
                ("workers", self.workers is None or self.workers >= 0, "0 or more"),
                ("timeout", self.timeout > 0, "more than 0"),
                ("memory", self.memory >= 0, "0 or more"),
                ("shard_clips", self.shard_clips >= 1, "1 or more"),
            )
            if not valid
        ]
        if wrong:
            raise UsageError("; ".join(wrong))


def prepare(
    manifest: str | Path,
    out: str | Path,
    features: FeatureSettings,
    *,
    media: str | Path | None = None,
    progress: Progress | None = None,
    cluster: ClusterOptions | None = None,
    **options: Any,
) -> StoreReport:
    """Reads the clips of a manifest or of shards into the store `out`; `options` are those of PrepareOptions.
    Shards may be URLs.

    `cluster`: where the clips are decoded, None for this machine. After an interruption, the same call resumes. Clips
    that cannot be read and missing files are recorded in the store's index. Raises UsageError if the manifest or the
    options are invalid, or if the store was made with other settings.
    """
    chosen = PrepareOptions(**options)
    remote, name = is_url(str(manifest)), without_password(str(manifest))
    if shards := _remote_shards(str(manifest)) if remote else find_shards(str(manifest)):
        if media is not None:
            raise UsageError(f"--media {media}: {name} contains its media", "omit --media")
        entries = read_shard_entries(shards)
        if not entries:
            raise UsageError(f"{name}: contains no clips", "check the name")
    else:
        entries = read_manifest(Path(manifest), None if media is None else Path(media))
    if cluster is not None:
        entries = [_absolute(entry) for entry in entries]
    folders = [] if remote else [Path(media or Path(manifest).parent), Path(manifest).parent]
    workers = available_cores() if chosen.workers is None else chosen.workers
    settings = ClipSettings(features, window=chosen.window, audio_track=chosen.audio_track)
    made_with = {"window": chosen.window}
    if chosen.audio_track is not None:  # only then: stores from before this option existed stay valid
        made_with["audio_track"] = chosen.audio_track
    return write_store(
        out,
        entries,
        partial(load_entry, settings=settings),
        features,
        rescue=partial(load_entry, settings=settings, readers=SAFE_READERS),
        frames_format=chosen.frames_format,
        jpeg_quality=chosen.jpeg_quality,
        made_with=made_with,
        workers=min(workers, max(1, len(entries))),
        timeout=chosen.timeout,
        memory=round(chosen.memory * 2**30) or None,
        shard_clips=chosen.shard_clips,
        retry_failed=chosen.retry_failed,
        overwrite=chosen.overwrite,
        media=list(dict.fromkeys(folders)),
        progress=progress,
        distribute=None if cluster is None else partial(stage_on_cluster, cluster=cluster),
    )


def _remote_shards(url: str) -> list[str]:
    """Returns the URLs of the shards that a URL, a range or a pattern stands for. Raises UsageError if there are none,
    or other files."""
    check_protocol(protocol(url))
    found = expand_range(url)
    try:
        found = found if len(found) > 1 else list_remote(url, Counter())
    except MediaError as error:
        raise UsageError(f"{without_password(url)}: {error.message}", error.cure) from error
    if not found or not all(map(is_shard, found)):
        raise UsageError(
            f"{without_password(url)}: is no shard with media",
            "only .tar and .parquet with media may be URLs",
        )
    return found


def prepare_inside(
    source: str | Path, folder: Path, features: FeatureSettings, **options: Any
) -> StoreReport:
    """Calls `prepare` for the clips of a command that was given a manifest or shards instead of a store. folder: inside
    the command's output. Raises UsageError if an earlier run prepared other clips in it."""
    cure = f"delete {folder}, or use another -o"
    try:
        report = prepare(source, folder, features, **options)
    except UsageError as error:
        if error.message.startswith(f"{folder}: "):
            raise UsageError(error.message, cure) from error
        raise
    if report.other:
        raise UsageError(f"{folder}: contains {report.other} clips that are not in {source}", cure)
    return report


def describe_store(name: str, store: Store) -> list[str]:
    """Returns lines with the number of clips and the first of those that could not be read."""
    lines = [f"{name}: {len(store)} clips"]
    if store.failed:
        lines[0] += f", {len(store.failed)} more could not be read or found"
    return [*lines, *(f"  {clip['source']}: {clip['error']}" for clip in store.failed[:MAX_FAILURES])]


def _absolute(entry: Entry) -> Entry:
    """Returns an entry whose paths do not depend on the working directory, which actors do not share."""
    pictures = tuple(picture.absolute() for picture in entry.pictures)
    path = entry.path.absolute() if isinstance(entry.path, Path) else entry.path
    return replace(entry, path=path, pictures=pictures)


def features_of(preset: str | None = None, model: str | Path | None = None) -> FeatureSettings:
    """Returns the feature settings of a preset (default: evacap-base) or of a checkpoint, without reading weights."""
    if model is None:
        return FeatureSettings.from_dict(load_preset(preset or DEFAULT_PRESET).features)
    if preset is not None:
        raise UsageError("--preset and --model both set the features", "give one of them")
    return FeatureSettings.from_dict(read_features(model))


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class FailureCause:
    """A cause of failure: an example of the error, the number of clips, and the first of their sources."""

    error: str
    status: str
    count: int = 0
    first: list[str] = field(default_factory=list)


def group_failures(failed: Iterable[Mapping[str, str]]) -> list[FailureCause]:
    """Groups errors that differ only in names and numbers, the most frequent first."""
    found: dict[tuple[str, str], FailureCause] = {}
    for row in failed:
        text = row["error"].replace(row["source"], "...").replace(row["key"], "...")
        kind = row["status"], re.sub(r"\d+(\.\d+)?", "0", text)
        cause = found.setdefault(kind, FailureCause(row["error"], row["status"]))
        cause.count += 1
        if len(cause.first) < MAX_NAMES:
            cause.first.append(row["source"])
    return sorted(found.values(), key=lambda cause: -cause.count)
