from __future__ import annotations

import json

import pytest

from evacap_cli.tasks import doctor
from evacap_cli.tasks.doctor import Warn, run_check

from ..conftest import Evacap


def broken() -> str:
    raise OSError("libtorch.so: not found")


def lacking() -> str:
    raise Warn("no demo", "reinstall")


def test_each_check_has_a_status_and_a_cure() -> None:
    assert run_check("fine", lambda: "1.0").status == "ok"
    warning, failure = run_check("lacking", lacking), run_check("broken", broken)
    assert (warning.status, warning.found, warning.cure) == ("warn", "no demo", "reinstall")
    assert failure.status == "fail"
    assert "libtorch.so: not found" in failure.found
    assert failure.cure


def test_all_is_well_here(evacap: Evacap) -> None:
    result = evacap("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 0, result.output
    assert {"python", "libraries", "devices", "decord", "PyAV", "models"} <= set(checks)
    assert all(check["status"] != "fail" for check in checks.values())


def test_a_failure_ends_with_1_and_shows_its_cure(evacap: Evacap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"fine": lambda: "1.0", "sound": broken, "demo": lacking})
    result = evacap("doctor")
    assert result.exit_code == 1
    assert "fine: 1.0" in result.stdout
    assert "cure: reinstall" in result.stdout
    assert "sound" in result.stderr
