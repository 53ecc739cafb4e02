from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from evacap_cli.model.meta import without_weights


def test_modules_have_shapes_and_no_weights() -> None:
    state = torch.get_rng_state()
    with without_weights():
        layer, table = nn.Linear(3, 2), nn.Embedding(5, 4)
        nn.init.normal_(layer.weight, std=0.1)
    assert layer.weight.is_meta
    assert table.weight.shape == (5, 4)
    assert torch.equal(torch.get_rng_state(), state)
    assert nn.Linear(3, 2).weight.abs().sum() > 0


@pytest.mark.slow
def test_loading_a_model_imports_no_compiler() -> None:
    program = (
        "import sys; from evacap_cli import Captioner; Captioner.load('demo', 'cpu'); "
        "print(*{'timm', 'torchvision', 'torchaudio', 'torch._dynamo'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "\n"), ran.stderr
