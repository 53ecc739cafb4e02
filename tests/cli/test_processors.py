"""Captions and training on processors and machines that lack what most have."""

from __future__ import annotations

import csv
import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evacap_cli.cache import check_compiler_cache
from evacap_cli.model.packing import can_pack

from ..conftest import Evacap

ROOT = Path(__file__).parents[2]
POOR = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "OMP_NUM_THREADS": "1",
    "HOME": "/proc",  # where not even root may write
    "XDG_CACHE_HOME": "",
    "PYTHONPATH": str(ROOT),
}
"""A processor with AVX2 only, one thread, a home that cannot be written to."""


def start(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "evacap_cli", *map(str, args)], cwd=ROOT, env=os.environ | POOR,
                          capture_output=True, text=True, check=False)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not Path("/proc").exists(),
    reason="the variables are for x86, the home is Linux's",
)
def test_slow_bf16_is_reported_once(clip: Path, tiny: Path) -> None:
    done = start("caption", clip, "--model", tiny, "--precision", "bf16", "--workers", 0, "--max-words", 2)
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if "bf16" in line]
    assert len(notes) == 1
    assert "this CPU (AVX2; x86 needs AVX-512 or AMX) has no fast bf16 products" in notes[0]
    assert "warning" not in done.stderr.lower()
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.slow
def test_captions_with_an_unwritable_home(clip: Path, tmp_path: Path) -> None:
    """Below a file no folder can be made, not even by root. Curves are drawn, too: matplotlib keeps a cache."""
    (tmp_path / "file").touch()
    home = str(tmp_path / "file" / "home")
    places = (
        "HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "EVACAP_CACHE", "TORCHINDUCTOR_CACHE_DIR",
        "TORCH_HOME", "MPLCONFIGDIR", "HF_HOME", "TRITON_CACHE_DIR",
    )  # fmt: skip
    out = tmp_path / "captions.csv"
    done = subprocess.run(
        [sys.executable, "-m", "evacap_cli", "caption", clip, "--model", "demo", "-o", out,
         "--curves", tmp_path / "curves", "--workers", "1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **dict.fromkeys(places, home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert f"TORCHINDUCTOR_CACHE_DIR={home} is not used: Not a directory" in done.stderr
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert row["status"] == "ok"
    assert row["caption"]
    assert list((tmp_path / "curves").rglob("*.png"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_captions_without_onednn(
    evacap: Evacap, clip: Path, tiny: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    result = evacap("caption", clip, "--model", tiny, "--precision", precision, "--workers", 0)
    assert result.exit_code == 0, result.output
    assert ("no fast bf16 products" in result.stderr) == (precision == "bf16")


@pytest.mark.slow
def test_trains_without_shared_memory(
    evacap: Evacap, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /dev/shm there are no locks between processes."""

    def no_lock(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "captions.csv").write_text(f"video,caption\n{clip},a tone rises\n")
    made = evacap(
        "prepare", tmp_path / "captions.csv", "-o", tmp_path / "store", "--preset", "audio-tiny",
        "--workers", 0,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", no_lock)
    result = evacap(
        "train", "audio-tiny", "training.epochs=1", "training.precision=bf16", "model.encoder.depth=1",
        "model.decoder.layers=1", "--data", tmp_path / "store", "-o", tmp_path / "run", "--workers", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "no shared memory (/dev/shm): " in result.stderr
    assert ("no fast bf16 products" in result.stderr) != can_pack(torch.bfloat16)


@pytest.mark.parametrize("state", ["missing", "writable", "a file"])
def test_an_unwritable_compiler_cache(state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "cache"
    if state == "writable":
        place.mkdir()
    elif state == "a file":
        place.touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(place))
    note = check_compiler_cache()
    assert (os.environ.get("TORCHINDUCTOR_CACHE_DIR") is None) == (state == "a file")
    assert note.startswith(f"TORCHINDUCTOR_CACHE_DIR={place} is not used") == (state == "a file")
    assert place.is_file() or list(place.iterdir()) == []
