"""Lists of clips with captions, as people have them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from evacap_cli.errors import UsageError

_PATH_COLUMNS = ("video", "file_name", "path", "file")


@dataclass(frozen=True)
class Entry:
    """One clip: the file, and every caption it has."""

    path: Path
    captions: tuple[str, ...]


def read_manifest(path: Path) -> list[Entry]:
    """Reads a CSV with a path column and `caption` (many rows a clip allowed) or `caption_1`, `caption_2`, ...

    The path column is one of `video`, `file_name`, `path`, `file`; paths are relative to the manifest's folder. Clips
    keep the order in which they first appear. Raises `UsageError` naming what is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", "give a CSV file in UTF-8") from error
    where = next((name for name in _PATH_COLUMNS if name in columns), None)
    wide = [name for name in columns if name == "caption" or name.startswith("caption_")]
    if where is None or not wide:
        raise UsageError(
            f"{path}: has the columns {', '.join(columns) or 'none'}",
            f"it needs a path column ({', '.join(_PATH_COLUMNS)}) and `caption` or `caption_1`, `caption_2`, ...",
        )
    captions: dict[str, list[str]] = {}
    for row in rows:
        captions.setdefault(row[where], []).extend(
            text for name in wide if (text := (row[name] or "").strip())
        )
    silent = [name for name, found in captions.items() if not found]
    if silent:
        raise UsageError(
            f"{path}: no caption for {len(silent)} clips, the first is {silent[0]!r}", "fill or drop the rows"
        )
    return [Entry(path.parent / name, tuple(found)) for name, found in captions.items()]
