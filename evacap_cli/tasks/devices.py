"""Selects the device and precision of a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from threading import Thread

import numpy as np
import torch
from torch import Tensor

from evacap_cli.errors import UsageError
from evacap_cli.model.packing import can_multiply, can_pack

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Autocast dtype of each precision."""


def pick_device(device: str = "auto") -> torch.device:
    """Returns the device; `auto`: CUDA, else MPS, else the CPU. Raises UsageError if it is not available."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if available[name]))
    kind = device.split(":")[0]
    if kind not in available:
        raise UsageError(f"--device {device}: unknown", "use auto, cpu, cuda or mps")
    if not available[kind]:
        raise UsageError(
            f"--device {device}: not available on this machine",
            "use auto; `evacap doctor` lists the devices",
        )
    return torch.device(device)


def pick_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Returns the autocast dtype, None for fp32. `auto`: bf16 on a GPU that supports it, else fp32. A dtype that
    PyTorch cannot multiply in on this CPU also gives fp32; `precision_note` reports this."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    dtype = _named(precision)
    return None if dtype is not None and device.type == "cpu" and not can_multiply(dtype) else dtype


def precision_note(precision: str, device: torch.device) -> str:
    """Returns a note if `precision` is not fast or not supported on `device`, else ""."""
    dtype = None if precision == "auto" else _named(precision)
    if dtype is None or device.type != "cpu" or can_pack(dtype):
        return ""
    cpu = f"this CPU ({torch.backends.cpu.get_cpu_capability()}; x86 needs AVX-512 or AMX)"
    if not can_multiply(dtype):
        return f"precision {precision}: PyTorch cannot multiply in {precision} on {cpu}; using fp32"
    return f"precision {precision}: {cpu} has no fast {precision} products; fp32 is faster"


def wake(device: torch.device) -> Thread | None:
    """Starts CUDA in a thread, while the caller reads weights: its context takes up to a second. If it fails, so does
    the first use of the device, which reports the error."""
    if device.type != "cuda":
        return None

    def start() -> None:
        with suppress(Exception):
            torch.zeros(1, device=device)

    thread = Thread(target=start, daemon=True)
    thread.start()
    return thread


def stack_on(device: torch.device, arrays: Sequence[np.ndarray]) -> Tensor:
    """Stacks arrays of equal shape and dtype on a device. They are copied to CUDA from pinned memory, while Python
    continues."""
    on_cuda = device.type == "cuda"
    dtype = torch.from_numpy(arrays[0]).dtype
    stacked = torch.empty(len(arrays), *arrays[0].shape, dtype=dtype, pin_memory=on_cuda)
    np.stack(arrays, out=stacked.numpy())
    return stacked.to(device, non_blocking=on_cuda)


def _named(precision: str) -> torch.dtype | None:
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: unknown", f"use auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]
