"""Scores caption files against references, with confidence intervals and a comparison of two systems."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evacap_cli.cache import cache_folder
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.metrics.bootstrap import DRAWS, LEVEL, Difference, compare, intervals
from evacap_cli.metrics.caption_pairs import LEFT_OUT, Pairs, pair, read_candidates, read_references
from evacap_cli.metrics.spice import cache_file
from evacap_cli.metrics.spice_cache import TupleCache
from evacap_cli.metrics.statistics import Array
from evacap_cli.metrics.suite import Scores, Settings, score_captions

VALUES, PER_CLIP = "metrics.json", "per_clip.csv"


@dataclass
class System:
    """One file of candidates and its scores."""

    path: Path
    pairs: Pairs
    scores: Scores
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # of `LEVEL`


@dataclass
class Report:
    """The scores of a system, and optionally of another on the same clips with the differences (first minus second)."""

    references: Path
    system: System
    against: System | None = None
    differences: dict[str, Difference] = field(default_factory=dict)
    draws: int = DRAWS
    seed: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every clip of the references was scored by every requested metric."""
        systems = [system for system in (self.system, self.against) if system is not None]
        return not any(
            system.pairs.missing or system.pairs.failed or system.scores.unavailable for system in systems
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of metrics.json."""
        result = _system_dict(self.system) | {"references": str(self.references)}
        if self.draws:
            result["bootstrap"] = {"draws": self.draws, "seed": self.seed, "level": LEVEL}
        if self.against is not None:
            result["against"] = _system_dict(self.against)
            result["differences"] = {
                name: {"difference": one.value, "interval": [one.low, one.high], "p": one.p}
                for name, one in self.differences.items()
            }
        return result | {"notes": self.notes}


def score_files(
    candidates: Path,
    references: Path,
    against: Path | None = None,
    settings: Settings | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Report:
    """Scores the clips of `candidates` that have references; with `against`, those that both systems have.

    draws: of the bootstrap, 0 for none. SPICE's parses are cached in the cache folder. Raises UsageError if a file
    cannot be read or the files have no clip in common.
    """
    people = read_references(references)
    paths = [candidates] if against is None else [candidates, against]
    pairs = [pair(read_candidates(path), path, people) for path in paths]
    notes = []
    if against is not None:
        common = set(pairs[0].clips) & set(pairs[1].clips)
        if len(common) < max(len(one.clips) for one in pairs):
            notes.append(
                f"only the {len(common)} common clips are scored, of {len(pairs[0].clips)} in {candidates} "
                f"and {len(pairs[1].clips)} in {against}"
            )
        pairs = [one.only(common) for one in pairs]
    if not pairs[0].clips:
        raise UsageError(f"{candidates}: no clip has both a caption and references", "see the notes above")
    cache = TupleCache(cache_file(cache_folder()))
    systems = []
    for path, one in zip(paths, pairs, strict=True):
        scores = score_captions(one.clips, one.candidates, one.references, settings, cache, progress)
        spread = intervals(scores.statistics, draws, seed) if draws else {}
        systems.append(System(path, one, scores, spread))
    report = Report(references, systems[0], systems[1] if against else None, draws=draws, seed=seed)
    if report.against is not None and draws:
        report.differences = compare(
            report.system.scores.statistics, report.against.scores.statistics, draws, seed
        )
    report.notes = notes + _notes(report, cache)
    return report


def _notes(report: Report, cache: TupleCache) -> list[str]:
    scores = report.system.scores
    notes = [cache.trouble] if cache.trouble and "SPICE" in scores.seconds else []
    if scores.tokenizer.startswith("built-in"):
        notes.append(
            f"tokenizer {scores.tokenizer}: nearly always equal to the official one, but do not publish these scores"
        )
    if len(scores.clips) == 1 and scores.values.get("CIDEr") is not None:
        notes.append("CIDEr of one clip is 0, because it weights words by how few clips contain them")
    return notes


def _system_dict(system: System) -> dict[str, Any]:
    scores = system.scores
    result: dict[str, Any] = dict(scores.values)
    result |= {
        "candidates": str(system.path),
        "clips": len(scores.clips),
        "clips_hash": scores.id_hash,
        "left_out": {name: getattr(system.pairs, name) for name in LEFT_OUT},
        "empty": system.pairs.empty,
        "repeated": system.pairs.repeated,
        "intervals": {name: list(ends) for name, ends in system.intervals.items()},
        "unavailable": scores.unavailable,
        "tokenizer": scores.tokenizer,
        "java": str(scores.java) if scores.java else None,
        "seconds": {name: round(seconds, 3) for name, seconds in scores.seconds.items()},
    }
    if scores.spice is not None:
        result["spice_by_category"] = {
            name: {"f": _mean(values), "clips": int((values == values).sum())}
            for name, values in scores.spice.f.items()
        }
    return result


def _mean(values: Array) -> float | None:
    """Returns the mean over the clips that have a value."""
    defined = values[values == values]
    return float(defined.mean()) if len(defined) else None


def check_folder(out: Path) -> None:
    """Raises UsageError if `out` is not a folder."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out}: is a file", f"name a folder for {VALUES} and {PER_CLIP}")


def write_report(report: Report, out: Path) -> None:
    """Writes metrics.json and per_clip.csv to `out`, each atomically. Raises EvacapError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(out / VALUES, json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n")
        _write(out / PER_CLIP, per_clip_table(report))
    except OSError as error:
        raise EvacapError(
            f"{error.filename or out}: cannot be written: {error.strerror}", "use another -o"
        ) from error


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(text.encode("utf-8", "backslashreplace"))
    part.replace(path)


def per_clip_table(report: Report) -> str:
    """Returns a CSV table (RFC 4180) with clip, caption and scores; the other system's columns are `against_...`."""
    systems = [("", report.system)] + ([("against_", report.against)] if report.against else [])
    header, columns = ["clip"], [list(report.system.scores.clips)]
    for prefix, system in systems:
        header.append(f"{prefix}caption")
        columns.append(system.pairs.candidates)
        for name, values in system.scores.per_clip.items():
            header.append(prefix + name)
            columns.append(["" if math.isnan(value) else repr(float(value)) for value in values])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()
