"""Pages to look at: ordinary ones, empty states, long and hostile texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from evacap_cli.report.pages import Clip, ClipList, Column, Page, write_page

NUMBERS = (Column("score"), Column("gate"), Column("mismatch", help="the picture is not of the sound"))
WORDS = ("a dog barks", "rain falls on a roof", "a bell tolls", "an engine idles while a man speaks")
HOSTILE = (
    "<script>hacked=1</script>",
    "<img src=x onerror=hacked=1>.mp4",
    "</script><script>hacked=1</script>",
    "<!--<script>",
    "\"' onmouseover=hacked=1 autofocus onfocus=hacked=1 x='",
    "javascript:hacked=1//.mp4",
    "data:text/html,<script>hacked=1</script>",
    "{{ 7*7 }}{% raw %}${hacked=1}`",
    '=HYPERLINK("http://example.com")',
    "\uff1dcmd|' /C calc'!A0",
    " \u200b+1+1",
    "a\u2028b\u2029c",
    "\u202egpj.exe",
    "\ud800 half",
    "line\nbreak\ttab",
    "&lt;b&gt; &amp; <b>bold</b>",
)


def clip(number: int, **changes: object) -> Clip:
    made = Clip(
        name=f"videos/clip {number:05}.mp4",
        captions=(WORDS[number % len(WORDS)],),
        numbers=(-0.1 * (number % 17), (number % 11) / 10, (number * 7 % 100) / 100),
        start=0.0,
        end=10.0,
        status=("ok", "ok", "ok", "audio-only")[number % 4],
    )
    return replace(made, **changes)


def many(count: int) -> ClipList:
    def clips() -> Iterator[Clip]:
        return map(clip, range(count))

    return ClipList(clips, NUMBERS)


def listed(clips: Sequence[Clip], numbers: Sequence[Column] = NUMBERS) -> ClipList:
    return ClipList(lambda: iter(clips), tuple(numbers))


def write(folder: Path, name: str, page: Page) -> Path:
    path = folder / f"{name}.html"
    with path.open("wb") as file:
        write_page(page, file)
    return path


def hostile() -> Page:
    """Every hostile text in every place."""
    clips = [
        clip(
            i,
            name=text,
            captions=(text,),
            status=text if i % 2 else "failed",
            error=text,
            heard=((text, 0.5),),
            seen=((text, 0.25),),
            confidences=((text, 0.125),),
        )
        for i, text in enumerate(HOSTILE)
    ]
    facts = [(text, text) for text in HOSTILE]
    return Page(" ".join(HOSTILE[:3]), HOSTILE[0], facts, facts, clips=listed(clips), notes=HOSTILE)


def odd() -> dict[str, Page]:
    """Pages that are unlike the usual one, by name."""
    long = "/".join(["a-very-long-folder-name-without-any-space"] * 9) + "/" + "x" * 200 + ".mp4"
    arabic, hebrew = "كلب ينبح بصوت عال في الشارع", "כלב נובח ברחוב, והגשם יורד"
    strange = [
        clip(0, name=long, captions=("word " * 60,), heard=(("a class with quite a long name " * 4, 0.91),)),
        clip(1, name="unbroken" * 40, captions=("unbroken" * 60,)),
        clip(2, name=f"{hebrew}.mp4", captions=(arabic,), heard=((arabic, 0.77), ("Dog", 0.5))),
        clip(3, captions=("",), numbers=(None, None, None), status="failed", start=None, end=None,
             error="the file is damaged: moov atom not found; then: Invalid data found when processing input " * 3),
    ]  # fmt: skip
    failed = [
        clip(
            i,
            captions=("",),
            numbers=(None, None, None),
            status="failed",
            start=None,
            end=None,
            error="no audio track",
        )
        for i in range(5)
    ]
    facts = [("command", f"evacap caption {long} -o out.csv"), ("model.name", "demo")]
    return {
        "none": Page("No clips", "0 clips from out.csv", [("clips", "0")], clips=listed([])),
        "one": Page("One clip", "1 clip from out.csv", [("clips", "1")], clips=listed([clip(0)])),
        "failed": Page("All failed", "", [("clips", "5"), ("failed", "5")], facts, clips=listed(failed)),
        "no-gate": Page("No gate", "", clips=listed([clip(0, numbers=(-0.5,))], [Column("score")])),
        "strange": Page("Strange " + "n" * 120, long, [("clips", "4")], facts, clips=listed(strange)),
    }
