"""`benchmarks/gpu.py`: every aim has a row, and a value that was not measured says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.scripts import scripts_of


@pytest.fixture(scope="module")
def gpu() -> Iterator[Any]:
    with scripts_of("") as script:
        yield script("gpu")


def test_every_aim_has_a_result(gpu: Any) -> None:
    values = {"one clip": 12.0, "batch": 599.9, "picture tower": 0.7, "attention fp32": 3.1}
    table = gpu.Results(values, {"public": "needs --avcap"}).table(dry=False)
    results = {key: row[2:] for key, row in zip(gpu.AIMS, table, strict=True)}
    assert results["one clip"] == ["12", "pass"]
    assert results["batch"] == ["599.9", "miss"]
    assert results["picture tower"] == ["0.7", "pass"]
    assert results["attention fp32"] == ["3.1", "miss"]
    assert results["public"] == ["", "not measured: needs --avcap"]
    assert results["training"] == ["", "not measured: no measurement ran"]


def test_a_dry_run_passes_nothing(gpu: Any) -> None:
    table = gpu.Results(dict.fromkeys(gpu.AIMS, 1.0)).table(dry=True)
    assert {row[3] for row in table} == {"not measured: dry run with small sizes"}


@pytest.mark.parametrize(
    ("gigabytes", "chosen"), [((60.0, 39.0, 15.0), 1), ((30.0, 20.0, 15.0), 0), ((60.0, 50.0, 45.0), 0)]
)
def test_training_is_the_fastest_that_fits(
    gpu: Any, gigabytes: tuple[float, ...], chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = (160.0, 150.0, 120.0)
    switches: list[tuple[bool, bool]] = []

    def measure_step(
        preset: str, clips: int, precision: str, device: str, blocks: bool, steps: int, mlp: bool
    ) -> dict[str, float]:
        number = len(switches)
        switches.append((blocks, mlp))
        return {"clips/s": speeds[number], "peak GB": gigabytes[number]}

    monkeypatch.setattr(gpu, "measure_step", measure_step)
    run = gpu.Run(torch.device("cpu"), gpu.DRY, None)
    run.training()
    assert run.results.values == {"training": speeds[chosen], "training memory": gigabytes[chosen]}
    assert switches == [(False, False), (False, True), (True, False)]
    assert run.results.other["training"]["mlp_checkpointing"] == f"150 clips/s, {gigabytes[1]:.4g} GB"


def test_failed_and_skipped_measurements_are_marked(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = gpu.Run(torch.device("cpu"), gpu.DRY, None)

    def fails() -> None:
        raise RuntimeError("out of memory")

    def works() -> None:
        run.results.values["public"] = 100.0

    measurements = [
        (("one clip",), 1, fails),
        (("public",), 1, works),
        (("batch", "picture tower"), 1000, fails),
    ]
    monkeypatch.setattr(run, "measurements", lambda: measurements)
    results = run.measure(60)
    assert results.values == {"public": 100.0}
    assert results.reasons["one clip"] == "RuntimeError: out of memory"
    assert results.reasons["batch"] == results.reasons["picture tower"] == "no time left"
    assert "limit.py" in results.reasons["cpu"]


def test_it_needs_a_gpu_or_a_dry_run(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "--dry-run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_measures_everything_except_the_public_code(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--dry-run", "--device", "cpu", "--out", str(out)])
    gpu.main()
    results = json.loads(out.read_text())
    assert results["dry run"] is True
    assert {row[3].partition(":")[0] for row in results["results"]} == {"not measured"}
    missing = [row for row in results["results"] if not row[2]]
    assert len(missing) == 2
    assert "needs --avcap" in missing[0][3]
    assert "limit.py" in missing[1][3]
    path = "aten::_scaled_dot_product_flash_attention_for_cpu"
    assert results["other"]["attention fp32: ms"]["path"] == path
    assert path in capsys.readouterr().out
