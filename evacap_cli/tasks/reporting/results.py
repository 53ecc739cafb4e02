"""`evacap report`: which page a result gets, alone or beside another of its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evacap_cli.errors import UsageError
from evacap_cli.report.pages import Page
from evacap_cli.tasks.reporting.captions import CaptionRun, compare_captions, report_captions
from evacap_cli.tasks.reporting.measurements import (
    evaluation_page,
    robustness_page,
    speed_page,
    training_page,
)
from evacap_cli.tasks.reporting.pages import check_page, save_page
from evacap_cli.tasks.reporting.pictures import PictureOptions, Progress

FOLDERS: dict[str, Callable[[Sequence[Path], Sequence[tuple[str, str]]], Page]] = {
    "robustness.json": robustness_page,
    "metrics.json": evaluation_page,
    "speed.json": speed_page,
    "metrics.jsonl": training_page,
}
"""The file by which a folder is known, and its page."""
CURE = "give a caption table (.csv, .jsonl, .parquet), or the folder of evaluate, robustness, speed or train"


def report_results(
    results: Sequence[Path],
    out: Path | None,
    options: PictureOptions,
    curves: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes the page of a result, or of several of a kind, and returns what is in it. Raises EvacapError."""
    first = results[0]
    page = out or (first / "report.html" if first.is_dir() else first.with_suffix(".html"))
    check_page(page)
    kinds = {_kind(result) for result in results}
    if len(kinds) > 1:
        raise UsageError(
            f"{', '.join(map(str, results))}: are results of different kinds", "compare those of one"
        )
    if kinds != {""}:
        return report_folders(results, page)
    if len(results) == 1:
        return report_captions(first, page, options, CaptionRun(curves=curves), progress)
    return compare_captions(results, page, options, progress)


def report_folders(
    folders: Sequence[Path], page: Path, facts: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """Writes the page of what evaluate, robustness, speed or train wrote to folders. facts: more about the run."""
    make = FOLDERS[_kind(folders[0])]
    try:
        made = make(folders, facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{', '.join(map(str, folders))}: damaged: {error}", CURE) from error
    save_page(made, page)
    return {"report": str(page), "bytes": page.stat().st_size}


def _kind(result: Path) -> str:
    """The file by which a folder is known; empty for a table."""
    if not result.is_dir():
        return ""
    found = next((name for name in FOLDERS if (result / name).is_file()), None)
    if found is None:
        raise UsageError(f"{result}: holds none of {', '.join(FOLDERS)}", CURE)
    return found
