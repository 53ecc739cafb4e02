"""`evacap report` and `evacap caption --report`."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from evacap_cli.tasks.reporting import captions

from ..conftest import Evacap

FAST = ("--workers", 0, "--device", "cpu", "--precision", "fp32", "--max-words", 2, "-q")


@pytest.fixture
def films(clip: Path, tmp_path: Path) -> Path:
    """A film and a damaged file."""
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a #1?.mp4").write_bytes(clip.read_bytes())
    (folder / "bad.mp4").write_bytes(b"damaged")
    return folder


def rows_of(page: Path) -> list[list[object]]:
    text = page.read_text("utf-8")
    return json.loads(text.partition('class="rows">')[2].partition("</script>")[0])


def test_caption_writes_a_page(evacap: Evacap, tiny: Path, films: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "page.html"
    made = ("--curves", tmp_path / "curves", "--report", page)
    result = evacap("caption", films, "-o", tmp_path / "o.csv", "--model", tiny, *made, *FAST)
    assert result.exit_code == 3, result.output  # one file is damaged
    with (tmp_path / "o.csv").open(newline="", encoding="utf-8") as file:
        good, bad = csv.DictReader(file)
    shown, failed = rows_of(page)
    assert shown[1] == "./../films/a%20%231%3F.mp4"
    assert shown[6] == [good["caption"]]
    assert shown[7][:2] == [float(good["score"]), float(good["gate"])]
    assert all(0 <= value <= 1 for curve in shown[10] for value in curve)
    assert shown[12] == 1  # its pictures are in the page
    assert (failed[4], failed[5], failed[12]) == ("failed", bad["error"], 0)
    text = page.read_text("utf-8")
    assert "evacap " in text
    assert '<dt>beam</dt><dd dir="auto">4</dd>' in text  # of the journal


def test_a_page_that_fails_leaves_the_table(
    evacap: Evacap, tiny: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(captions, "save_page", fail)
    page = tmp_path / "page.html"
    result = evacap("caption", films, "-o", tmp_path / "o.csv", "--model", tiny, "--report", page, *FAST)
    assert result.exit_code == 1
    assert "no report" in result.stderr
    assert "no room" in result.stderr
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 3
    assert not page.exists()


def test_report_of_a_table_without_its_files(evacap: Evacap, tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text(
        json.dumps({"video": "gone.mp4", "start": 0, "end": 1, "caption": "a dog", "status": "ok"}) + "\n"
    )
    result = evacap("report", table, "--json", "-q")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["report"] == str(tmp_path / "t.html")
    ((name, href, *_, pictures, _),) = rows_of(tmp_path / "t.html")
    assert (name, href, pictures) == ("gone.mp4", "", 0)


def test_files_that_are_not_found_are_named_with_a_cure(
    evacap: Evacap, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names in a table are relative to the folder in which it was made."""
    (tmp_path / "made" / "films").mkdir(parents=True)
    (tmp_path / "made" / "films" / "a.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "out").mkdir()
    table = tmp_path / "out" / "t.csv"
    table.write_text("video,start,end,caption\nfilms/a.mp4,0,2,a tone\n")
    monkeypatch.chdir(tmp_path)
    result = evacap("report", table, "--workers", 0)
    assert result.exit_code == 0, result.output
    assert "1 of 1 clips have no pictures and no player: films/a.mp4 is not found" in result.stderr
    assert "cure: run `evacap report` in the folder in which `evacap caption` ran" in result.stderr
    assert "The files of 1 clip were not found" in table.with_suffix(".html").read_text("utf-8")
    monkeypatch.chdir(tmp_path / "made")
    result = evacap("report", table, "--workers", 0)
    assert "not found" not in result.stderr
    assert rows_of(table.with_suffix(".html"))[0][1] == "./../made/films/a.mp4"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that takes no files, even from root")
def test_a_page_that_cannot_be_written_leaves_the_table(
    evacap: Evacap, tiny: Path, films: Path, tmp_path: Path
) -> None:
    page = Path("/proc/page.html")
    result = evacap("caption", films, "-o", tmp_path / "o.csv", "--model", tiny, "--report", page, *FAST)
    assert result.exit_code == 1
    assert "error: no report: /proc/page.html: cannot be written" in result.stderr
    assert "cure: the results are complete" in result.stderr
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 3


def test_the_table_is_complete_before_the_page(
    evacap: Evacap, tiny: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    real = captions.report_captions

    def look(table: Path, *rest: object) -> object:
        found.append(len(table.read_text().splitlines()))
        return real(table, *rest)

    monkeypatch.setattr(captions, "report_captions", look)
    page = tmp_path / "page.html"
    evacap("caption", films, "-o", tmp_path / "o.csv", "--model", tiny, "--report", page, *FAST)
    assert found == [3]
    assert page.exists()


def test_small_copies_are_embedded(evacap: Evacap, clip: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"video,start,end,caption\n{clip},0,2,a tone\n")
    result = evacap("report", table, "--embed-media", "--workers", 0, "-q")
    assert result.exit_code == 0, result.output
    page = table.with_suffix(".html").read_text("utf-8")
    (urls,) = json.loads(page.partition('class="pictures p0">')[2].partition("</script>")[0])
    assert urls[2].startswith("data:video/webm;base64,")
    assert len(urls[2]) < 2 * 32_000  # bytes a second
    assert not table.with_name("t_files").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("report", "absent.csv"), "absent.csv"),
        (("report", "a.csv", "-o", "page.pdf"), ".html"),
        (("caption", "a.mp4", "-o", "o.srt", "--report", "p.html"), "--report"),
        (("caption", "a.mp4", "--report", "p.html"), "-o"),
        (("caption", "a.mp4", "-o", "o.csv", "--embed-media"), "--report"),
    ],
)
def test_impossible_reports_are_refused(evacap: Evacap, args: tuple[str, ...], words: str) -> None:
    result = evacap(*args)
    assert result.exit_code == 2
    assert words in result.stderr
