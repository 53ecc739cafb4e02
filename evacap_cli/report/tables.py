"""Tables of metrics for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

WIDE = 200  # in a file, nothing has to fit a window


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """A table on stdout, its first column of names and the others of numbers, and lines below it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    table = Table(box=box.SIMPLE, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note, markup=False)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """The same as Markdown."""
    cells = [[cell.strip().replace("|", "\\|") for cell in row] for row in (header, *rows)]
    ruler = ["---", *("---:" for _ in header[1:])]
    lines = ["| " + " | ".join(row) + " |" for row in (cells[0], ruler, *cells[1:])]
    return "\n".join([*lines, *(f"\n{note}" for note in notes)]) + "\n"


def number(value: float | None, digits: int = 4) -> str:
    """A value as tables show it; None is one that could not be had."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def interval(name: str, intervals: Mapping[str, tuple[float, float]]) -> str:
    """`low .. high`, empty where there is none."""
    return " .. ".join(map(number, intervals[name])) if name in intervals else ""
