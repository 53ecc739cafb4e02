"""`evacap caption --tags`: the columns `heard` and `seen`, in every table."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ..conftest import Evacap
from ..media.clips import write
from ..tasks.captioning.tagged import save_tagged, stripes

COLUMNS = ["video", "start", "end", "caption", "score", "gate", "entropy", "heard", "seen", "status", "error"]
CELL = re.compile(r"[^;]+ \.\d\d(; [^;]+ \.\d\d){0,4}")
FAST = ("--workers", 0, "--device", "cpu", "--precision", "fp32", "--max-words", 1, "-q")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tagged(tmp_path_factory.mktemp("models"), "evidence-tags")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write(folder / "film.mp4", 2.0, draw=stripes)
    write(folder / "sound.wav", 1.0, video=None, audio="pcm_s16le")
    return folder


@pytest.fixture(scope="module")
def some_bad(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film, a sound and a damaged file."""
    folder = tmp_path_factory.mktemp("films")
    for film in films.iterdir():
        (folder / film.name).write_bytes(film.read_bytes())
    (folder / "damaged.mp4").write_bytes(b"damaged")
    return folder


def read(table: Path) -> dict[str, dict[str, str]]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        return {Path(row["video"]).name: row for row in csv.DictReader(file, strict=True)}


@pytest.mark.slow
def test_every_table_has_the_columns(evacap: Evacap, model: Path, some_bad: Path, tmp_path: Path) -> None:
    outs = {kind: tmp_path / f"o.{kind}" for kind in ("csv", "jsonl", "parquet")}
    for out in outs.values():
        result = evacap("caption", some_bad, "-o", out, "--model", model, "--tags", *FAST)
        assert result.exit_code == 3, result.output  # one file is damaged
    rows = read(outs["csv"])
    assert all(list(row) == COLUMNS for row in rows.values())
    assert CELL.fullmatch(rows["film.mp4"]["heard"])
    assert CELL.fullmatch(rows["film.mp4"]["seen"])
    assert CELL.fullmatch(rows["sound.wav"]["heard"])
    assert (rows["sound.wav"]["status"], rows["sound.wav"]["seen"]) == ("audio-only", "")
    damaged = rows["damaged.mp4"]
    assert (damaged["status"], damaged["heard"], damaged["seen"]) == ("failed", "", "")

    for row in pq.read_table(outs["parquet"]).to_pylist():
        assert list(row) == COLUMNS
        assert {name: row[name] for name in ("heard", "seen")} == {
            name: rows[Path(row["video"]).name][name] for name in ("heard", "seen")
        }
    for line in outs["jsonl"].read_text("utf-8").splitlines():
        row = json.loads(line)
        assert list(row) == COLUMNS
        for name in ("heard", "seen"):
            formatted = "; ".join(
                f"{tag['class']} {tag['confidence']:.2f}".replace(" 0.", " .") for tag in row[name]
            )
            assert formatted == rows[Path(row["video"]).name][name]
        assert all(list(tag) == ["class", "confidence", "times"] for tag in row["heard"])
        assert all(row["start"] <= a < b <= row["end"] for tag in row["heard"] for a, b in tag["times"])
        assert all(list(tag) == ["class", "confidence"] for tag in row["seen"])


@pytest.mark.slow
def test_without_the_option_there_are_no_columns(evacap: Evacap, model: Path, films: Path) -> None:
    result = evacap("caption", films, "--model", model, *FAST)
    assert result.exit_code == 0, result.output
    head = result.stdout.splitlines()[0].split(",")
    assert head == [name for name in COLUMNS if name not in ("heard", "seen")]


@pytest.mark.slow
def test_standard_output_and_spreadsheets(evacap: Evacap, model: Path, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.csv"
    for excel in ((), ("--excel",)):
        options = ("--model", model, "--tags", *excel, *FAST)
        assert evacap("caption", films, "-o", out, "--overwrite", *options).exit_code == 0
        streamed = evacap("caption", films, *options)
        assert streamed.exit_code == 0, streamed.output
        assert streamed.stdout_bytes == out.read_bytes()
        assert CELL.fullmatch(read(out)["film.mp4"]["heard"])
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")


@pytest.mark.slow
def test_kept_rows_have_tags(evacap: Evacap, model: Path, some_bad: Path, tmp_path: Path) -> None:
    """Asked for afterwards, or for what failed before, no other clip is described again."""
    whole, out = tmp_path / "whole.csv", tmp_path / "o.csv"
    options = ("--model", model, *FAST, "--json")
    evacap("caption", some_bad, "-o", whole, "--tags", *options)
    evacap("caption", some_bad, "-o", out, *options)
    plain = out.read_bytes()
    again = evacap("caption", some_bad, "-o", out, "--tags", *options)
    assert json.loads(again.stdout)["new"] == 0
    assert out.read_bytes() == whole.read_bytes()
    assert evacap("caption", some_bad, "-o", out, *options).exit_code == 3
    assert out.read_bytes() == plain
    retried = evacap("caption", some_bad, "-o", out, "--tags", "--retry-failed", *options)
    assert json.loads(retried.stdout)["new"] == 1
    assert out.read_bytes() == whole.read_bytes()

    more = write(tmp_path / "more.mp4", 1.0, draw=stripes)
    added = evacap("caption", some_bad, more, "-o", out, "--tags", *options)
    assert json.loads(added.stdout)["new"] == 1
    rows = read(out)
    assert rows.pop("more.mp4")["heard"]
    assert rows == read(whole)


@pytest.mark.slow
def test_merged_rows_have_the_tags_of_all(evacap: Evacap, model: Path, films: Path, tmp_path: Path) -> None:
    def lines(name: str, *options: str) -> list[dict]:
        out = tmp_path / name
        result = evacap("caption", films / "film.mp4", "-o", out, "--segment", 1, "--tags", "--model", model,
                        *options, *FAST)  # fmt: skip
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in out.read_text("utf-8").splitlines()]

    parts = lines("parts.jsonl")
    (whole,) = lines("whole.jsonl", "--merge")
    assert len(parts) == 2
    assert (whole["start"], whole["end"]) == (0.0, 2.0)
    best: dict[str, float] = {}
    for part in parts:
        for tag in part["heard"]:
            best[tag["class"]] = max(best.get(tag["class"], 0), tag["confidence"])
    found = {tag["class"]: tag["confidence"] for tag in whole["heard"]}
    assert len(found) == min(5, len(best))
    assert list(found.values()) == sorted(best.values(), reverse=True)[:5]
    assert all(best[name] == confidence for name, confidence in found.items())
    for tag in whole["heard"]:
        times = [span for part in parts for each in part["heard"] if each["class"] == tag["class"]
                 for span in each["times"]]  # fmt: skip
        assert sum(b - a for a, b in tag["times"]) == pytest.approx(sum(b - a for a, b in times), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("out", [(), ("-o", "o.csv")])
def test_a_model_without_tags_is_refused(
    evacap: Evacap,
    tiny: Path,
    films: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    result = evacap("caption", films, *out, "--tags", "--model", tiny, *FAST)
    assert result.exit_code == 2
    assert "--tags: evacap-tiny names no classes (its towers are cav-mae)" in result.stderr
    assert "omit --tags" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles_are_refused(evacap: Evacap, films: Path, tmp_path: Path, kind: str) -> None:
    result = evacap("caption", films / "film.mp4", "-o", tmp_path / f"o.{kind}", "--tags", *FAST)
    assert result.exit_code == 2
    assert f"--tags adds columns, but .{kind} has none" in result.stderr
