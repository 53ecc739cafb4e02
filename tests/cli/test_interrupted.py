"""Ctrl-C in commands that write outputs: exit code 130, no traceback, and what is there is whole."""

from __future__ import annotations

import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from evacap_cli.media import probe
from evacap_cli.model import save_checkpoint
from evacap_cli.model.towers import shared_path
from evacap_cli.tasks import robustness
from evacap_cli.tasks.mismatch import FOLDS

from ..conftest import Evacap
from ..tasks.noise import checkpoint, noise_store

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent to a process group")
def test_synth(tmp_path: Path) -> None:
    videos = tmp_path / "world" / "videos"
    process = subprocess.Popen(
        [sys.executable, "-m", "evacap_cli", "synth", "-o", str(videos.parent), "--clips", "5000"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not list(videos.glob("*.mp4")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    stderr_text = process.communicate()[1]
    assert process.returncode == 130
    assert "interrupted" in stderr_text
    assert "Traceback" not in stderr_text
    made = list(videos.glob("*.mp4"))
    assert made
    assert all(probe(path).has_audio and not probe(path).note for path in made)
    assert not (videos.parent / "captions.csv").exists()  # it lists all of them, or is not there


def test_robustness(evacap: Evacap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(robustness, "sweep", stop)
    monkeypatch.setattr(robustness, "open_data", lambda *_: [])
    result = evacap("robustness", "--model", "audio-demo", "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert not (tmp_path / "out").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EXPORT = ("export", "tiny", "-o", "out.safetensors", "--overwrite")
IMPORT = ("import", "yamnet", shared_path(), "-o", "out", "--preset", "audio-tags", "--overwrite")
PART = (
    "import", "cav-mae", "encoder.safetensors", "--preset", "evacap-tiny", "-o", "out.safetensors", "--overwrite",
)  # fmt: skip
CALIBRATE = ("calibrate", "gated", "--data", "store", "--batch-size", 40)
STAGES = [
    (EXPORT, "evacap_cli.tasks.weights.load_checkpoint"),
    (EXPORT, "evacap_cli.model.checkpoint.save_file"),
    (EXPORT, "evacap_cli.atomic.os.fsync"),
    (IMPORT, "evacap_cli.tasks.importing.imports.read_weights"),
    (IMPORT, "evacap_cli.model.checkpoint.save_file"),
    (IMPORT, "evacap_cli.model.tokenizer.Tokenizer.save"),
    (IMPORT, "pathlib.Path.rename"),
    (PART, "evacap_cli.tasks.importing.imports.save_file"),
    ((*CALIBRATE, "-o", "out"), "evacap_cli.tasks.calibrating.fit"),
    ((*CALIBRATE, "-o", "out"), "shutil.copytree"),
    ((*CALIBRATE, "-o", "out", "--overwrite"), "pathlib.Path.rename"),
    (CALIBRATE, "evacap_cli.tasks.calibrating.with_section"),
    (CALIBRATE, "evacap_cli.atomic.os.replace"),
]


@pytest.fixture(scope="module")
def weights(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read: a checkpoint, its encoder, a checkpoint with a gate and a store for it."""
    folder = tmp_path_factory.mktemp("weights")
    shutil.copytree(tiny, folder / "tiny")
    state = load_file(tiny / "model.safetensors")
    save_file({k: v for k, v in state.items() if k.startswith("encoder.")}, folder / "encoder.safetensors")
    noise_store(folder / "store", 2 * FOLDS + 1)
    gated = checkpoint("entropy-gate")
    save_checkpoint(folder / "gated", gated.model, gated.tokenizer, gated.features)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("args", "stage"), STAGES, ids=lambda value: value[0] if isinstance(value, tuple) else value
)
def test_weights(
    args: tuple[object, ...], stage: str, evacap: Evacap, weights: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A signal right after a stage: what was there before stays, byte by byte, and nothing else is left."""
    shutil.copytree(weights, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if "--overwrite" in args:
        if str(args[args.index("-o") + 1]).endswith(".safetensors"):
            shutil.copy("tiny/model.safetensors", "out.safetensors")
        else:
            shutil.copytree("tiny", "out")
    before = contents(tmp_path)
    plain, calls = pkgutil.resolve_name(stage), 0

    def interrupted(*given: object, **named: object) -> object:
        nonlocal calls
        result = plain(*given, **named)
        calls += 1
        if calls == 1:
            os.kill(os.getpid(), signal.SIGTERM if len(stage) % 2 else signal.SIGINT)
        return result

    monkeypatch.setattr(stage, interrupted)
    result = evacap("weights", *args)
    monkeypatch.undo()
    assert result.exit_code == 130, result.output
    assert calls >= 1
    assert result.stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in result.stderr
    assert contents(tmp_path) == before
