"""Writes a page as one self-contained HTML file: escaped, with a strict Content-Security-Policy, a piece at a time."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from itertools import islice
from typing import IO, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evacap_cli.report.pages.model import Clip, ClipList, Page
from evacap_cli.version import __version__

ROWS, PICTURES = 500, 100  # clips in one piece of JSON with texts, and with pictures
NAME = 56  # characters of a name that are shown in tables and legends
BUFFER = 64  # pieces of HTML per write
POLICY = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src 'self' file: data:; "
    "media-src 'self' file: data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Allows only the script and style of the page, and pictures and media from local files."""
UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""Characters that could end a script element or a line of a script."""


def write_page(page: Page, file: IO[bytes]) -> None:
    """Writes a page as UTF-8, a piece at a time. Clips are not held in memory."""
    style, script = _part("page.css"), _part("page.js")
    policy = POLICY.format(style=_sha256(style), script=_sha256(script))
    stream = (
        _templates()
        .get_template("page.html")
        .stream(
            page=page,
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            head=None if page.clips is None else safe_json(_head(page.clips)),
            pieces=() if page.clips is None else _pieces(page.clips.clips()),
            version=__version__,
            longest=NAME,
        )
    )
    stream.enable_buffering(BUFFER)
    for text in stream:  # lone surrogates cannot be encoded; they are written as \uNNNN
        file.write(text.encode("utf-8", "backslashreplace"))


def safe_json(value: Any) -> Markup:
    """JSON that is safe in a script element, whatever its strings contain."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(UNSAFE))


def shortened(text: str) -> str:
    """A long name without its middle, as page.js shows it."""
    return text if len(text) <= NAME else f"{text[: NAME // 2 - 1]}…{text[1 - NAME // 2 :]}"


def _head(clips: ClipList) -> dict[str, Any]:
    return {
        "captions": clips.captions,
        "numbers": [
            {"name": column.name, "digits": column.digits, "caption": column.caption, "label": column.label}
            for column in clips.numbers
        ],
        "sort": clips.sort,
        "other": clips.other,
        "pictures": PICTURES,
    }


def _pieces(clips: Iterable[Clip]) -> Iterator[tuple[str, Markup]]:
    """(class of the element, JSON) of all clips: texts in pieces of `ROWS`, and pictures inside the page in separate
    pieces of `PICTURES`, so that the browser parses only those that are shown."""
    rest, first = iter(clips), 0
    while piece := list(islice(rest, ROWS)):
        yield "rows", safe_json([_row(clip) for clip in piece])
        for at in range(0, len(piece), PICTURES):
            inside = [clip.pictures if _inside(clip) else None for clip in piece[at : at + PICTURES]]
            if any(inside):
                yield f"pictures p{(first + at) // PICTURES}", safe_json(inside)
        first += len(piece)


def _row(clip: Clip) -> list[Any]:
    """The fields of a clip in the order that page.js expects."""
    curves = [[_finite(value, 2) for value in curve] for curve in clip.curves]
    return [
        clip.name, clip.href, _finite(clip.start, 3), _finite(clip.end, 3), clip.status, clip.error, clip.captions,
        [_finite(value, 6) for value in clip.numbers], clip.heard, clip.seen, curves, clip.confidences,
        1 if _inside(clip) else clip.pictures if any(clip.pictures) else 0, clip.other,
    ]  # fmt: skip


def _inside(clip: Clip) -> bool:
    return any(url.startswith("data:") for url in clip.pictures)


def _finite(value: float | None, digits: int) -> float | None:
    return round(float(value), digits) if value is not None and math.isfinite(value) else None


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("evacap_cli.report.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["shortened"] = shortened
    return made


def _part(name: str) -> str:
    text = (resources.files("evacap_cli.report.pages") / name).read_text("utf-8")
    return text.replace("\r\n", "\n")  # as browsers see it when they take its hash


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
