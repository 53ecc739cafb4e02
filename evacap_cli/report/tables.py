"""Tables of numbers for the terminal and for Markdown files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

FILE_WIDTH = 200  # characters; a table that is written to a file need not fit a window


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Prints a table on stdout, with the notes below it. The first column is left-aligned, the others right-aligned."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    table = Table(box=box.SIMPLE, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note, markup=False)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """Formats the table of `print_table` as Markdown."""
    cells = [[cell.strip().replace("|", "\\|") for cell in row] for row in (header, *rows)]
    ruler = ["---", *("---:" for _ in header[1:])]
    lines = ["| " + " | ".join(row) + " |" for row in (cells[0], ruler, *cells[1:])]
    return "\n".join([*lines, *(f"\n{note}" for note in notes)]) + "\n"


def number(value: float | None, digits: int = 4) -> str:
    """Formats a value for a table; None, a value that could not be computed, becomes `n/a`."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def interval(name: str, intervals: Mapping[str, tuple[float, float]]) -> str:
    """Formats the interval of a metric as `low .. high`; empty if the metric has none."""

    return " .. ".join(map(number, intervals[name])) if name in intervals else ""
