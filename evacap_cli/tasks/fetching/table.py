"""The table of published files: the packaged YAML file, and one of the user's that changes and adds entries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from evacap_cli.errors import UsageError

KINDS = ("avcap", "cav-mae", "git", "yamnet", "efficientnet-lite0", "vocabulary", "tagger")
PRESETS = {"avcap": "avcap-base", "yamnet": "evidence-tags", "efficientnet-lite0": "evidence-tags"}
"""The kinds that become checkpoints, and the default preset of each."""
_PLAIN = re.compile(r"\w[\w.+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PublishedFile:
    """An entry of the table. `page`: where a person can download the file. `needs`: names of entries to fetch first.
    `preset`, `settings`: those of the checkpoint that the file is imported into."""

    name: str
    kind: str
    url: str
    file: str
    about: str = ""
    source: str = ""
    licence: str = "not stated"
    megabytes: float | None = None
    sha256: str | None = None
    page: str | None = None
    needs: tuple[str, ...] = ()
    preset: str | None = None
    settings: tuple[str, ...] = ()


_KEYS = {field.name for field in fields(PublishedFile)} - {"name"}
_LISTS = ("needs", "settings")


def read_table(path: Path | None = None) -> dict[str, PublishedFile]:
    """Reads the packaged table, changed by the one at `path`. Raises UsageError with all that is wrong in it."""
    packaged = resources.files("evacap_cli") / "assets" / "weights.yaml"
    rows: dict[str, Any] = yaml.safe_load(packaged.read_text("utf-8"))
    if path is not None:
        for name, row in _read(path).items():
            rows[name] = {**rows.get(name, {}), **row} if isinstance(row, Mapping) else row
    wrong = [problem for name, row in rows.items() for problem in _problems(name, row, rows)]
    if wrong:
        raise UsageError(f"--table {path}: {'; '.join(wrong)}", "docs/weights.md describes the keys")
    return {name: _entry(name, row) for name, row in rows.items()}


def _entry(name: str, row: Mapping[str, Any]) -> PublishedFile:
    values: dict[str, Any] = {k: tuple(v or ()) if k in _LISTS else v for k, v in row.items()}
    return PublishedFile(name, **values)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--table {path}: cannot be read ({error.strerror})", "name a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--table {path}: is not YAML ({error})", "correct it") from error
    if not isinstance(found, Mapping):
        raise UsageError(f"--table {path}: is not a mapping of names to entries", "correct it")
    return found


def _problems(name: Any, row: Any, rows: Mapping[str, Any]) -> list[str]:
    if not isinstance(name, str) or not _PLAIN.fullmatch(name):
        return [f"`{name}` is not a name of letters, digits and . + - _"]
    if not isinstance(row, Mapping):
        return [f"{name}: is not a mapping"]
    found = [f"{name}: unknown key `{key}`" for key in row if key not in _KEYS]
    found += [f"{name}: lacks `{key}`" for key in ("kind", "url", "file") if not row.get(key)]
    for key, value in row.items():
        if key in _LISTS:
            valid = value is None or (isinstance(value, list) and all(isinstance(v, str) for v in value))
            found += [] if valid else [f"{name}: `{key}` is not a list of texts"]
        elif key == "megabytes":
            found += [] if value is None or isinstance(value, int | float) else [f"{name}: `{key}`: a number"]
        elif key in _KEYS and value is not None and not isinstance(value, str):
            found.append(f"{name}: `{key}` is not a text")
    if found:
        return found
    if row["kind"] not in KINDS:
        found.append(f"{name}: `kind` is one of {', '.join(KINDS)}")
    if urlsplit(row["url"]).scheme not in ("http", "https"):
        found.append(f"{name}: `url` starts with https:// or http://")
    if not _PLAIN.fullmatch(row["file"]):
        found.append(f"{name}: `file` is a file name without folders")
    if row.get("sha256") and not _SHA256.fullmatch(row["sha256"]):
        found.append(f"{name}: `sha256` is 64 hexadecimal digits in lower case")
    unknown = [needed for needed in row.get("needs") or () if needed not in rows or rows[needed] is row]
    return found + [f"{name}: `needs` {needed}, which is no other entry" for needed in unknown]
