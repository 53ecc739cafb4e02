"""Prepares a feature store: decodes every clip of a manifest once, in worker processes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from evacap_cli.data.bulk.entries import find_shards, read_shard_entries
from evacap_cli.data.manifest import Entry, read_manifest
from evacap_cli.data.store import FRAMES_FORMATS, Progress, StoreReport, write_store
from evacap_cli.errors import UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.media import TRACKS, WINDOW_MODES, is_track
from evacap_cli.model.checkpoint import read_features
from evacap_cli.model.presets import load_preset
from evacap_cli.tasks.clips import SAFE_READERS, ClipSettings, load_entry
from evacap_cli.tasks.cluster.pipeline import ClusterOptions
from evacap_cli.tasks.cluster.preparing import stage_on_cluster

DEFAULT_PRESET = "evacap-base"
MAX_NAMES = 3  # clips named for each cause of failure


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

    `cluster`: where the clips are decoded, None for this machine. After an interruption, the same call resumes. Clips
    that cannot be read and missing files are recorded in the store's index. Raises UsageError if the manifest or the
    options are invalid, or if the store was made with other settings.
    """
    chosen = PrepareOptions(**options)
    if shards := find_shards(str(manifest)):
        if media is not None:
            raise UsageError(f"--media {media}: {manifest} contains its media", "omit --media")
        entries = read_shard_entries(shards)
        if not entries:
            raise UsageError(f"{manifest}: contains no clips", "check the name")
    else:
        entries = read_manifest(Path(manifest), None if media is None else Path(media))
    if cluster is not None:
        entries = [_absolute(entry) for entry in entries]
    manifest_folder = Path(manifest).parent
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
        media=list(dict.fromkeys((Path(media or manifest_folder), manifest_folder))),
        progress=progress,
        distribute=None if cluster is None else partial(stage_on_cluster, cluster=cluster),
    )


def _absolute(entry: Entry) -> Entry:
    """Returns an entry whose paths do not depend on the working directory, which actors do not share."""
    pictures = tuple(picture.absolute() for picture in entry.pictures)
    return replace(entry, path=entry.path and entry.path.absolute(), pictures=pictures)


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
