"""Paths of the metrics' Java files: pycocoevalcap's jars and the packaged files for SPICE."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

from evacap_cli.metrics.java import MetricError

SPICE_PARTS = Path(__file__).parents[1] / "assets" / "spice"
LAUNCHER = "edu.anu.spice.EvacapLauncher"
_REINSTALL = "pip install --force-reinstall evacap"


def pycocoevalcap_file(name: str) -> Path:
    """The path of a file in pycocoevalcap's package. Raises MetricError if it does not exist."""
    for folder in importlib.import_module("pycocoevalcap").__path__:
        if (path := Path(folder) / name).is_file():
            return path
    raise MetricError(f"pycocoevalcap has no file {name}", "pip install --force-reinstall pycocoevalcap")


def spice_class_path() -> list[Path]:
    """The Java class path of SPICE. Raises MetricError with the names of missing files."""
    checksums = _checksums()
    missing = [str(SPICE_PARTS / name) for name in checksums if not (SPICE_PARTS / name).is_file()]
    if missing or not checksums:
        raise MetricError(f"SPICE files are missing: {', '.join(missing) or SPICE_PARTS}", _REINSTALL)
    jars = [SPICE_PARTS / name for name in checksums if name.endswith(".jar")]
    return [SPICE_PARTS, pycocoevalcap_file("spice/spice-1.0.jar"), *jars]


def check_spice_parts() -> None:
    """Raises MetricError if a packaged SPICE file is missing or its checksum is wrong."""
    spice_class_path()
    for name, wanted in _checksums().items():
        if hashlib.sha256((SPICE_PARTS / name).read_bytes()).hexdigest() != wanted:
            raise MetricError(f"{SPICE_PARTS / name}: checksum differs from the packaged file", _REINSTALL)


def spice_fingerprint() -> str:
    """12 hex digits that change when the packaged SPICE files, and so possibly its parses, change."""
    return hashlib.sha256(repr(sorted(_checksums().items())).encode()).hexdigest()[:12]


def _checksums() -> dict[str, str]:
    """Maps each packaged file to its SHA-256, read from `sha256sum` output."""
    try:
        lines = (SPICE_PARTS / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
