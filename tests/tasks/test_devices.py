from __future__ import annotations

import pytest
import torch

from evacap_cli.errors import UsageError
from evacap_cli.tasks.devices import pick_device, pick_precision


def test_precision_auto_is_exact_on_a_cpu() -> None:
    assert pick_precision("auto", torch.device("cpu")) is None
    assert pick_precision("bf16", torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize("device", ["gpu", "cuda:0", "mps"])
def test_devices_that_are_not_there_are_named(device: str) -> None:
    if (device.startswith("cuda") and torch.cuda.is_available()) or (
        device == "mps" and torch.backends.mps.is_available()
    ):
        assert pick_device(device).type == device.split(":")[0]
        return
    with pytest.raises(UsageError, match=device):
        pick_device(device)


def test_unknown_precision_is_named() -> None:
    with pytest.raises(UsageError, match="int3"):
        pick_precision("int3", torch.device("cpu"))
