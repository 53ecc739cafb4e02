"""Pages of the folders that evaluate, robustness, speed and train write."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from evacap_cli.errors import UsageError
from evacap_cli.tasks.reporting.measurements import (
    evaluation_page,
    robustness_page,
    speed_page,
    training_page,
    word_change,
)
from evacap_cli.tasks.reporting.pictures import PictureOptions
from evacap_cli.tasks.reporting.results import report_results


def sweep_folder(folder: Path, cider: float = 0.6) -> Path:
    folder.mkdir()
    points = [
        {"at": at, "values": {"CIDEr": cider - at / 10}, "intervals": {"CIDEr": [cider - 0.2, cider]},
         "kept": {"CIDEr": 1 - at / 10} if at else {}, "kept_intervals": {}, "paper": {"CIDEr": 0.65}, "by_seed": []}
        for at in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    model = {"name": "ours", "preset": "evacap-base", "followed": {}, "told_apart": {"gate": 0.9}, "by_kind": {},
             "unavailable": {}, "seconds": {}, "points": points}  # fmt: skip
    made = {"perturb": "shuffle", "points": [0, 0.5, 1], "clips": 2, "id_hash": "ab", "store": "s", "models": [model],
            "pairings": [{}]}  # fmt: skip
    (folder / "robustness.json").write_text(json.dumps(made))
    said = {"a": ("a dog barks", "a cat", "dog", "0.5"), "b": ("rain", "rain", "rain", "")}
    names = ("own", "changed", "references", "gate")
    rows = [
        {"model": "ours", "key": key, "donor": "b", **dict(zip(names, row, strict=True))}
        for key, row in said.items()
    ]
    write_csv(folder / "clips.csv", rows)
    return folder


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def test_robustness_stands_beside_the_paper(tmp_path: Path) -> None:
    page = robustness_page([sweep_folder(tmp_path / "a")])
    assert [name for name, _ in page.figures[0].legend] == ["ours", "ours, paper"]
    assert [row[1] for row in page.figures[0].table.rows[:3]] == ["0", "50", "100"]  # type: ignore[union-attr]
    assert any("paper" in row[0] for row in page.tables[0].rows)
    assert page.clips is not None
    first, second = page.clips.clips()
    assert first.captions == ("a dog barks", "a cat", "dog")
    assert first.numbers == (0.75, 0.5)
    assert second.numbers == (0.0, None)


def test_two_sweeps_side_by_side(tmp_path: Path) -> None:
    page = robustness_page([sweep_folder(tmp_path / "a"), sweep_folder(tmp_path / "b", 0.4)])
    assert [name for name, _ in page.figures[0].legend] == [
        "a: ours",
        "a: ours, paper",
        "b: ours",
        "b: ours, paper",
    ]
    assert page.clips is not None
    assert len(list(page.clips.clips())) == 4


def test_evaluation_has_all_models_captions_of_a_clip(tmp_path: Path) -> None:
    models = [
        {"model": name, "parameters": 10**6, "clips": 1, "id_hash": "ab", "metrics": {"CIDEr": 0.5, "SPICE": None},
         "intervals": {"CIDEr": [0.4, 0.6]}, "paper": {"method": "Proposed", "metrics": {"CIDEr": 0.649}}}
        for name in ("x", "y")
    ]  # fmt: skip
    (tmp_path / "metrics.json").write_text(json.dumps({"models": models}))
    for name, caption in (("x", "a dog"), ("y", "a cat")):
        write_csv(tmp_path / f"predictions-{name}.csv", [{"key": "k", "caption": caption, "CIDEr": "0.25"}])
    page = evaluation_page([tmp_path])
    assert [row[0].strip() for row in page.tables[0].rows[:3]] == [
        "x",
        "95 %",
        "paper's Proposed (AudioCaps)",
    ]
    assert page.tables[0].rows[2][2] == "0.649"
    assert page.clips is not None
    (clip,) = page.clips.clips()
    assert clip.captions == ("a dog", "a cat")
    assert clip.numbers == (pytest.approx(2 / 3), 0.25, 0.25)


def test_speed_has_stages_and_the_paper(tmp_path: Path) -> None:
    rows = [
        {"model": "evacap-base", "fusion": "f", "preset": "evacap-base", "frames": frames, "decoding": "cached",
         "seconds": {"fuse": 0.5, "generate": 1.5, "all": 2.0}, "raw": [{"all": 1.9}, {"all": 2.2}],
         "to_audio_only": 1.1, "paper": 1.2}
        for frames in (1, 18)
    ]  # fmt: skip
    about = {"device": "cpu", "processor": "p", "threads": 1, "precision": "fp32", "torch": "2", "date": "d"}
    options = {"batch_size": 1, "beam": 4, "words": 20}
    (tmp_path / "speed.json").write_text(json.dumps({"options": options, "environment": about, "rows": rows}))
    page = speed_page([tmp_path])
    assert [name for name, _ in page.figures[0].legend] == ["evacap-base, cached", "evacap-base, paper"]
    assert [name for name, _ in page.figures[2].legend] == ["fuse", "generate"]
    assert page.figures[1].table.rows[0][2:] == ["2", "1.9", "2.2"]  # type: ignore[union-attr]


def test_training_has_curves_and_settings(tmp_path: Path) -> None:
    log = [{"step": 1, "caption": 4.0, "lr": 0.1}, {"step": 2, "caption": 3.0, "lr": 0.1, "validation": 3.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "config.yaml").write_text("training: {lr: 0.1}\n")
    page = training_page([tmp_path])
    assert [figure.title for figure in page.figures] == ["loss a word", "learning rate"]
    assert ("training.lr", "0.1") in page.facts
    assert page.tables[0].rows == [["2", "3", "0.1", "3.5"]]


def test_two_tables_side_by_side(tmp_path: Path) -> None:
    for name, caption in (("a", "a dog"), ("b", "a cat")):
        write_csv(tmp_path / f"{name}.csv", [{"video": "v.mp4", "caption": caption, "score": "-0.5"}])
    out = tmp_path / "page.html"
    report_results([tmp_path / "a.csv", tmp_path / "b.csv"], out, PictureOptions(make=False))
    assert '["a dog","a cat"],[0.666667,-0.5,-0.5]' in out.read_text("utf-8")


def test_what_cannot_be_compared_or_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "speed.json").write_text("{}")
    table = tmp_path / "a.csv"
    table.write_text("video,caption\n")
    options = PictureOptions(make=False)
    for results in ([tmp_path / "empty"], [broken], [table, sweep_folder(tmp_path / "sweep")]):
        with pytest.raises(UsageError):
            report_results(results, tmp_path / "p.html", options)
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize(
    ("a", "b", "share"), [("a dog", "A dog", 0), ("a dog", "rain", 1), ("", "", 0), ("x y", "x", 0.5)]
)
def test_word_change(a: str, b: str, share: float) -> None:
    assert word_change(a, b) == share
