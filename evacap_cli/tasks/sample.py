"""The built-in benchmark: packaged pairs of a recording and a photograph of its source, with two captions each."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path

from evacap_cli.cache import cache_folder
from evacap_cli.data.manifest import Entry
from evacap_cli.data.store import Sample, Store, write_store
from evacap_cli.features import FeatureSettings
from evacap_cli.tasks.clips import ClipSettings, load_entry


@dataclass(frozen=True)
class Pair(Entry):
    """A recording and a photograph. `labels`: the AudioSet classes of the recording. `kind`: plain, or mixed if two
    recordings are mixed and the photograph shows one of their sources."""

    labels: tuple[str, ...] = ()
    kind: str = "plain"


def sample_folder() -> Path:
    """Returns the packaged folder with pairs.csv, the media and NOTICE."""
    return Path(str(resources.files("evacap_cli") / "assets" / "sample"))


def read_pairs() -> list[Pair]:
    """Reads the pairs of pairs.csv, in order."""
    folder = sample_folder()
    with (folder / "pairs.csv").open(encoding="utf-8", newline="") as opened:
        return [
            Pair(
                key=row["key"],
                source=row["sound"],
                captions=(row["caption_1"], row["caption_2"]),
                path=folder / row["sound"],
                pictures=(folder / row["photo"],),
                labels=tuple(row["labels"].split(";")),
                kind=row["kind"],
            )
            for row in csv.DictReader(opened)
        ]


def load_pair(pair: Pair, settings: ClipSettings) -> Sample:
    """Returns the features of a pair, with its kind and labels. Raises MediaError."""
    return replace(load_entry(pair, settings), extra={"kind": pair.kind, "sounds": list(pair.labels)})


def sample_store(
    settings: FeatureSettings, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> Store:
    """Returns the benchmark's store for these feature settings. It is prepared in the cache folder if needed."""
    table = hashlib.sha256((sample_folder() / "pairs.csv").read_bytes()).hexdigest()[:12]
    folder = cache_folder() / f"sample-{table}-{settings.fingerprint()}"
    write_store(
        folder,
        read_pairs(),
        partial(load_pair, settings=ClipSettings(settings)),
        settings,
        made_with={"pairs": table},
        workers=workers,
        media=[sample_folder()],
        progress=progress,
    )
    return Store(folder)
