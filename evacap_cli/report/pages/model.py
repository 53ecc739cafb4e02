"""What a page shows, as plain values: no HTML but the SVG of figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

Tags = tuple[tuple[str, float], ...]
"""Classes with their confidence, 0 to 1, best first."""


@dataclass(frozen=True)
class Column:
    """A number that clips have. digits: decimal places. help: what it means, in one sentence."""

    name: str
    digits: int = 3
    help: str = ""


@dataclass(frozen=True)
class Clip:
    """One row of a clip list.

    name: the file as the table names it. captions, numbers: one for each column of the list; None for a missing
    number. start, end: seconds. href: relative URL of the file, or "" if it is missing. heard, seen: tags.
    looked: the caption's words, in their order, with how much of each comes from the picture.
    curves: gate and entropy over time, 0 to 1, or None. pictures: URLs of the frame strip, the spectrogram and the
    player's copy: `data:` URLs for pictures inside the page, "" for missing ones.
    """

    name: str
    captions: tuple[str, ...]
    numbers: tuple[float | None, ...] = ()
    start: float | None = None
    end: float | None = None
    status: str = "ok"
    error: str = ""
    href: str = ""
    heard: Tags = ()
    seen: Tags = ()
    looked: Tags = ()
    curves: tuple[tuple[float | None, ...], ...] = ()
    pictures: tuple[str, str, str] = ("", "", "")


@dataclass(frozen=True)
class ClipList:
    """The clips of a page. clips: gives them anew at each call, so that they need not be held. captions: what each
    caption of a clip is. sort: the number by which they are sorted at first, largest first; empty for their order."""

    clips: Callable[[], Iterator[Clip]]
    numbers: tuple[Column, ...] = ()
    captions: tuple[str, ...] = ("caption",)
    sort: str = ""


@dataclass(frozen=True)
class Table:
    """Text in rows; the first column has names, the others mostly numbers. A name that begins with spaces belongs to
    the row above it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """An SVG, the names of its lines by their class in it, and its numbers as a table."""

    title: str
    svg: Markup
    legend: Sequence[tuple[str, str]] = ()
    table: Table | None = None


@dataclass(frozen=True)
class Page:
    """A whole page. counts: (name, number) of what stands at its top. facts: (name, value) of what made the results:
    model, settings, versions, command."""

    title: str
    lead: str = ""
    counts: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    clips: ClipList | None = None
    notes: Sequence[str] = field(default=())
