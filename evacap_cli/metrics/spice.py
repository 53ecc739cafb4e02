"""SPICE 1.0 through a packaged launcher that runs on any Java version and parses every caption only once."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evacap_cli.metrics.java import MetricError, Program, Runtime
from evacap_cli.metrics.spice_cache import TupleCache, Tuples
from evacap_cli.metrics.spice_files import LAUNCHER, spice_class_path, spice_fingerprint
from evacap_cli.metrics.statistics import Array, Measured
from evacap_cli.metrics.tokens import one_line

CATEGORIES = ("All", "Object", "Relation", "Attribute", "Color", "Size", "Cardinality")
_KEEP_EVERY = 5.0  # seconds between cache writes, so that an interrupt loses little work
Progress = Callable[[str, int, int], None]


def cache_file(folder: Path) -> Path:
    """The file of parsed captions in the cache folder. Each version of the SPICE files has its own."""
    return folder / "spice" / f"captions-{spice_fingerprint()}.sqlite"


@dataclass(frozen=True)
class SpiceScores:
    """F scores (N,) by category. NaN if neither side has tuples of that category; "All" is never NaN."""

    f: dict[str, Array]
    parsed: int  # captions parsed in this run; the others came from the cache


def spice(
    runtime: Runtime,
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    cache: TupleCache,
    threads: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Measured, SpiceScores]:
    """SPICE of tokenized captions. `progress` receives the number of parsed captions that `cache` did not have."""
    candidates = [one_line(text) for text in candidates]
    references = [[one_line(text) for text in captions] for captions in references]
    texts = dict.fromkeys(
        text for clip in zip(references, candidates, strict=True) for text in (*clip[0], clip[1])
    )
    known = cache.get(texts)
    unknown = [text for text in texts if text not in known]
    threads = threads or os.cpu_count() or 1
    request = runtime.folder / f"spice-{time.monotonic_ns():x}.json"
    clips = [{"test": test, "refs": captions} for test, captions in zip(candidates, references, strict=True)]
    request.write_text(json.dumps({"known": known, "unknown": unknown, "clips": clips}), encoding="utf-8")
    path = os.pathsep.join(map(str, spice_class_path()))
    rows = []
    with Program(runtime, "SPICE", ["-cp", path, LAUNCHER, str(request), str(threads)], "1G") as program:
        _parse(program, unknown, cache, progress)
        for line in program.receive(len(clips)):
            rows.append({name: _number(values["f"]) for name, values in _object(line, "scores").items()})
    f = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in CATEGORIES}
    found = Measured()
    found.add("SPICE", float(np.mean(f["All"])), f["All"])
    return found, SpiceScores(f, len(unknown))


def _parse(program: Program, unknown: Sequence[str], cache: TupleCache, progress: Progress) -> None:
    """Receives the tuples of unknown captions and writes them to the cache every few seconds, also on errors."""
    parsed: dict[str, Tuples] = {}
    kept = time.monotonic()
    progress("parsing captions for SPICE", 0, len(unknown))
    try:
        for i, line in enumerate(program.receive(len(unknown)), 1):
            parsed[unknown[i - 1]] = _object(line, "tuples")
            progress("parsing captions for SPICE", i, len(unknown))
            if time.monotonic() - kept > _KEEP_EVERY:
                cache.put(parsed)
                parsed, kept = {}, time.monotonic()
    finally:
        cache.put(parsed)


def _object(line: str, name: str) -> Any:
    try:
        return json.loads(line)[name]
    except (ValueError, KeyError, TypeError):
        raise MetricError(f"SPICE: the launcher returned {line[:200]!r} instead of {name}") from None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
