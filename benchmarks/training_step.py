"""Measures the time and memory of a training step of a preset with random clips:

    python benchmarks/training_step.py [PRESET] [SETTING=VALUE ...] [--batch-size 2] [--precision fp32] [--device auto]
        [--checkpointing | --mlp-checkpointing]

Prints the memory of one process next to the estimate of `evacap train --dry-run`.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Sequence
from datetime import date
from typing import Any

import torch

from evacap_cli.model import Objective, build_model
from evacap_cli.model.modality_shuffling import shuffle_partners
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.speed import wait_for
from evacap_cli.tasks.training.config import read_config
from evacap_cli.tasks.training.memory import estimate_memory
from evacap_cli.tasks.training.parameter_groups import freeze, parameter_groups

WORDS = 20


def measure_step(
    preset: str,
    clips: int,
    precision: str = "auto",
    device: str = "auto",
    checkpointing: bool = False,
    steps: int = 3,
    mlp_checkpointing: bool = False,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Times training steps, after one that is not counted."""
    switches = {"checkpointing": checkpointing, "mlp_checkpointing": mlp_checkpointing}
    config = read_config(
        preset, [*(f"training.{name}={str(on).lower()}" for name, on in switches.items()), *settings]
    )
    chosen = pick_device(device)
    dtype = pick_precision(precision, chosen)
    torch.manual_seed(0)
    model = build_model(config.model).to(chosen).train()
    model.set_checkpointing(checkpointing, mlp_checkpointing)
    freeze(model, [])
    s, encoder = config.training, config.model.encoder
    optimizer = torch.optim.AdamW(parameter_groups(model, {}), lr=s.lr, betas=s.betas, fused=True)
    objective = Objective(s.smoothing, s.gate_stability, s.consistency)
    fbank = torch.randn(clips, encoder.audio_frames, encoder.mel_bins, device=chosen)
    pixels = torch.randn(clips, encoder.frames, 3, encoder.image_size, encoder.image_size, device=chosen)
    tokens = torch.randint(config.model.decoder.vocab_size, (clips, WORDS), device=chosen)
    wanted = torch.ones_like(tokens, dtype=torch.bool)
    seconds, losses = [], []
    for _ in range(steps + 1):
        started = time.perf_counter()
        with torch.autocast(chosen.type, dtype, enabled=dtype is not None):
            parts = model(fbank, pixels if model.has_picture else None, tokens, wanted, None,
                          shuffle_partners(clips, s.sms), objective)  # fmt: skip
        optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(round(parts["caption"].item(), 3))  # .item() waits only for the forward
        wait_for(chosen)
        seconds.append(time.perf_counter() - started)
    peak = (
        torch.cuda.max_memory_allocated(chosen)
        if chosen.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    step = statistics.median(seconds[1:])
    return {
        "preset": preset, "clips": clips, "frames": encoder.frames, "precision": precision,
        **switches, "settings": list(settings), "first step s": round(seconds[0], 2), "step s": round(step, 4),
        "clips/s": round(clips / step, 3), "peak GB": round(peak / 1e9, 2),
        "estimated GB": estimate_memory(config.model, s, clips, dtype), "losses": losses,
        "device": str(chosen), "machine": platform.machine(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "date": str(date.today()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", nargs="?", default="evacap-base")
    parser.add_argument(
        "settings", nargs="*", help="as of evacap train, such as model.decoder.vocab_size=30522"
    )
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--mlp-checkpointing", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    measured = measure_step(
        args.preset,
        args.batch_size,
        args.precision,
        args.device,
        args.checkpointing,
        args.steps,
        args.mlp_checkpointing,
        args.settings,
    )
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
