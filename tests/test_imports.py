"""All heavy dependencies in one process: torch's builds, torchaudio and decord's own FFmpeg must get along."""

from __future__ import annotations

import subprocess
import sys

import pytest

PARTS = "torch, torchaudio, torchvision, timm"
REST = (
    "av, matplotlib, numpy, pandas, PIL, pyarrow, pycocoevalcap, rich, safetensors, tokenizers, typer, yaml"
)
DECORD = "from evacap_cli.media.decord_reader import load_decord; load_decord()"


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [f"import {PARTS}, {REST}, decord", f"{DECORD}; import {REST}, {PARTS}"],
    ids=["torch first", "decord first"],
)
def test_import_together(program: str) -> None:
    program += "; print(torchaudio.functional.resample(torch.zeros(8), 2, 1).shape[0])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "4\n"), ran.stderr
