"""The contents of a page as plain values. The only HTML is the SVG of figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Tags = tuple[tuple[str, float], ...]
"""Classes with their confidence, 0 to 1, best first."""


@dataclass(frozen=True)
class Column:
    """A number that clips have. digits: decimal places. help: what it means, in one sentence.

    caption: the index of the caption that the number describes, next to which it is shown as `label`; None for a number
    of the whole clip.
    """

    name: str
    digits: int = 3
    help: str = ""
    caption: int | None = None
    label: str = ""


@dataclass(frozen=True)
class Clip:
    """One row of a clip list.

    name: the file as the table names it. captions, numbers: one for each column of the list; None for a missing
    number. start, end: seconds. href: relative URL of the file, or "" if it is missing. heard, seen: tags.
    confidences: the caption's words, in their order, with how much of each comes from the picture.
    curves: gate and entropy over time, 0 to 1, or None. pictures: URLs of the frame strip, the spectrogram and the
    player's copy: `data:` URLs for pictures inside the page, "" for missing ones. other: the index of the clip whose
    picture or sound replaced this clip's.
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
    confidences: Tags = ()
    curves: tuple[tuple[float | None, ...], ...] = ()
    pictures: tuple[str, str, str] = ("", "", "")
    other: int | None = None


@dataclass(frozen=True)
class ClipList:
    """The clips of a page.

    clips: returns a new iterator at each call, so that the clips need not be in memory. captions: the title of each
    caption of a clip. sort: the number by which the clips are sorted at first, largest first; empty for their order.
    other: "frames" or "spectrogram", the part of a clip that `Clip.other` replaced; empty if there is none.
    """

    clips: Callable[[], Iterator[Clip]]
    numbers: tuple[Column, ...] = ()
    captions: tuple[str, ...] = ("caption",)
    sort: str = ""
    other: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text. The first column contains names, the others mostly numbers. A row whose name begins with spaces
    belongs to the row above it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """legend: (name, CSS class) of each line. table: the numbers of the figure."""

    title: str
    svg: Markup
    legend: Sequence[tuple[str, str]] = ()
    table: Table | None = None


@dataclass(frozen=True)
class Page:
    """The contents of a page.

    counts: (name, number) pairs at the top. facts: (name, value) pairs about the run: model, settings, versions,
    command. clips_title: the heading of the clips.
    """

    title: str
    lead: str = ""
    counts: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    clips: ClipList | None = None
    notes: Sequence[str] = ()
    clips_title: str = "Clips"
