"""The page of a caption table: one row per clip, with pictures, player, tags, numbers and curves."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evacap_cli.report.pages import Clip, ClipList, Column, Figure, Page
from evacap_cli.report.pages.figures import histogram
from evacap_cli.tasks.reporting.curves import CurveFiles
from evacap_cli.tasks.reporting.folders import counted, word_change
from evacap_cli.tasks.reporting.pages import link, save_page, setting_facts, version_facts
from evacap_cli.tasks.reporting.pictures import (
    PictureFiles,
    PictureJob,
    PictureOptions,
    Progress,
    draw_all,
    draw_file,
    draw_file_carefully,
)
from evacap_cli.tasks.reporting.tables import Row, number, table_rows, tags, text

NUMBERS = {
    "score": Column("score", 3, "mean log-probability of a word; 0 is certain"),
    "gate": Column("gate", 3, "how much of the picture the model uses, 0 to 1"),
    "entropy": Column("entropy", 3, "how widely the attention is spread over the picture, 0 to 1"),
    "mismatch": Column("mismatch", 3, "probability that picture and sound do not belong together"),
}
LIMITS = {"score": (None, 0.0), "gate": (0.0, 1.0), "entropy": (0.0, 1.0), "mismatch": (0.0, 1.0)}
STATUSES = ("ok", "audio-only", "failed")


@dataclass
class CaptionRun:
    """Facts about the run that made a table. curves: the folder of its `--curves`."""

    facts: Sequence[tuple[str, str]] = ()
    seconds: float | None = None
    rate: float | None = None
    curves: Path | None = None


@dataclass
class _Survey:
    """The result of one pass over a table. missing: clips whose file is not found. example: the first such file."""

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    values: dict[str, array[float]] = field(default_factory=dict)
    length: float = 0.0
    jobs: int = 0
    missing: int = 0
    example: str = ""


def report_captions(
    table: Path,
    out: Path,
    options: PictureOptions,
    run: CaptionRun | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes the page `out` of a caption table, and returns what is in it. Raises EvacapError."""
    settings = _settings(table)
    run = run or CaptionRun()
    curves_folder = run.curves or (Path(settings["curves"]) if settings.get("curves") else None)
    curves = CurveFiles(curves_folder)
    survey = _survey(table, out)
    pictures, unseen = PictureFiles(out, options.inline), 0
    if options.make:
        jobs = _jobs(table, out, options.copies)
        unseen = _draw(jobs, survey.jobs, pictures, options, progress)
    columns = [NUMBERS[name] for name in survey.values]

    def clips() -> Iterator[Clip]:
        for index, row in enumerate(table_rows(table)):
            yield _clip(
                row, columns, link(text(row, "video"), out, table.parent)[1], curves, pictures.urls(index)
            )

    counts = [
        (status, f"{survey.counts[status]:,}")
        for status in (*STATUSES, *sorted(set(survey.counts) - set(STATUSES)))
    ]
    counts = [("clips", f"{survey.rows:,}"), *counts, ("seconds captioned", f"{survey.length:,.0f}")]
    if run.seconds is not None:
        counts.append(("seconds taken", f"{run.seconds:,.1f}"))
    if run.rate:
        counts.append(("clips/s", f"{run.rate:.2f}"))
    notes = [f"{unseen} clips could not be decoded again: they have no pictures."] if unseen else []
    if survey.missing:
        notes.append(
            f"The files of {counted(survey.missing, 'clip')} were not found: no pictures and no player. The names in "
            "the table are relative to the folder in which evacap caption ran."
        )
    made: list[Figure | None] = [
        histogram(name, values, *LIMITS[name]) for name, values in survey.values.items()
    ]
    page = Page(
        title=f"Captions: {table.name}",
        lead=f"{counted(survey.rows, 'clip')} from {table}",
        counts=counts,
        facts=[*run.facts, *setting_facts(settings), ("table", str(table)), *version_facts()],
        figures=[figure for figure in made if figure is not None],
        clips=ClipList(clips, tuple(columns)),
        notes=notes,
    )
    save_page(page, out)
    pictures.clean()
    return _summary(out, survey, unseen)


def _summary(out: Path, survey: _Survey, unseen: int) -> dict[str, Any]:
    return {
        "report": str(out),
        "clips": survey.rows,
        "without_pictures": unseen,
        "missing_files": survey.missing,
        "missing_example": survey.example,
        "bytes": out.stat().st_size,
    }


def _draw(
    jobs: Iterator[PictureJob],
    total: int,
    into: PictureFiles,
    options: PictureOptions,
    progress: Progress | None,
) -> int:
    """Draws clips from their files. Returns how many could not be drawn."""
    silent: Progress = progress or (lambda done, total: None)
    return draw_all(jobs, total, into, options, silent, draw_file, draw_file_carefully)


def _survey(table: Path, out: Path) -> _Survey:
    found = _Survey()
    for row in table_rows(table):
        if not found.rows:
            found.values = {name: array("d") for name in NUMBERS if name in row}
        found.rows += 1
        found.counts[text(row, "status") or "ok"] += 1
        for name, values in found.values.items():
            if (value := number(row, name)) is not None:
                values.append(value)
        start, end = number(row, "start"), number(row, "end")
        if start is not None and end is not None:
            found.length += end - start
            path, url = link(text(row, "video"), out, table.parent)
            found.jobs += bool(path)
            if not url:
                found.missing += 1
                found.example = found.example or text(row, "video")
    return found


def _jobs(table: Path, out: Path, copies: bool) -> Iterator[PictureJob]:
    for index, row in enumerate(table_rows(table)):
        path, _ = link(text(row, "video"), out, table.parent)
        start, end = number(row, "start"), number(row, "end")
        if path and start is not None and end is not None:
            yield PictureJob(index, path, start, end, copies)


def _clip(
    row: Row,
    columns: Sequence[Column],
    href: str,
    curves: CurveFiles,
    pictures: tuple[str, str, str],
) -> Clip:
    start, end = number(row, "start"), number(row, "end")
    curve, confidences = curves.read((text(row, "video"), start, end))
    return Clip(
        name=text(row, "video"),
        captions=(text(row, "caption"),),
        numbers=tuple(number(row, column.name) for column in columns),
        start=start,
        end=end,
        status=text(row, "status") or "ok",
        error=text(row, "error"),
        href=href,
        heard=tags(row, "heard"),
        seen=tags(row, "seen"),
        curves=curve,
        confidences=confidences,
        pictures=pictures,
    )


def _settings(table: Path) -> dict[str, Any]:
    """The settings that the journal next to a table records. Empty if there is no journal."""
    try:
        with table.with_name(table.name + ".journal").open("rb") as file:
            settings = json.loads(file.readline())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return settings if isinstance(settings, dict) else {}


def compare_captions(
    tables: Sequence[Path], out: Path, options: PictureOptions, progress: Progress | None = None
) -> dict[str, Any]:
    """Writes a page with the captions of several tables side by side, by file and start; those first that differ most.

    Pictures are of the first table. A clip that a table does not have has an empty caption there. All tables but the
    first are held in memory.
    """
    first, *rest = tables
    titles = [str(path) for path in tables]
    others = [{(text(row, "video"), number(row, "start")): row for row in table_rows(path)} for path in rest]
    survey = _survey(first, out)
    pictures = PictureFiles(out, options.inline)
    unseen = 0
    if options.make:
        unseen = _draw(_jobs(first, out, options.copies), survey.jobs, pictures, options, progress)
    columns = [NUMBERS[name] for name in survey.values]
    numbers = [Column("different words", 2, "largest share of words that only one of two captions has")]
    numbers += [
        Column(f"{column.name} ({title})", column.digits, column.help if i == 0 else "", i, column.name)
        for i, title in enumerate(titles)
        for column in columns
    ]

    def clips() -> Iterator[Clip]:
        for index, row in enumerate(table_rows(first)):
            key = text(row, "video"), number(row, "start")
            rows = [row, *(other.get(key, {}) for other in others)]
            captioned = tuple(text(each, "caption") for each in rows)
            change = max(word_change(captioned[0], caption) for caption in captioned[1:])
            values = (number(each, column.name) for each in rows for column in columns)
            made = _clip(
                row,
                columns,
                link(text(row, "video"), out, first.parent)[1],
                CurveFiles(None),
                pictures.urls(index),
            )
            yield replace(made, captions=captioned, numbers=(change, *values))

    save_page(
        Page(
            title="Captions compared",
            lead=" | ".join(titles),
            counts=[("clips", f"{survey.rows:,}")],
            facts=[fact for path in tables for fact in setting_facts(_settings(path), f"{path}: ")]
            + version_facts(),
            clips=ClipList(clips, tuple(numbers), tuple(titles), numbers[0].name),
        ),
        out,
    )
    pictures.clean()
    return _summary(out, survey, unseen)
