"""Measures the time and memory of a training step of a preset with random clips:

    python benchmarks/training_step.py [PRESET] [--batch-size 2] [--precision fp32] [--checkpointing] [--device auto]

Prints the memory of one process next to the estimate of `evacap train --dry-run`.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from datetime import date

import torch

from evacap_cli.model import Objective, build_model
from evacap_cli.model.modality_shuffling import shuffle_partners
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.training.config import read_config
from evacap_cli.tasks.training.memory import estimate_memory
from evacap_cli.tasks.training.parameter_groups import freeze, parameter_groups

WORDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", nargs="?", default="evacap-base")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    switches = [f"training.checkpointing={str(args.checkpointing).lower()}"]
    config = read_config(args.preset, switches)
    device = pick_device(args.device)
    dtype = pick_precision(args.precision, device)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model = build_model(config.model).to(device).train()
    model.set_checkpointing(args.checkpointing)
    freeze(model, [])
    s, encoder, clips = config.training, config.model.encoder, args.batch_size
    optimizer = torch.optim.AdamW(parameter_groups(model, {}), lr=s.lr, betas=s.betas, fused=True)
    objective = Objective(s.smoothing, s.gate_stability, s.consistency)
    fbank = torch.randn(clips, encoder.audio_frames, encoder.mel_bins, device=device)
    pixels = torch.randn(clips, encoder.frames, 3, encoder.image_size, encoder.image_size, device=device)
    tokens = torch.randint(config.model.decoder.vocab_size, (clips, WORDS), device=device)
    wanted = torch.ones_like(tokens, dtype=torch.bool)
    seconds, losses = [], []
    for _ in range(args.steps + 1):
        started = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            parts = model(fbank, pixels if model.has_picture else None, tokens, wanted, None,
                          shuffle_partners(clips, s.sms), objective)  # fmt: skip
        optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(round(parts["caption"].item(), 3))  # .item() waits for the device
        seconds.append(time.perf_counter() - started)
    peak = (
        torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    step = statistics.median(seconds[1:])
    print(json.dumps({
        "preset": args.preset, "clips": clips, "frames": encoder.frames, "precision": args.precision,
        "checkpointing": args.checkpointing, "first step s": round(seconds[0], 2), "step s": round(step, 2),
        "clips/s": round(clips / step, 3), "peak GB": round(peak / 1e9, 2),
        "estimated GB": estimate_memory(config.model, s, clips, dtype), "losses": losses,
        "device": str(device), "machine": platform.machine(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "date": str(date.today()),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
