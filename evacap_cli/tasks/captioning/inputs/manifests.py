"""Reads the clips of a manifest as inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from evacap_cli.data.manifest.columns import check_columns, collect, is_known
from evacap_cli.data.manifest.entries import find_entries
from evacap_cli.data.manifest.tables import read_table
from evacap_cli.errors import UsageError
from evacap_cli.tasks.captioning.inputs.urls import is_url


class ManifestPart(NamedTuple):
    """A clip of a manifest: its path (as written in the manifest if no file was found, with the reason in `error`), its
    part in seconds, and its path relative to the manifest's folder."""

    path: str
    start: float | None
    end: float | None
    relative: str
    error: str


def read_parts(path: Path) -> Iterator[ManifestPart]:
    """Yields the clips of a manifest in the order of their first rows, see `read_manifest`. Paths may be URLs.

    Raises UsageError if the table is not a valid manifest.
    """
    table = read_table(path, is_known)
    check_columns(path, table, captioned=False)
    clips = collect(path, table, [path.parent])
    if not clips:
        raise UsageError(f"{path}: has no clips", "add rows")
    entries = iter(find_entries([clip for clip in clips if not is_url(clip.source)], [path.parent]))
    folder = "" if path.parent == Path() else os.path.join(path.parent, "")
    for clip in clips:
        if is_url(clip.source):
            yield ManifestPart(clip.source, clip.start, clip.end, os.path.basename(clip.source), clip.error)
            continue
        entry = next(entries)
        found = str(entry.path) if entry.path is not None else entry.source
        below = found.removeprefix(folder)
        relative = below if entry.path is None or not os.path.isabs(below) else os.path.basename(below)
        yield ManifestPart(found, entry.start, entry.end, relative, entry.error)
