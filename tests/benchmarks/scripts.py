"""The scripts of a benchmark as modules: they know one another by their bare names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@contextmanager
def scripts_of(benchmark: str) -> Iterator[Callable[[str], Any]]:
    """Imports scripts of `benchmarks/<benchmark>` by name, and forgets them at the end: others are called alike."""
    folder, before = str(BENCHMARKS / benchmark), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield import_module
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
                del sys.modules[name]
