"""The clip list as people use it: sort, filter, links, keys, CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from evacap_cli.report.pages import Page

from .conftest import Open
from .samples import HOSTILE, clip, hostile, listed, many, write


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pages"), "hundred", Page("Hundred", clips=many(100)))


def order(page: Any) -> list[str]:
    """The numbers of the clips that are built, from the top."""
    return page.eval_on_selector_all("article", "all => all.map(a => a.id)")


def shown(page: Any, text: str) -> None:
    page.wait_for_function("text => document.getElementById('shown').textContent === text", arg=text)


def test_sorts_both_ways(open_page: Open, hundred: Path) -> None:
    page = open_page(hundred)
    assert order(page)[:3] == ["clip-1", "clip-2", "clip-3"]
    page.select_option("#sort", label="mismatch")
    assert order(page)[:2] == ["clip-1", "clip-44"]  # 0.00, 0.01
    page.click("#order")
    assert order(page)[:2] == ["clip-58", "clip-15"]  # 0.99, 0.98
    assert page.get_attribute("#order", "aria-pressed") == "true"


@pytest.mark.slow
def test_filters_by_words_status_and_range(open_page: Open, hundred: Path) -> None:
    page = open_page(hundred)
    shown(page, "100 clips")
    page.fill("#text", "BELL tolls")
    shown(page, "25 of 100 clips")
    page.fill("#most", "0.5")
    shown(page, "13 of 100 clips")
    page.click("#clear")
    shown(page, "100 clips")
    page.uncheck("#statuses input[value=ok]")
    shown(page, "25 of 100 clips")
    assert set(page.eval_on_selector_all("article .status", "all => all.map(a => a.textContent)")) == {
        "audio-only"
    }
    page.fill("#text", "no such words")
    shown(page, "0 of 100 clips")
    assert page.inner_text("#list") == "No clip matches these filters."


@pytest.mark.slow
def test_links_lead_to_a_clip_even_if_it_was_filtered_out(open_page: Open, hundred: Path) -> None:
    page = open_page(hundred, "#clip-77")
    assert page.evaluate("document.activeElement.id") == "clip-77"
    assert 0 <= page.evaluate("document.getElementById('clip-77').getBoundingClientRect().top") < 900
    page.fill("#text", "bell")
    shown(page, "25 of 100 clips")
    page.evaluate("location.hash = '#clip-50'")
    page.wait_for_function("() => document.activeElement.id === 'clip-50'")
    shown(page, "100 clips")


@pytest.mark.slow
def test_keys_move_and_filter(open_page: Open, hundred: Path) -> None:
    page = open_page(hundred)
    for key, at in (("j", "clip-1"), ("j", "clip-2"), ("j", "clip-3"), ("k", "clip-2")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == at
        assert page.eval_on_selector_all(".clip.current", "all => all.map(a => a.id)") == [at]
    page.keyboard.press("/")
    page.keyboard.type("jj")  # into the filter, not down the list
    assert page.input_value("#text") == "jj"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.tagName") == "BODY"


@pytest.mark.slow
def test_every_control_is_reached_by_tab(open_page: Open, hundred: Path) -> None:
    page = open_page(hundred)
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"text", "number", "least", "most", "sort", "order", "copy", "save", "clear", "SUMMARY"} <= reached


@pytest.mark.slow
def test_saves_filtered_rows_as_csv(open_page: Open, hundred: Path) -> None:
    page = open_page(hundred)
    page.fill("#text", "bell")
    shown(page, "25 of 100 clips")
    rows = saved(page)
    assert len(rows) == 25
    expected = clip(2)
    assert rows[0]["file"] == expected.name
    assert rows[0]["caption"] == expected.captions[0]
    assert float(rows[0]["mismatch"]) == expected.numbers[2]


@pytest.mark.slow
def test_copies_as_csv(open_page: Open, hundred: Path) -> None:
    page = open_page(hundred, permissions=["clipboard-read", "clipboard-write"])
    page.fill("#least", "0.9")
    shown(page, "10 of 100 clips")
    page.click("#copy")
    page.wait_for_function("() => document.getElementById('copy').textContent === 'Copied'")
    rows = list(csv.DictReader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
    assert len(rows) == 10
    assert all(float(row["mismatch"]) >= 0.9 for row in rows)


def saved(page: Any) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.click("#save")
    text = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


@pytest.mark.slow
def test_hostile_text_is_shown_and_does_not_run(open_page: Open, tmp_path: Path) -> None:
    page = open_page(write(tmp_path, "hostile", hostile()))
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.title() == " ".join(HOSTILE[:3])
    for text in (
        "<script>hacked=1</script>",
        "<img src=x onerror=hacked=1>.mp4",
        "{{ 7*7 }}{% raw %}${hacked=1}`",
    ):
        assert text in page.eval_on_selector_all("article .caption", "all => all.map(a => a.textContent)")
    assert r"\u202egpj.exe" in page.eval_on_selector_all(
        "article .caption", "all => all.map(a => a.textContent)"
    )
    looked = page.eval_on_selector_all(
        "article:first-child .tags", "all => all.map(a => a.innerText.replace(/\\s+/g, ' '))"
    )
    assert any(text.startswith("from the picture") and text.endswith("0.13") for text in looked)
    page.hover("article >> nth=4")
    page.keyboard.press("j")
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("article img, article script, article b:not(.second)").count() == 0
    links = page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
    assert all(link.startswith("#clip") for link in links)
    rows = saved(page)
    assert [row["file"].removeprefix("'") for row in rows] == [
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in HOSTILE
    ]
    assert all(
        row["file"].startswith("'")
        for row in rows
        if row["file"].lstrip("'= \u200b")[:0] or row["clip"] in ("9", "10", "11")
    )


@pytest.mark.slow
def test_the_policy_forbids_requests_and_foreign_scripts(chromium: Any, hundred: Path) -> None:
    page = chromium.new_page()
    page.goto(hundred.as_uri())
    violated = page.evaluate(
        """async () => {
            const found = [];
            document.addEventListener("securitypolicyviolation", (e) => found.push(e.effectiveDirective));
            await fetch("http://127.0.0.1:9/").catch(() => {});
            new Image().src = "http://127.0.0.1:9/x.png";
            const script = document.createElement("script");
            try { script.textContent = "hacked = 1"; document.head.append(script); } catch {}
            const form = document.createElement("form");
            form.action = "http://127.0.0.1:9/";
            document.body.append(form);
            form.submit();
            await new Promise((done) => setTimeout(done, 500));
            return found;
        }"""
    )
    assert {"connect-src", "img-src", "form-action"} <= set(violated)
    assert page.evaluate("typeof hacked") == "undefined"
    page.close()


@pytest.mark.slow
def test_a_long_list_builds_only_nearby_rows(open_page: Open, tmp_path: Path) -> None:
    page = open_page(write(tmp_path, "long", Page("Long", clips=many(10_000))))
    print(f"10,000 clips: {page.get_attribute('html', 'data-ready')} ms")  # -s shows it
    shown(page, "10,000 clips")
    assert 0 < len(order(page)) <= 200
    for share in (0.3, 0.9, 0.5):
        page.evaluate("share => scrollTo(0, document.body.scrollHeight * share)", share)
        page.wait_for_function(
            "() => [...document.querySelectorAll('article')].some(a => "
            "{ const r = a.getBoundingClientRect(); return r.top < 900 && r.bottom > 0; })"
        )
        assert len(order(page)) <= 300
    assert page.locator("#pager").is_hidden()


@pytest.mark.slow
def test_a_very_long_list_has_pages(open_page: Open, tmp_path: Path) -> None:
    page = open_page(write(tmp_path, "very-long", Page("Very long", clips=many(20_001))), "#clip-20001")
    assert page.evaluate("document.activeElement.id") == "clip-20001"
    assert page.inner_text("#where") == "page 3 of 3"
    assert page.is_disabled("#after")
    page.click("#before")
    assert page.inner_text("#where") == "page 2 of 3"
    assert order(page)[0] == "clip-10001"


@pytest.mark.slow
def test_clips_without_a_number_come_last(open_page: Open, tmp_path: Path) -> None:
    clips = [clip(0, numbers=(None, None, None)), clip(1), clip(2)]
    page = open_page(write(tmp_path, "some", Page("Some", clips=listed(clips))))
    page.select_option("#sort", label="score")
    assert order(page) == ["clip-3", "clip-2", "clip-1"]
    page.click("#order")
    assert order(page) == ["clip-2", "clip-3", "clip-1"]
