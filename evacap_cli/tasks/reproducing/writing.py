"""Writes the files of a reproduction: tables as Markdown and CSV, Figure 2, a page, and the environment."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from evacap_cli.atomic import written_whole
from evacap_cli.report.latency import TimingRow, Timings, draw_times
from evacap_cli.report.pages import Figure, Page, Table
from evacap_cli.report.pages.figures import Line, line_chart
from evacap_cli.report.tables import markdown
from evacap_cli.tasks.reporting.pages import save_page, setting_facts, version_facts
from evacap_cli.tasks.reproducing.comparison import OPPOSITE, QUOTED_SECONDS, SAME, UNCLEAR, Comparison

NAN = math.nan
TITLES = {
    "table1": "Table 1: test set, 18 frames in the paper",
    "table2": "Table 2: share of shuffled pictures in training",
    "table3": "Table 3: share of shuffled pictures at test time",
    "mismatch": "In addition to Table 3: detection of wrong pictures (AUROC, 0.5 is chance), and CIDEr kept with them",
    "table4": "Table 4: ablations",
    "figure2": "Figure 2: time relative to audio-only, by number of frames",
}
NOTES = (
    "Rows marked `paper` quote the EVACap paper (AudioCaps, its own machine). Intervals cover 95 % of draws of clips "
    "and seeds; those of Figure 2 go from the shortest to the longest run. A direction compares two changes from the "
    "same row: the paper's and ours. It is `unclear` if the interval of our change contains 0. V-ACT, LAVCap and the "
    "evidence switch have no numbers in the paper.",
)


def write_all(
    found: Mapping[str, Sequence[Comparison]], out: Path, environment: Mapping[str, Any], speed: Path | None
) -> None:
    """Writes `tables.md`, `tables.csv`, `figure2.svg` (from the folder `speed`), `report.html` and
    `environment.json`."""
    tables = list(_tables(found))
    lead = summary_line(found)
    text = "\n".join(f"## {table.title}\n\n{markdown(table.header, table.rows)}" for table in tables)
    scale = environment["scale"]
    with written_whole(out / "tables.md") as aside:
        aside.write_text(f"# Reproduction at the scale `{scale}`\n\n{lead}\n\n{NOTES[0]}\n\n{text}", "utf-8")
    with written_whole(out / "tables.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Comparison)])
        for comparison in (each for rows in found.values() for each in rows):
            writer.writerow([_cell(value) for value in asdict(comparison).values()])
    with written_whole(out / "environment.json") as aside:
        aside.write_text(json.dumps(environment, indent=1), "utf-8")
    if speed is not None:
        values = json.loads((speed / "speed.json").read_text("utf-8"))
        rows = [TimingRow(**row) for row in values["rows"]]
        draw_times(Timings(values["options"], values["environment"], rows), out / "figure2.svg")
    page = Page(
        title=f"The paper's tables, reproduced at the scale {scale}",
        lead=lead,
        notes=NOTES,
        facts=[
            *setting_facts({k: v for k, v in environment.items() if k not in ("steps", "stores")}),
            *version_facts(),
        ],
        figures=[figure for figure in _figures(found) if figure is not None],
        tables=tables,
    )
    save_page(page, out / "report.html")


def summary_line(found: Mapping[str, Sequence[Comparison]]) -> str:
    counts = Counter(each.verdict for rows in found.values() for each in rows)
    return (
        f"Of the paper's changes, {counts[SAME]} have the same direction here, {counts[OPPOSITE]} the opposite one, "
        f"and {counts[UNCLEAR]} are unclear."
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _tables(found: Mapping[str, Sequence[Comparison]]) -> Iterator[Table]:
    """A system and condition in four rows: our number, its interval, the paper's number, and the verdict."""
    for name, comparisons in found.items():
        metrics = list(dict.fromkeys(each.metric for each in comparisons))
        rows: list[list[str]] = []
        for system, at in dict.fromkeys((each.system, each.at) for each in comparisons):
            own = {each.metric: each for each in comparisons if (each.system, each.at) == (system, at)}
            rows.append([system, at, *(_number(own, metric, "ours") for metric in metrics)])
            for label, part in (("  95 %", _interval), ("  paper", _paper), ("  direction", _verdict)):
                cells = [part(own[metric]) if metric in own else "" for metric in metrics]
                if any(cells):
                    rows.append([label, "", *cells])
        yield Table(TITLES[name], ("system", "at", *metrics), rows)
    if "figure2" in found:
        rows = [[system, str(frames), f"{seconds:.3f}"] for system, times in QUOTED_SECONDS.items()
                for frames, seconds in times.items()]  # fmt: skip
        yield Table("Seconds in Section 3.5 of the paper, quoted", ("system", "frames", "seconds"), rows)


def _number(own: Mapping[str, Comparison], metric: str, name: str) -> str:
    value = getattr(own[metric], name) if metric in own else NAN
    return "" if math.isnan(value) else f"{value:.3f}"


def _interval(each: Comparison) -> str:
    return "" if math.isnan(each.low) else f"{each.low:.3f}-{each.high:.3f}"


def _paper(each: Comparison) -> str:
    return "" if math.isnan(each.paper) else f"{each.paper:.3f}"


def _verdict(each: Comparison) -> str:
    return each.verdict


def _figures(found: Mapping[str, Sequence[Comparison]]) -> Iterator[Figure | None]:
    for metric in ("CIDEr", "SPICE", "BLEU_4"):
        some = [each for each in found.get("table3", ()) if each.metric == metric]
        lines = [
            Line(system, [(float(each.at.rstrip("%")), each.ours, each.low, each.high) for each in some
                          if each.system == system])
            for system in dict.fromkeys(each.system for each in some)
        ]  # fmt: skip
        yield line_chart(f"Table 3, {metric}", "share of shuffled clips, %", metric, lines)
    for decoding in ("cached", "recompute"):
        timed = [each for each in found.get("figure2", ()) if each.at == decoding]
        systems = list(dict.fromkeys(each.system for each in timed))
        lines = []
        for colour, system in enumerate(systems):
            own = [each for each in timed if each.system == system]
            lines.append(
                Line(system, [(_frames(each), each.ours, each.low, each.high) for each in own], colour=colour)
            )
            paper = [(_frames(each), each.paper, NAN, NAN) for each in own if not math.isnan(each.paper)]
            lines.append(Line(f"{system}, paper", paper, dashed=True, colour=colour))
        yield line_chart(f"Figure 2, {decoding}", "frames", "time relative to audio-only", lines, top=1.0)


def _frames(each: Comparison) -> float:
    return float(each.metric.split()[0])
