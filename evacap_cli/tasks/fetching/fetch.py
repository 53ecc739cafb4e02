"""`evacap weights fetch`: a published file by name, downloaded once, checked, and imported where it is a model."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from evacap_cli.atomic import written_whole
from evacap_cli.cache import cache_folder, fetched_models
from evacap_cli.data.files import disk_errors
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model.checkpoint import CONFIG
from evacap_cli.tasks.fetching.download import Progress, download, file_sha256
from evacap_cli.tasks.fetching.table import PRESETS, PublishedFile
from evacap_cli.tasks.importing import import_avcap, import_network
from evacap_cli.tasks.importing.networks import find_kind, read_weights
from evacap_cli.tasks.importing.tensor_matching import TITLES
from evacap_cli.tasks.vocabulary import vocabulary_path

SUFFIX = ".sha256"
_USES = {
    "cav-mae": "evacap train ... --init-encoder {path}",
    "git": "evacap train ... --init-decoder {path}",
    "vocabulary": "`weights import avcap` and `train --init-decoder` find it there",
    "tagger": "for benchmarks/real/distill.py --teacher",
}


@dataclass(frozen=True)
class FetchedFile:
    """A file in the cache folder. `model`: the name for `--model`, if the file was imported into a checkpoint."""

    name: str
    path: Path
    sha256: str
    downloaded: bool
    model: str | None
    use: str


def file_path(entry: PublishedFile) -> Path:
    """Returns where the file of an entry is kept. It may not exist."""
    if entry.kind == "vocabulary":
        return vocabulary_path()
    return cache_folder() / "weights" / entry.name / entry.file


def fetch(
    name: str,
    table: dict[str, PublishedFile],
    sha256: str | None = None,
    progress: Callable[[str], Progress | None] = lambda _: None,
    log: Callable[[str], None] = lambda _: None,
) -> list[FetchedFile]:
    """Fetches an entry and those it needs, which come first. Files that are there and unchanged are not downloaded.

    A file must have the SHA-256 of `sha256`, else that of the table, else the one of its first fetch, which is kept
    beside it. Models are imported into `fetched_models()`. `progress`: returns what reports on the file of a name.
    Raises EvacapError whose cure names the address and the place of the file.
    """
    if name not in table:
        raise UsageError(f"{name}: no published file of this name", f"use one of: {', '.join(table)}")
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256 := sha256.lower()):
        raise UsageError(f"--sha256 {sha256}: is not 64 hexadecimal digits", "copy it from its source")
    entry = table[name]
    found = [file for needed in entry.needs for file in fetch(needed, table, None, progress, log)]
    path = file_path(entry)
    expected, origin = _expected(entry, path, sha256)
    digest = _present(entry, path, expected, origin, log)
    downloaded = digest is None
    if digest is None:
        log(f"{name}: downloading {entry.url}")
        digest = download(
            entry.url,
            path,
            expected,
            lambda part: _check(entry, part, expected),
            _by_hand(entry, path),
            progress(name),
        )
    _keep_digest(path, digest)
    model = _import(entry, path, digest, log) if entry.kind in PRESETS else None
    use = _USES.get(entry.kind, f"evacap caption VIDEOS --model {model}").format(path=path)
    return [*found, FetchedFile(name, path, digest, downloaded, model, use)]


def _expected(entry: PublishedFile, path: Path, sha256: str | None) -> tuple[str | None, str]:
    """Returns the SHA-256 that a file must have, and who says so."""
    if sha256 is not None:
        return sha256, "--sha256"
    if entry.sha256:
        return entry.sha256, "the table"
    try:
        kept = path.with_name(path.name + SUFFIX).read_text("utf-8").split()
    except (OSError, UnicodeDecodeError):
        return None, ""
    return (kept[0], "the first fetch") if kept and re.fullmatch(r"[0-9a-f]{64}", kept[0]) else (None, "")


def _present(
    entry: PublishedFile, path: Path, expected: str | None, origin: str, log: Callable[[str], None]
) -> str | None:
    """Returns the SHA-256 of a file that is there and as expected; None if it must be downloaded."""
    if not path.is_file():
        return None
    digest = file_sha256(path)
    if expected is None:  # put there by hand
        _check(entry, path, expected)
    elif digest != expected:
        log(
            f"{path}: its SHA-256 is {digest}, not {expected} as of {origin}; it is downloaded again "
            f"(if you trust this file, add --sha256 {digest})"
        )
        return None
    return digest


def _by_hand(entry: PublishedFile, path: Path) -> str:
    """The sentence for people whose machine cannot download the file."""
    address = entry.page or entry.url
    return f"download {address} in a browser, also on another machine, and copy the file to {path}, then fetch it again"


def _check(entry: PublishedFile, path: Path, sha256: str | None) -> None:
    """Raises EvacapError if a file is damaged, would run code, or is of another kind than its entry says."""
    if entry.kind == "vocabulary":
        text = path.read_bytes()
        if b"\0" in text or text.lstrip()[:1] == b"<":
            raise EvacapError(f"{path}: is no list of words", "download it again")
        return
    state = read_weights(path)
    found = find_kind(state)
    if found != (None if entry.kind == "tagger" else entry.kind):
        raise EvacapError(
            f"{path}: has weights of {TITLES[found] if found else 'an unknown model'}, not of kind {entry.kind}",
            "correct `kind` or `url` in the table",
        )
    if sha256 is None and zipfile.is_zipfile(path):  # PyTorch does not compare the checksums of its archives
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise EvacapError(f"{path}: is damaged in {damaged}", "download it again")


def _keep_digest(path: Path, digest: str) -> None:
    """Writes the SHA-256 beside the file, in the format of sha256sum."""
    kept, text = path.with_name(path.name + SUFFIX), f"{digest}  {path.name}\n"
    if kept.is_file() and kept.read_bytes() == text.encode():
        return
    with disk_errors(kept, "set EVACAP_CACHE to another folder"), written_whole(kept) as aside:
        aside.write_text(text, "utf-8", newline="\n")


def _import(entry: PublishedFile, path: Path, digest: str, log: Callable[[str], None]) -> str:
    """Imports a file into a checkpoint of its entry's name, unless that has it already. Returns the name."""
    out = fetched_models() / entry.name
    if _imported_digest(out) == digest:
        return entry.name
    preset = entry.preset or PRESETS[entry.kind]
    with disk_errors(out, "set EVACAP_CACHE to another folder"):
        if entry.kind == "avcap":
            report = import_avcap(path, out, None, preset, entry.settings, overwrite=True)
        else:
            report = import_network(entry.kind, path, out, preset, entry.settings, overwrite=True)
    log(f"{entry.name}: imported, {report.summary()}")
    return entry.name


def _imported_digest(checkpoint: Path) -> str | None:
    try:
        return str(yaml.safe_load((checkpoint / CONFIG).read_text("utf-8"))["metadata"]["source"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
