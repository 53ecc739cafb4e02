"""The pages of robustness, evaluate, speed and train in the browser."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evacap_cli.data.manifest import Entry
from evacap_cli.data.store import Sample, write_store
from evacap_cli.tasks.reporting.pictures import PictureOptions
from evacap_cli.tasks.reporting.results import report_results

from ..tasks.noise import FEATURES, pictures
from ..tasks.reporting.result_folders import (
    Captions,
    evaluated_folder,
    run_folder,
    speed_folder,
    sweep_folder,
)
from .conftest import Open
from .looks import check_looks
from .samples import HOSTILE
from .test_clip_list import order, saved, shown

ARABIC, HEBREW = "كلب ينبح بصوت عال", "הגשם יורד"
LONG = "/".join(["a-very-long-folder-name-without-any-space"] * 5)
PageOf = Callable[[str], Path]
KINDS = ("robustness", "evaluate", "speed", "train")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two results of each kind; with a store whose clips have pictures and sound."""
    folder = tmp_path_factory.mktemp("results")
    keys = [f"clip-{i}" for i in range(4)]
    for key in keys:
        tone = (np.sin(np.arange(16000) / 8) * 8000).astype(np.int16)
        with wave.open(str(folder / f"{key}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, len(tone), "NONE", ""))
            file.writeframes(tone.tobytes())
    rng = np.random.default_rng(0)

    def make(entry: Entry) -> Sample:
        unseen = entry.key == keys[0]
        fbank = rng.standard_normal((64, 32)).astype(np.float32)
        return Sample(fbank, None if unseen else pictures(rng), end=1.0)

    items = [Entry(key, f"{key}.wav", (f"{key} sounds", ARABIC), None) for key in keys]
    write_store(folder / "store", items, make, FEATURES, workers=0, media=[folder])
    captioned: Captions = {
        keys[0]: ("a dog barks", "a dog barks", "a dog", "0.9", "0.1"),
        keys[1]: ("rain falls", "a cat meows", "rain", "0.8", "0.2"),
        keys[2]: (ARABIC, HEBREW, f"{HEBREW} | rain", "0.7", "0.3"),
        keys[3]: ("thunder rumbles", "thunder roars", "thunder", "", ""),
    }
    store = str(folder / "store")
    sweep_folder(folder / "robustness", captions=captioned, store=store)
    sweep_folder(folder / "robustness-2", 0.4, LONG, captions=captioned, store=store)
    evaluated_folder(folder / "evaluate", keys, store, ("ours", LONG))
    evaluated_folder(folder / "evaluate-2", keys, store)
    speed_folder(folder / "speed")
    speed_folder(folder / "speed-2", LONG)
    run_folder(folder / "train", {"lr": 0.125}, [*keys, ARABIC, LONG])
    run_folder(folder / "train-2")
    return folder


@pytest.fixture
def page_of(results: Path) -> PageOf:
    """Writes the page of a kind, or of both results of a kind (`KIND-two`), when it is first asked for."""

    def write(name: str) -> Path:
        path, kind = results / f"{name}.html", name.removesuffix("-two")
        if not path.exists():
            folders = [results / kind, results / f"{kind}-2"][: 2 if name != kind else 1]
            report_results(folders, path, PictureOptions(workers=0))
        return path

    return write


def number_names(page: Any) -> list[str]:
    return page.eval_on_selector_all("#clip-2 .captions .numbers dt", "all => all.map(a => a.textContent)")


@pytest.mark.slow
def test_robustness_shows_both_pictures_and_sorts_by_change(open_page: Open, page_of: PageOf) -> None:
    page = open_page(page_of("robustness"))
    shown(page, "4 clips")
    assert order(page) == [
        "clip-2",
        "clip-3",
        "clip-4",
        "clip-1",
    ]  # 1.00, 1.00, 0.67, 0.00 of the words changed
    titles = page.eval_on_selector_all("#clip-2 .caption small", "all => all.map(a => a.textContent)")
    assert titles == ["own picture", "other picture", "references"]
    assert page.inner_text("#clip-2 .from") == "the other picture, of clip 4"
    assert page.locator("#clip-1 img").count() == 2  # its spectrogram and the other picture
    assert number_names(page) == ["gate", "gate"]
    figures = page.eval_on_selector_all("figcaption", "all => all.map(a => a.textContent)")
    assert {"CIDEr", "Detection of changed clips", "Calibration of mismatch"} <= set(figures)
    page.click("#clip-3 .play")
    page.wait_for_function("() => document.querySelector('video')?.currentTime > 0.1")
    assert page.is_visible("#clip-3 .strip:not(.other)")  # a sound file does not hide the picture
    page.click("#clip-2 .from a")
    page.wait_for_function("() => document.activeElement.id === 'clip-4'")


@pytest.mark.slow
def test_evaluate_shows_all_models_and_references(open_page: Open, page_of: PageOf) -> None:
    page = open_page(page_of("evaluate"), "#clip-3")
    assert page.evaluate("document.activeElement.id") == "clip-3"
    titles = page.eval_on_selector_all("#clip-1 .caption small", "all => all.map(a => a.textContent)")
    assert titles == [
        "ours",
        LONG[:27] + "…" + LONG[-27:],
        "references",
    ]  # the middle of a long name is left out
    assert page.inner_text("#clip-1 .reference") == f"clip-0 sounds | {ARABIC}"
    page.fill("#text", "clip-2 sounds")
    shown(page, "1 of 4 clips")
    (row,) = saved(page)
    assert (row["file"], row["ours"], row[LONG], row["CIDEr (ours)"]) == ("clip-2", "clip-2", "a dog", "0.25")
    assert "paper's Proposed (AudioCaps)" in page.inner_text("table:visible")
    page.click("figure summary >> nth=0")
    assert "0.649" in page.inner_text("figure table >> nth=0")


@pytest.mark.slow
def test_training_shows_samples_over_time_and_changed_settings(open_page: Open, page_of: PageOf) -> None:
    page = open_page(page_of("train"))
    titles = page.eval_on_selector_all("#clip-1 .caption small", "all => all.map(a => a.textContent)")
    assert titles == ["step 4", "step 2", "reference"]
    assert "training.lr" in page.inner_text("section:has-text('differ from the preset') table")
    assert page.locator(".play").count() == 0


@pytest.mark.slow
def test_tables_and_figures_are_saved_as_csv(open_page: Open, page_of: PageOf) -> None:
    page = open_page(page_of("speed"))
    assert page.locator("#clips").count() == 0
    for button in page.locator(".save-table").all():
        details = button.locator("xpath=ancestor::details")
        if details.count():
            details.locator("summary").click()
        with page.expect_download() as download:
            button.click()
        text = Path(download.value.path()).read_text("utf-8-sig")
        assert "evacap-base" in text
        assert len(text.splitlines()) >= 3


@pytest.mark.slow
def test_right_to_left_captions(open_page: Open, page_of: PageOf) -> None:
    page = open_page(page_of("robustness"), "#clip-3")
    found = page.eval_on_selector_all(
        "#clip-3 .caption bdi", "all => all.map(a => getComputedStyle(a).direction)"
    )
    assert found[:2] == ["rtl", "rtl"]
    left, right = (
        page.eval_on_selector(f"#{clip} .caption bdi", "a => a.getBoundingClientRect().left")
        for clip in ("clip-2", "clip-3")
    )
    assert left == pytest.approx(
        right, abs=1
    )  # the caption begins next to its title, not at the other end of the row


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("many", ["", "-two"])
def test_looks_right(open_page: Open, page_of: PageOf, kind: str, many: str) -> None:
    """A page of two results has all colours of a page of one."""
    check_looks(open_page, page_of(f"{kind}{many}"), ("light", "dark") if many else ("light",))


@pytest.mark.slow
def test_hostile_text_does_not_run(open_page: Open, tmp_path: Path) -> None:
    texts = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in HOSTILE]
    name = " ".join(texts[:6])
    captioned: Captions = {text: (text, text[::-1], text, "0.5", "0.5") for text in texts}
    made = [
        sweep_folder(tmp_path / "sweep", model=name, captions=captioned, store=texts[0]),
        evaluated_folder(tmp_path / "table", texts, texts[1], [name, "x"]),
        speed_folder(tmp_path / "speed", name),
        run_folder(tmp_path / "run", clips=texts),
    ]
    for folder in made:
        report_results([folder], tmp_path / f"{folder.name}.html", PictureOptions(workers=0))
        page = open_page(tmp_path / f"{folder.name}.html")
        if folder.name != "speed":
            page.keyboard.press("j")
            assert texts[0] in page.inner_text("#list")
        assert page.evaluate("typeof hacked") == "undefined"
        assert page.locator("body script:not([type]), body img").count() == 1  # its own script
