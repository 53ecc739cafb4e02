"""The app as a whole: help, versions, wrong usage, and what it must not import."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial

import pytest

from evacap_cli import __main__ as entry
from evacap_cli import __version__

from ..conftest import Evacap

COMMANDS = [["caption"], ["train"], ["synth"], ["doctor"], ["weights", "info"]]


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("args", [["--help"], *[[*command, "--help"] for command in COMMANDS]])
def test_help_describes_the_command(evacap: Evacap, args: list[str]) -> None:
    result = evacap(*args)
    assert result.exit_code == 0
    assert "Usage: evacap" in result.stdout
    if len(args) > 1:
        assert "Examples:" in result.stdout


def test_help_and_version_import_nothing_heavy() -> None:
    ran = python("-X", "importtime", "-m", "evacap_cli", "--help")
    assert ran.returncode == 0
    imported = {line.split("|")[-1].strip().split(".")[0] for line in ran.stderr.splitlines() if "|" in line}
    assert "typer" in imported
    assert not imported & {
        "torch",
        "torchaudio",
        "torchvision",
        "numpy",
        "pandas",
        "av",
        "decord",
        "timm",
        "PIL",
        "yaml",
    }


def test_version(evacap: Evacap) -> None:
    result = evacap("--version")
    assert (result.exit_code, result.stdout) == (0, f"evacap {__version__}\n")


def test_without_a_command_help_is_shown(evacap: Evacap) -> None:
    result = evacap()
    assert result.exit_code == 2
    assert "caption" in result.output


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["capton", "a.mp4"], "capton"),
        (["caption", "a.mp4", "--bream", "4"], "--bream"),
        (["caption", "a.mp4", "--beam", "four"], "--beam"),
        (["weights", "info"], "weights info"),
    ],
)
def test_wrong_usage_is_named(evacap: Evacap, args: list[str], named: str) -> None:
    result = evacap(*args)
    assert result.exit_code == 2
    assert named in result.output


@pytest.mark.slow
def test_captioner_is_imported_lazily() -> None:
    program = (
        "import sys, evacap_cli; assert 'torch' not in sys.modules; print(evacap_cli.Captioner.__name__)"
    )
    ran = python("-c", program)
    assert (ran.returncode, ran.stdout) == (0, "Captioner\n"), ran.stderr


def test_the_package_exports_nothing_else() -> None:
    import evacap_cli

    with pytest.raises(AttributeError, match="Captain"):
        evacap_cli.Captain  # noqa: B018


def test_ctrl_c_while_modules_are_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # which the entry point changes for good
        request.addfinalizer(partial(signal.signal, number, signal.getsignal(number)))
    monkeypatch.setattr("evacap_cli.cli.app.main", interrupt)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "interrupted\n")
