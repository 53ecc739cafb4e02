"""Where the Java parts of the metrics lie: pycocoevalcap's own, and what this package adds for SPICE."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

from evacap_cli.metrics.java import MetricError

SPICE_PARTS = Path(__file__).parents[1] / "assets" / "spice"
LAUNCHER = "edu.anu.spice.EvacapLauncher"
_REINSTALL = "pip install --force-reinstall evacap"


def pycocoevalcap_file(name: str) -> Path:
    """A file of pycocoevalcap's package folder. Raises MetricError when there is none."""
    for folder in importlib.import_module("pycocoevalcap").__path__:
        if (path := Path(folder) / name).is_file():
            return path
    raise MetricError(f"pycocoevalcap lacks {name}", "pip install --force-reinstall pycocoevalcap")


def spice_class_path() -> list[Path]:
    """What SPICE runs from. Raises MetricError naming what is missing."""
    checksums = _checksums()
    missing = [str(SPICE_PARTS / name) for name in checksums if not (SPICE_PARTS / name).is_file()]
    if missing or not checksums:
        raise MetricError(f"SPICE's parts are missing: {', '.join(missing) or SPICE_PARTS}", _REINSTALL)
    jars = [SPICE_PARTS / name for name in checksums if name.endswith(".jar")]
    return [SPICE_PARTS, pycocoevalcap_file("spice/spice-1.0.jar"), *jars]


def check_spice_parts() -> None:
    """Raises MetricError when a packaged part of SPICE is missing or is not what its checksum says."""
    spice_class_path()
    for name, wanted in _checksums().items():
        if hashlib.sha256((SPICE_PARTS / name).read_bytes()).hexdigest() != wanted:
            raise MetricError(f"{SPICE_PARTS / name}: is not what was packaged", _REINSTALL)


def spice_fingerprint() -> str:
    """Changes whenever SPICE may parse a caption otherwise."""
    return hashlib.sha256(repr(sorted(_checksums().items())).encode()).hexdigest()[:12]


def _checksums() -> dict[str, str]:
    """Name of each packaged part -> its SHA-256, from a file as `sha256sum` writes it."""
    try:
        lines = (SPICE_PARTS / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
