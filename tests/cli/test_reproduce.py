"""`evacap reproduce` through the app: the plan, and everything at the scale `smoke`."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from evacap_cli.tasks import calibrating, mismatch
from evacap_cli.tasks.reproducing import run
from evacap_cli.tasks.reproducing.plan import SCALES, SYSTEMS
from evacap_cli.tasks.training import loop
from tests.conftest import Evacap
from tests.metrics.java import hide_java


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_and_writes_nothing(evacap: Evacap, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = evacap("reproduce", out, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "train-vact-2" in result.stdout
    assert "GB of disk" in result.stdout
    planned = json.loads(evacap("reproduce", out, "--dry-run", "--only", "figure2", "--json").stdout)
    assert [step["step"] for step in planned["steps"]] == ["speed"]
    assert not out.exists()
    for wrong in (
        ("--scale", "paper"),
        ("--only", "table7"),
        ("--seeds", "a"),
        ("--workers", "-1"),
        ("--processes", "0"),
    ):
        result = evacap("reproduce", out, "--dry-run", *wrong)
        assert result.exit_code == 2, result.output
        assert wrong[0] in result.stderr


def test_an_interrupt_says_how_to_resume(
    evacap: Evacap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "carry_out", stopped)
    result = evacap("reproduce", tmp_path / "out", "--only", "figure2", "--device", "cpu")
    assert result.exit_code == 130
    assert "run the same command again to resume" in result.stderr
    assert "step 1 of 1: speed" in result.stderr
    assert not list(tmp_path.rglob("done.json"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_tables_at_the_smoke_scale(
    evacap: Evacap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a quarter of its clips, and without Java and curves of the training."""
    hide_java(monkeypatch, tmp_path)
    monkeypatch.setitem(SCALES, "smoke", replace(SCALES["smoke"], clips=(4, 4, 3)))
    for module in (calibrating, mismatch):
        monkeypatch.setattr(module, "FOLDS", 2)
    monkeypatch.setattr(calibrating, "DONORS", 2)
    monkeypatch.setattr(loop._Run, "draw", lambda run: None)
    out = tmp_path / "out"
    command = ("reproduce", out, "--scale", "smoke", "--device", "cpu")
    result = evacap(*command, "--only", "table2", "--json")
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["numbers"]) == {"table2"}
    first = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("steps/*/done.json")}
    assert {name for name in first if name.startswith("train")} == {
        f"train-{key}-0" for key in ("evacap-no-sms", "evacap", "evacap-sms-50", "evacap-sms-100")
    }
    result = evacap(*command)
    assert result.exit_code == 0, result.output
    later = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("steps/*/done.json")}
    assert {name: later[name] for name in first} == first  # nothing is done twice
    for name in ("tables.md", "tables.csv", "figure2.svg", "report.html", "environment.json"):
        assert (out / name).stat().st_size, name
    page = (out / "tables.md").read_text("utf-8")
    assert all(title in page for title in ("Table 1", "Table 2", "Table 3", "Table 4", "Figure 2"))
    assert ElementTree.parse(out / "figure2.svg").getroot().tag.endswith("svg")
    with (out / "tables.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["system"] for row in rows} == {system.name for system in SYSTEMS.values()}
    shuffled = {row["at"] for row in rows if row["table"] == "table3"}
    assert shuffled == {"0%", "5%", "50%", "100%"}
    frames = {
        (row["metric"], row["at"]) for row in rows if row["table"] == "figure2" and row["system"] == "AVCap"
    }
    assert frames == {(f"{n} frames", how) for n in (0, 1, 4, 8, 18) for how in ("cached", "recompute")}
    summary = {(row["system"], row["metric"]) for row in rows if row["table"] == "mismatch"}
    assert {
        ("V-ACT", "AUROC of gate"),
        ("LAVCap", "AUROC of transport"),
        ("EVACap (Proposed)", "AUROC of entropy"),
    } <= summary
    about = json.loads((out / "environment.json").read_text("utf-8"))
    assert set(about["steps"]) == set(later)
    assert {name: store["clips"] for name, store in about["stores"].items()} == {
        "train": 4,
        "val": 4,
        "test": 3,
    }
    assert not list(out.rglob("training.pt"))
