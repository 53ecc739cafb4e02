from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.metrics.suite import Settings
from evacap_cli.tasks.scoring import Report, check_folder, score_files, write_report

from ..metrics.java import hide_java

REFERENCES = """video,caption
a.mp4,a dog barks
a.mp4,the dog barks loudly
b.mp4,rain falls on a roof
c.mp4,a man speaks
d.mp4,a bell rings twice
"""
GOOD = "video,caption\na.mp4,a dog barks\nb.mp4,rain falls\nc.mp4,a man speaks\nd.mp4,a bell rings\n"
POOR = 'video,caption\na.mp4,"=1+1, a ""dog""\nruns"\nb.mp4,a cat\nc.mp4,\n'
PYTHON_ONLY = ("BLEU_1", "ROUGE_L", "CIDEr")


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """These tests are of what is done with values, not of the values."""
    hide_java(monkeypatch, tmp_path)
    monkeypatch.setenv("EVACAP_CACHE", str(tmp_path / "cache"))


def scored(folder: Path, candidates: str = GOOD, against: str | None = None, **options: int) -> Report:
    texts = {"candidates.csv": candidates, "references.csv": REFERENCES, "against.csv": against}
    for name, text in texts.items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    return score_files(
        folder / "candidates.csv",
        folder / "references.csv",
        folder / "against.csv" if against else None,
        Settings(PYTHON_ONLY),
        **options,
    )


def test_values_intervals_and_files(tmp_path: Path) -> None:
    report = scored(tmp_path)
    write_report(report, tmp_path / "new" / "out")
    found = json.loads((tmp_path / "new" / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert found["clips"] == 4
    assert found["ROUGE_L"] == report.system.scores.values["ROUGE_L"]
    assert found["CIDEr"] > 1
    low, high = found["intervals"]["ROUGE_L"]
    assert low < found["ROUGE_L"] <= high <= 1
    assert found["bootstrap"] == {"draws": 1000, "seed": 0, "level": 0.95}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new/out/per_clip.csv").read_text(encoding="utf-8"))))
    assert [row["clip"] for row in rows] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert list(rows[0]) == ["clip", "caption", *PYTHON_ONLY]
    assert [float(row["ROUGE_L"]) for row in rows] == list(report.system.scores.per_clip["ROUGE_L"])
    assert {path.name for path in (tmp_path / "new/out").iterdir()} == {"metrics.json", "per_clip.csv"}


def test_two_systems_are_compared_on_common_clips(tmp_path: Path) -> None:
    report = scored(tmp_path, GOOD, POOR)
    assert report.against is not None
    assert report.system.scores.clips == report.against.scores.clips == ("a.mp4", "b.mp4", "c.mp4")
    assert any("only the 3 common clips" in note for note in report.notes)
    assert report.against.pairs.missing == ["d.mp4"]
    assert not report.complete
    found = report.as_dict()
    one = found["differences"]["ROUGE_L"]
    assert one["difference"] == pytest.approx(found["ROUGE_L"] - found["against"]["ROUGE_L"])
    assert one["interval"][0] <= one["difference"] <= one["interval"][1]
    assert 0 < one["p"] <= 1
    write_report(report, tmp_path / "out")
    raw = (tmp_path / "out" / "per_clip.csv").read_bytes()
    assert b'"=1+1, a ""dog""\nruns"' in raw  # as it is: nothing is put before a formula
    rows = list(csv.reader(io.StringIO(raw.decode(), newline="")))
    assert rows[0] == [
        "clip",
        "caption",
        *PYTHON_ONLY,
        "against_caption",
        *(f"against_{n}" for n in PYTHON_ONLY),
    ]
    assert rows[1][5] == '=1+1, a "dog"\nruns'
    assert len(rows) == 4


def test_the_same_seed_gives_the_same_report(tmp_path: Path) -> None:
    def certain(report: Report) -> object:
        return report.system.intervals, report.differences

    assert certain(scored(tmp_path, GOOD, POOR, seed=5)) == certain(scored(tmp_path, GOOD, POOR, seed=5))
    without = scored(tmp_path, GOOD, POOR, draws=0)
    assert (without.system.intervals, without.differences) == ({}, {})
    assert "bootstrap" not in without.as_dict()


def test_omitted_clips_are_in_the_report(tmp_path: Path) -> None:
    report = scored(tmp_path, 'video,caption\na.mp4,""\nb.mp4,a cat\nz.mp4,what\n')
    found = report.as_dict()
    assert found["left_out"] == {
        "missing": ["c.mp4", "d.mp4"],
        "failed": [],
        "extra": ["z.mp4"],
        "unreferenced": [],
    }
    assert found["empty"] == ["a.mp4"]
    assert found["clips"] == 2
    assert not report.complete


def test_a_note_if_the_tokenizer_is_not_the_official_one(tmp_path: Path) -> None:
    report = scored(tmp_path)
    assert any("built-in" in note for note in report.notes)
    assert report.as_dict()["java"] is None
    one = scored(tmp_path, "video,caption\na.mp4,a dog\n")
    assert any("CIDEr of one clip" in note for note in one.notes)


def test_unwritable_result_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        check_folder(tmp_path / "file")
    with pytest.raises(EvacapError, match="cannot be written"):
        write_report(scored(tmp_path), tmp_path / "file" / "below")


def test_no_common_clip(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no clip"):
        scored(tmp_path, "video,caption\na.mp4,x\n", "video,caption\nb.mp4,x\n")
