from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from evacap_cli.errors import UsageError
from evacap_cli.tasks.batches import Batch
from evacap_cli.tasks.devices import pick_device, pick_precision, precision_note, stack_on, wake

CPU = torch.device("cpu")


def test_precision_auto_is_exact_on_a_cpu() -> None:
    assert pick_precision("auto", torch.device("cpu")) is None
    assert pick_precision("bf16", torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_slow_precision_is_reported(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evacap_cli.tasks.devices.can_pack", lambda dtype: False)
    note = precision_note(precision, CPU)
    assert f"no fast {precision} products" in note
    assert "fp32 is faster" in note
    assert "\n" not in note
    assert pick_precision(precision, CPU) is not None
    monkeypatch.setattr("evacap_cli.tasks.devices.can_pack", lambda dtype: True)
    assert precision_note(precision, CPU) == ""


def test_an_unsupported_precision_becomes_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evacap_cli.tasks.devices.can_pack", lambda dtype: False)
    monkeypatch.setattr("evacap_cli.tasks.devices.can_multiply", lambda dtype: False)
    assert pick_precision("bf16", CPU) is None
    assert "using fp32" in precision_note("bf16", CPU)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_fp32_has_no_note(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evacap_cli.tasks.devices.can_pack", lambda dtype: False)
    assert precision_note(precision, CPU) == ""


@pytest.mark.parametrize("device", ["gpu", "cuda:0", "mps"])
def test_missing_devices_are_named(device: str) -> None:
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


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_arrays_are_stacked_unchanged(dtype: type) -> None:
    arrays = [np.arange(i, i + 6).reshape(2, 3).astype(dtype) for i in range(3)]
    arrays[1] = np.asfortranarray(arrays[1])
    stacked = stack_on(torch.device("cpu"), arrays)
    assert np.array_equal(stacked.numpy(), np.stack(arrays))
    assert stacked.numpy().dtype == dtype


def test_pinned_batches_have_all_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader calls the method; without a GPU, nothing can be pinned."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x + 1)
    audio, picture = torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.uint8)
    both = pin_memory(Batch(audio, picture, None, ["a", "b"]))
    assert isinstance(both, Batch)
    assert both.audio.eq(1).all()
    assert both.picture is not None
    assert both.picture.eq(1).all()
    assert (both.mask, both.captions, both.towers) == (None, ["a", "b"], False)
    masked = pin_memory(Batch(audio, None, torch.zeros(2, 1), ["a", "b"], towers=True))
    assert (masked.picture, masked.towers) == (None, True)
    assert masked.mask.eq(1).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_a_device_that_does_not_start_is_reported_by_its_first_use() -> None:
    thread = wake(torch.device("cuda"))
    assert thread is not None
    thread.join()  # pytest reports exceptions of threads
    assert wake(CPU) is None
