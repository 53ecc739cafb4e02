"""Pages of the folders that evaluate, robustness, speed and train write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evacap_cli.data.manifest import Entry
from evacap_cli.data.store import write_store
from evacap_cli.errors import UsageError
from evacap_cli.tasks.reporting.evaluation import evaluation_page
from evacap_cli.tasks.reporting.folders import word_change
from evacap_cli.tasks.reporting.pictures import PictureOptions
from evacap_cli.tasks.reporting.results import report_results
from evacap_cli.tasks.reporting.robustness import robustness_page
from evacap_cli.tasks.reporting.speed import speed_page
from evacap_cli.tasks.reporting.stored_clips import PageTarget
from evacap_cli.tasks.reporting.training import training_page
from evacap_cli.tasks.training.config import read_config

from ...data.toys import Toy
from ..noise import CLIPS, FEATURES, make, noise_store
from .result_folders import evaluated_folder, run_folder, speed_folder, sweep_folder, write_csv


def test_robustness_is_shown_beside_the_paper(tmp_path: Path) -> None:
    page = robustness_page([sweep_folder(tmp_path / "a")], (), PageTarget(tmp_path / "p.html"))
    assert [name for name, _ in page.figures[0].legend] == ["ours", "ours, paper"]
    assert [row[1] for row in page.figures[0].table.rows[:3]] == ["0", "50", "100"]  # type: ignore[union-attr]
    assert any("paper" in row[0] for row in page.tables[0].rows)
    assert page.clips is not None
    first, second = page.clips.clips()
    assert first.captions == ("a dog barks", "a cat", "dog")
    assert first.numbers == (0.75, 0.5, 0.9)
    assert second.numbers == (0.0, None, None)
    assert [(column.caption, column.label) for column in page.clips.numbers[1:]] == [(0, "gate"), (1, "gate")]
    assert (first.other, second.other) == (1, 1)  # the clip b, whose picture both got
    assert page.notes == [
        "Clips without pictures: s: not a feature store (no store.yaml: No such file or directory)."
    ]


def test_robustness_shows_how_well_changed_clips_are_detected(tmp_path: Path) -> None:
    page = robustness_page([sweep_folder(tmp_path / "a")], (), PageTarget(tmp_path / "p.html"))
    found = {figure.title: figure.table.rows for figure in page.figures if figure.table}
    assert found["Detection of changed clips"] == [["ours, gate", "0.9", "0.8", "0.95", ""]]
    assert found["Calibration of mismatch"][:2] == [
        ["ours", "0.2", "0.1", "0", "0.3"],
        ["ours", "0.8", "0.9", "0.7", "1"],
    ]


def test_two_sweeps_side_by_side(tmp_path: Path) -> None:
    page = robustness_page(
        [sweep_folder(tmp_path / "a"), sweep_folder(tmp_path / "b", 0.4)], (), PageTarget(tmp_path / "p.html")
    )
    assert [name for name, _ in page.figures[0].legend] == [
        "a: ours",
        "a: ours, paper",
        "b: ours",
        "b: ours, paper",
    ]
    assert page.clips is not None
    first = next(page.clips.clips())  # each clip once, with the captions of both sweeps
    assert page.clips.captions == (
        "a: ours, own picture",
        "a: ours, other picture",
        "b: ours, own picture",
        "b: ours, other picture",
        "references",
    )
    assert first.captions == ("a dog barks", "a cat", "a dog barks", "a cat", "dog")
    assert len(list(page.clips.clips())) == 2


def test_sweeps_of_different_perturbations_are_not_compared(tmp_path: Path) -> None:
    for name, perturb in (("a", "shuffle"), ("b", "black")):
        path = sweep_folder(tmp_path / name) / "robustness.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "perturb": perturb}))
    with pytest.raises(UsageError, match="different perturbations"):
        report_results([tmp_path / "a", tmp_path / "b"], tmp_path / "p.html", PictureOptions(workers=0))


def test_pictures_come_from_the_store(tmp_path: Path) -> None:
    store = noise_store(tmp_path / "store")
    folder = evaluated_folder(tmp_path / "out", store.keys, str(store.folder))
    target = PageTarget(tmp_path / "p.html")
    page = evaluation_page([folder], (), target)
    assert page.clips is not None
    clips = list(page.clips.clips())
    assert len(clips) == CLIPS
    assert page.notes == []
    for row, clip in enumerate(clips):
        strip, spectrogram, copy = clip.pictures
        assert clip.status == ("ok" if store.has_picture([row])[0] else "audio-only")
        assert strip.startswith("data:image/webp") is (clip.status == "ok")
        assert spectrogram.startswith("data:image/webp")
        assert copy == ""
        assert clip.captions == ("a dog", " | ".join(store.captions(row)))
        assert (clip.start, clip.end) == (0.0, 10.0)


def test_media_of_a_store_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "clip-0.wav").write_bytes(b"")
    (media / "ABCDEFGHIJK_30.wav").write_bytes(b"")
    items = [
        Entry("clip-0", "clip-0.wav", ("a",), None),
        Entry("ABCDEFGHIJK_30", "ABCDEFGHIJK", ("a",), None),
    ]
    sample = make(Toy("clip-0", ("a",)))
    write_store(tmp_path / "store", items, lambda item: sample, FEATURES, workers=0, media=[media])
    folder = evaluated_folder(tmp_path / "out", [item.key for item in items], str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path / "out")
    page = evaluation_page([folder], (), PageTarget(tmp_path / "pages" / "p.html"))
    assert page.clips is not None
    assert [clip.href for clip in page.clips.clips()] == [
        "./../media/clip-0.wav",
        "./../media/ABCDEFGHIJK_30.wav",
    ]


def test_a_changed_store_gives_no_pictures(tmp_path: Path) -> None:
    folder = sweep_folder(tmp_path / "a")
    store = noise_store(tmp_path / "store")
    path = folder / "robustness.json"
    content = json.loads(path.read_text()) | {"store": str(store.folder), "store_fingerprint": "0123"}
    path.write_text(json.dumps(content))
    page = robustness_page([folder], (), PageTarget(tmp_path / "p.html"))
    assert page.notes == [f"Clips without pictures: {store.folder}: changed after the result was made."]


def test_evaluation_shows_the_captions_of_all_models(tmp_path: Path) -> None:
    models = [
        {"model": name, "parameters": 10**6, "clips": 1, "id_hash": "ab", "metrics": {"CIDEr": 0.5, "SPICE": None},
         "intervals": {"CIDEr": [0.4, 0.6]}, "paper": {"method": "Proposed", "metrics": {"CIDEr": 0.649}}}
        for name in ("x", "y")
    ]  # fmt: skip
    (tmp_path / "metrics.json").write_text(json.dumps({"models": models}))
    for name, caption in (("x", "a dog"), ("y", "a cat")):
        write_csv(tmp_path / f"predictions-{name}.csv", [{"key": "k", "caption": caption, "CIDEr": "0.25"}])
    page = evaluation_page([tmp_path], (), PageTarget(tmp_path / "p.html"))
    assert [row[0].strip() for row in page.tables[0].rows[:3]] == [
        "x",
        "95 %",
        "paper's Proposed (AudioCaps)",
    ]
    assert page.tables[0].rows[2][2] == "0.649"
    assert page.clips is not None
    (clip,) = page.clips.clips()
    assert clip.captions == ("a dog", "a cat", "")
    assert clip.numbers == (pytest.approx(2 / 3), 0.25, 0.25)
    assert page.figures[0].table is not None
    assert page.figures[0].table.rows[0] == ["x", "0.5", "0.4", "0.6", "0.649"]


def test_speed_has_stages_and_the_paper(tmp_path: Path) -> None:
    page = speed_page([speed_folder(tmp_path / "a")], (), PageTarget(tmp_path / "p.html"))
    assert [name for name, _ in page.figures[0].legend] == ["evacap-base, cached", "evacap-base, paper"]
    assert [name for name, _ in page.figures[2].legend] == ["fuse", "generate"]
    assert page.figures[1].table is not None
    assert page.figures[1].table.rows[0][2:] == ["2", "1.9", "2.2"]


def test_training_has_curves_samples_and_changed_settings(tmp_path: Path) -> None:
    page = training_page([run_folder(tmp_path / "run", {"lr": 0.125})], (), PageTarget(tmp_path / "p.html"))
    assert [figure.title for figure in page.figures] == ["loss per word", "learning rate", "mean gate"]
    assert [name for name, _ in page.figures[2].legend] == [
        "training, own picture", "training, another clip's picture", "validation samples, own picture",
    ]  # fmt: skip
    assert ("metadata.training.lr", "0.125") in page.facts
    assert ("lowest validation loss", "2.500") in page.counts
    evaluations, differences = page.tables
    assert evaluations.header == (
        "step", "training loss", "learning rate", "validation loss", "gate of the samples, own picture",
    )  # fmt: skip
    assert evaluations.rows == [["2", "3", "0.1", "3.5", "0.9"], ["4", "2", "0.1", "2.5", ""]]
    assert differences.rows == [["training.lr", str(read_config("evacap-tiny").training.lr), "0.125"]]
    assert page.clips is not None
    assert page.clips.captions == ("step 4", "step 2", "reference")
    (clip,) = page.clips.clips()
    assert clip.captions == ("a dog barks", "a cat", "a dog barks")
    assert clip.numbers == (0.0, 0.9, 0.2, 0.9, 0.2)


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / "a"), run_folder(tmp_path / "b", {"epochs": 77})]
    page = training_page(folders, (), PageTarget(tmp_path / "p.html"))
    assert [name for name, _ in page.figures[0].legend] == [
        "a: training",
        "a: validation",
        "b: training",
        "b: validation",
    ]
    assert [row[0] for row in page.tables[1].rows] == ["b: training.epochs"]
    assert page.clips is not None
    assert page.clips.captions == ("a: step 4", "a: step 2", "b: step 4", "b: step 2", "reference")


def test_a_run_without_an_evaluation_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    page = training_page([tmp_path], (), PageTarget(tmp_path / "p.html"))
    assert (page.lead, page.figures, page.tables, page.clips) == ("no step yet", [], [], None)


def test_two_tables_side_by_side(tmp_path: Path) -> None:
    for name, caption in (("a", "a dog"), ("b", "a cat")):
        write_csv(tmp_path / f"{name}.csv", [{"video": "v.mp4", "caption": caption, "score": "-0.5"}])
    out = tmp_path / "page.html"
    report_results([tmp_path / "a.csv", tmp_path / "b.csv"], out, PictureOptions(make=False))
    page = out.read_text("utf-8")
    assert '["a dog","a cat"],[0.666667,-0.5,-0.5]' in page
    assert (
        f'"name":"score ({tmp_path}/b.csv)","digits":3,"caption":1,"label":"score"' in page
    )  # beside its caption


def test_incomparable_or_unreadable_results_are_refused(tmp_path: Path) -> None:
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
