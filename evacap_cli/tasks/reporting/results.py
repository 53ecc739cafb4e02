"""`evacap report`: selects the page of a result, or of several results of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evacap_cli.errors import UsageError
from evacap_cli.report.pages import Page
from evacap_cli.tasks.reporting.captions import CaptionRun, compare_captions, report_captions
from evacap_cli.tasks.reporting.evaluation import evaluation_page
from evacap_cli.tasks.reporting.folders import Facts
from evacap_cli.tasks.reporting.pages import check_page, save_page
from evacap_cli.tasks.reporting.pictures import PictureOptions, Progress
from evacap_cli.tasks.reporting.robustness import robustness_page
from evacap_cli.tasks.reporting.speed import speed_page
from evacap_cli.tasks.reporting.stored_clips import PageTarget
from evacap_cli.tasks.reporting.training import training_page

FOLDERS: dict[str, Callable[[Sequence[Path], Facts, PageTarget], Page]] = {
    "robustness.json": robustness_page,
    "metrics.json": evaluation_page,
    "speed.json": speed_page,
    "metrics.jsonl": training_page,
}
"""The file that identifies the kind of a folder, and the function that makes its page."""
CURE = "give a caption table (.csv, .jsonl, .parquet), or the folder of evaluate, robustness, speed or train"


def report_results(
    results: Sequence[Path],
    out: Path | None,
    options: PictureOptions,
    curves: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes the page of a result, or of several of a kind, and returns a summary. Raises EvacapError."""
    first = results[0]
    page = out or (first / "report.html" if first.is_dir() else first.with_suffix(".html"))
    check_page(page)
    kinds = {_kind(result) for result in results}
    if len(kinds) > 1:
        raise UsageError(
            f"{', '.join(map(str, results))}: are results of different kinds", "give results of the same kind"
        )
    if kinds != {""}:
        return report_folders(results, page, (), options, progress)
    if len(results) == 1:
        return report_captions(first, page, options, CaptionRun(curves=curves), progress)
    return compare_captions(results, page, options, progress)


def report_folders(
    folders: Sequence[Path],
    page: Path,
    facts: Facts = (),
    options: PictureOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes the page of the folders of evaluate, robustness, speed or train. Raises EvacapError.

    facts: more about the run. options: by default, pictures are drawn in this process.
    """
    make, target = FOLDERS[_kind(folders[0])], PageTarget(page, options, progress)
    try:
        made = make(folders, facts, target)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(f"{', '.join(map(str, folders))}: damaged: {error}", CURE) from error
    save_page(made, page)
    target.files.clean()
    return {"report": str(page), "bytes": page.stat().st_size}


def _kind(result: Path) -> str:
    """The file that identifies the kind of a folder; empty for a table."""
    if not result.is_dir():
        return ""
    found = next((name for name in FOLDERS if (result / name).is_file()), None)
    if found is None:
        raise UsageError(f"{result}: contains none of {', '.join(FOLDERS)}", CURE)
    return found
