"""The comparison of measured numbers with the paper's, on synthetic results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.metrics.bootstrap import DRAWS
from evacap_cli.tasks.reproducing.comparison import Comparison, compare, detection_results, verdict
from evacap_cli.tasks.reproducing.plan import ROWS, SCALES, SHARES, SYSTEMS

DEMO = SCALES["demo"]
NAN = math.nan


@pytest.mark.parametrize(
    ("paper", "low", "high", "expected"),
    [
        (0.1, 0.01, 0.2, "same"),
        (0.1, -0.2, -0.01, "opposite"),
        (-0.1, -0.2, -0.01, "same"),
        (-0.1, 0.01, 0.2, "opposite"),
        (0.1, -0.01, 0.2, "unclear"),
        (0.0, -0.01, 0.2, "same"),
        (0.0, 0.01, 0.2, "opposite"),
        (NAN, 0.01, 0.2, ""),
        (0.1, NAN, NAN, ""),
    ],
)
def test_verdicts(paper: float, low: float, high: float, expected: str) -> None:
    assert verdict(paper, low, high) == expected


def evaluated(steps: Path, key: str, seed: int, cider: float, drawn: np.ndarray) -> None:
    folder = steps / f"evaluate-{key}-{seed}"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"models": [{"metrics": {"CIDEr": cider}}]}))
    np.savez(folder / "draws.npz", names=np.array(["CIDEr"]), values=drawn[None])


@pytest.mark.slow
def test_changes_are_paired_over_clips_and_seeds(tmp_path: Path) -> None:
    """All systems share the noise of the clips and of the seeds, so a small change is sure."""
    noise = np.random.default_rng(0).normal(0, 0.2, DRAWS)
    shift = {"audio": 0.0, "avcap": 0.01, "vact": 0.02, "evacap": -0.01}
    for key in ROWS["table1"]:
        for seed in (0, 1, 2):
            value = 1.0 + shift.get(key, 0.0) + 0.1 * seed
            evaluated(tmp_path, key, seed, value, value + noise)
    found = {
        each.system: each for each in compare("table1", DEMO, (0, 1, 2), tmp_path) if each.metric == "CIDEr"
    }
    audio, avcap = found["Audio Only"], found["AVCap"]
    assert (audio.ours, audio.paper, audio.verdict, audio.seeds) == (pytest.approx(1.1), 0.635, "", 3)
    assert audio.low < 0.8
    assert audio.high > 1.4
    assert (avcap.base, avcap.paper_change) == ("Audio Only", pytest.approx(0.011))
    assert [avcap.change, avcap.change_low, avcap.change_high] == pytest.approx([0.01] * 3)
    assert avcap.verdict == "same"
    assert found["EVACap (Proposed)"].verdict == "opposite"
    assert found["EVACap w/o S"].verdict == "unclear"
    assert math.isnan(found["V-ACT"].paper)
    assert found["V-ACT"].verdict == ""


@pytest.mark.slow
def test_parameters_are_those_of_the_full_size(tmp_path: Path) -> None:
    for key in ROWS["table1"]:
        evaluated(tmp_path, key, 0, 1.0, np.ones(DRAWS))
    found = [each for each in compare("table1", DEMO, (0,), tmp_path) if each.metric.startswith("parameters")]
    paper = {each.system: each.paper for each in found if not math.isnan(each.paper)}
    assert paper == {"Audio Only": 153, "AVCap": 233, "EVACap (Proposed)": 235, "EVACap w/o S": 235}
    assert {each.verdict for each in found if each.system in paper} == {"equal"}
    assert all(each.ours > 150 for each in found)


def swept(steps: Path, key: str, seed: int, kept: float) -> None:
    folder = steps / f"robustness-{key}-{seed}"
    folder.mkdir(parents=True)
    points = [
        {
            "at": at,
            "values": {"CIDEr": 2 * (kept if at else 1)},
            "intervals": {"CIDEr": [1.5, 2.5]},
            "kept": {"CIDEr": kept if at else 1},
            "kept_intervals": {"CIDEr": [kept - 0.02, kept + 0.02]},
        }
        for at in SHARES
    ]
    auroc = {"gate": 0.6 + 0.1 * seed, "score": 0.5}
    (folder / "robustness.json").write_text(json.dumps({"models": [{"points": points, "told_apart": auroc}]}))


def test_shuffled_clips_are_compared_with_none(tmp_path: Path) -> None:
    for key in ROWS["table3"]:
        for seed in (0, 1):
            swept(tmp_path, key, seed, 0.9 + 0.01 * seed if key != "evacap" else 1.0)
    found = {(each.system, each.at): each for each in compare("table3", DEMO, (0, 1), tmp_path)}
    assert len(found) == len(ROWS["table3"]) * len(SHARES)
    avcap = found["AVCap", "100%"]
    assert (avcap.paper, avcap.paper_change) == (0.636, pytest.approx(0.636 / 0.646 - 1, abs=1e-6))
    assert avcap.change == pytest.approx(-0.095)
    half = 1.96 * math.sqrt((0.04 / 3.92) ** 2 + np.var([0.9, 0.91], ddof=1) / 2)
    assert avcap.change_high - avcap.change == pytest.approx(half)
    assert avcap.verdict == "same"
    assert found["AVCap", "5%"].verdict == "opposite"  # the paper's rises
    assert found["EVACap (Proposed)", "100%"].verdict == "unclear"
    assert found["AVCap", "0%"].verdict == ""
    signs = {(each.system, each.metric): each for each in detection_results((0, 1), tmp_path)}
    assert signs["V-ACT", "AUROC of gate"].ours == pytest.approx(0.65)
    assert signs["V-ACT", "CIDEr kept at 100 %"].ours == pytest.approx(0.905)
    assert ("V-ACT", "AUROC of entropy") not in signs


def timed(runs: list[float], preset: str, frames: int, ratio: float | None) -> dict[str, object]:
    fusion = "audio-only" if preset.startswith("audio") else "concat"
    return {
        "preset": preset, "fusion": fusion, "frames": frames, "decoding": "cached", "to_audio_only": ratio,
        "raw": [{"all": run} for run in runs], "seconds": {"all": float(np.median(runs))},
    }  # fmt: skip


def test_times_are_over_audio_only(tmp_path: Path) -> None:
    rows = [
        timed([2.0, 2.0, 2.0], "audio-tags", 0, 1.0),
        timed([3.0, 4.0, 6.0], "avcap-tags", 18, 2.0),
        timed([3.0], "avcap-tags", 1, 1.5),
        timed([4.0, 4.0], "avcap-tags", 4, None),
    ]
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "speed.json").write_text(json.dumps({"rows": rows}))
    found: list[Comparison] = compare("figure2", DEMO, (0,), tmp_path)
    assert [(each.system, each.metric, each.ours) for each in found] == [
        (SYSTEMS["audio"].name, "0 frames", 1.0), ("AVCap", "18 frames", 2.0), ("AVCap", "1 frames", 1.5),
    ]  # fmt: skip
    assert (found[1].low, found[1].high, found[1].verdict) == (1.5, 3.0, "same")
    assert found[1].paper == pytest.approx(15.029 / 2.351)
    assert found[2].verdict == ""  # one run says nothing of its spread
