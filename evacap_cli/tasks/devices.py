"""Where a model runs, and in what precision."""

from __future__ import annotations

import torch

from evacap_cli.errors import UsageError
from evacap_cli.model.packing import can_multiply, can_pack

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision -> autocast type."""


def pick_device(device: str = "auto") -> torch.device:
    """`auto`: CUDA, then MPS, then the CPU. A device that is not there is a UsageError."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if available[name]))
    kind = device.split(":")[0]
    if kind not in available:
        raise UsageError(f"--device {device}: unknown", "use auto, cpu, cuda or mps")
    if not available[kind]:
        raise UsageError(
            f"--device {device}: not available on this machine",
            "use auto; `evacap doctor` says what there is",
        )
    return torch.device(device)


def pick_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type, None for fp32. `auto`: bf16 on a GPU that has it, else fp32. On a CPU for which PyTorch has
    no products in a type, that is fp32, too; `precision_note` says so."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    dtype = _named(precision)
    return None if dtype is not None and device.type == "cpu" and not can_multiply(dtype) else dtype


def precision_note(precision: str, device: torch.device) -> str:
    """What becomes of `precision` on `device` where it is not the fast choice that its name promises; else empty."""
    dtype = None if precision == "auto" else _named(precision)
    if dtype is None or device.type != "cpu" or can_pack(dtype):
        return ""
    cpu = f"this CPU ({torch.backends.cpu.get_cpu_capability()}; x86 needs AVX-512 or AMX)"
    if not can_multiply(dtype):
        return f"precision {precision}: PyTorch cannot multiply in {precision} on {cpu}: fp32 is used"
    return (
        f"precision {precision}: no fast {precision} products on {cpu}: plain ones are used; fp32 is faster"
    )


def _named(precision: str) -> torch.dtype | None:
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: unknown", f"use auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]
