"""Selects the device and precision of a model."""

from __future__ import annotations

import torch

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


def _named(precision: str) -> torch.dtype | None:
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: unknown", f"use auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]
