"""Pages as text: what stands in scripts, the policy, streaming."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from html import unescape

import pytest

from evacap_cli.report.pages import Clip, ClipList, Page, Table, write_page
from evacap_cli.report.pages.writing import ROWS, safe_json


def html(page: Page) -> str:
    file = io.BytesIO()
    write_page(page, file)
    return file.getvalue().decode()


def test_json_cannot_end_its_script() -> None:
    value = ["</script><!--<script>&", "\u2028\u2029", "\ud800", "ü"]
    text = str(safe_json(value))
    assert not set("<>&\u2028\u2029") & set(text)
    assert "ü" in text
    assert json.loads(text) == value


def test_the_policy_has_the_hashes_of_the_page() -> None:
    text = unescape(html(Page("A page")))
    for tag in ("style", "script"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'" in text
    assert "http:" not in re.sub(r"http://www\.w3\.org/2000/svg", "", text)
    assert "https:" not in text.replace("^https?:", "")


def test_text_is_escaped_everywhere() -> None:
    bad = "<b>&\"'"
    page = Page(bad, bad, [(bad, bad)], [(bad, bad)], (), [Table(bad, [bad], [[bad]], bad)], None, [bad])
    assert bad not in html(page)
    assert html(page).count("&lt;b&gt;&amp;&#34;&#39;") == 14


@pytest.mark.slow
def test_clips_are_streamed() -> None:
    """The first piece is in the file before the last clip is asked for."""
    file, sizes = io.BytesIO(), []

    def clips() -> Iterator[Clip]:
        for number in range(200 * ROWS):
            if number % (20 * ROWS) == 0:
                sizes.append(file.tell())
            yield Clip(f"{number}.mp4", ("a caption",))

    write_page(Page("Long", clips=ClipList(clips)), file)
    assert sizes[0] == 0
    assert sizes[-1] > 0.5 * file.tell()


def test_pictures_are_separate_from_the_text() -> None:
    shown = ("data:image/webp;base64,AAAA", "", "")
    clips = [Clip("a.mp4", ("a",), pictures=shown if n == 150 else ("", "", "")) for n in range(300)]
    text = html(Page("Pictures", clips=ClipList(lambda: iter(clips))))
    (rows,) = re.findall(r'class="rows">(.*?)</script>', text)
    assert "data:" not in rows
    ((piece, pictures),) = re.findall(r'class="pictures p(\d+)">(.*?)</script>', text)
    assert (piece, json.loads(pictures)[50]) == ("1", list(shown))


def test_long_names_are_shortened_with_the_full_name_as_title() -> None:
    long = "a" * 40 + "b" * 40
    text = html(Page("Names", tables=[Table("Table", ["name"], [[long], ["  short"]])]))
    assert f'title="{long}">{"a" * 27}…{"b" * 27}</th>' in text
    assert ">short</th>" in text
