"""`evacap report`: which page a result gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evacap_cli.errors import UsageError
from evacap_cli.tasks.reporting.captions import CaptionRun, report_captions
from evacap_cli.tasks.reporting.pages import check_page
from evacap_cli.tasks.reporting.pictures import PictureOptions, Progress


def report_results(
    results: Sequence[Path],
    out: Path | None,
    options: PictureOptions,
    curves: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes the page of a result, or of two of a kind, and returns what is in it. Raises EvacapError."""
    if len(results) != 1:
        raise UsageError(f"{len(results)} results: a page is of one", "name one")
    (result,) = results
    page = out or result.with_suffix(".html")
    check_page(page)
    return report_captions(result, page, options, CaptionRun(curves=curves), progress)
