"""The cache folder, for files that can be made again."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def cache_folder() -> Path:
    """Returns $EVACAP_CACHE, or `evacap` in the system's cache folder. It may not exist."""
    if chosen := os.environ.get("EVACAP_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "evacap"


def fetched_models() -> Path:
    """Returns the folder of the checkpoints that `evacap weights fetch` made. It may not exist."""
    return cache_folder() / "models"


def check_compiler_cache() -> str:
    """Makes PyTorch's compiler use its default folder, in the system's folder for temporary files, if
    TORCHINDUCTOR_CACHE_DIR cannot be written: the compiler raises an error as soon as it is imported, which timm and
    optimizers do. Returns a note, empty if nothing is wrong."""
    chosen = os.environ.get(COMPILER_CACHE)
    if not chosen:
        return ""
    try:
        os.makedirs(chosen, exist_ok=True)
        with tempfile.TemporaryFile(dir=chosen):
            return ""
    except OSError as error:
        del os.environ[COMPILER_CACHE]
        return f"{COMPILER_CACHE}={chosen} is not used: {error.strerror or error}"
