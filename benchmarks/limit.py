"""Compares the engine's speed with the hardware limit, stage by stage:

    python benchmarks/limit.py [--preset evacap-base] [--frames 18] [--precision fp32] [--words 20] [--runs 3]

The lower bound of a stage is the larger of two times: its operations divided by the rate of the fastest matrix product,
and the bytes that it must read divided by the rate of a copy. Operations are counted while the stage runs. Bytes are
the weights of the stage; `generate` reads them, and the keys and values of the prefix, once per word. Everything is
measured in one run and printed with the machine and the date.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from evacap_cli.features import FeatureSettings
from evacap_cli.model import CaptionModel
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.speed import (
    STAGES,
    SpeedOptions,
    TimedModel,
    environment,
    measure,
    noise_clips,
    wait_for,
)

SHAPES = ((512, 768, 3072), (1024, 3072, 768), (3528, 768, 2304), (2048, 2048, 2048))  # rows, inner, columns
COPIED = 2**28  # bytes


def fastest(run: Callable[[], Any], device: torch.device, runs: int = 8) -> float:
    """The shortest time of several runs, in seconds."""
    run()
    seconds = []
    for _ in range(runs):
        wait_for(device)
        began = time.perf_counter()
        run()
        wait_for(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the fastest product of matrices with the model's shapes."""
    rates = []
    for rows, inner, columns in SHAPES:
        a, b = (
            torch.randn(rows, inner, dtype=dtype, device=device),
            torch.randn(inner, columns, dtype=dtype, device=device),
        )
        rates.append(2 * rows * inner * columns / fastest(lambda a=a, b=b: a @ b, device))
    return max(rates)


def copy_rate(device: torch.device) -> float:
    """Bytes per second that a copy reads and writes."""
    source = torch.zeros(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / fastest(lambda: target.copy_(source), device)


@torch.inference_mode()
def operations(
    model: CaptionModel, fbank: torch.Tensor, pixels: torch.Tensor | None, words: int, beam: int
) -> dict[str, int]:
    """Floating point operations of each stage."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counted = {fused: lambda q, k, v, *rest, **named: sdpa_flop_count(q, k, v)}

    def count(run: Callable[[], Any]) -> tuple[Any, int]:
        with FlopCounterMode(display=False, custom_mapping=counted) as counter:
            found = run()
        return found, counter.get_total_flops()

    found = {}
    heard, found["encode audio"] = count(lambda: model.encode_audio(fbank))
    seen = None
    if pixels is not None and model.has_picture:
        seen, found["encode video"] = count(lambda: model.encode_picture(pixels))
    memory, found["fuse"] = count(lambda: model.fuse(heard, seen))
    _, found["generate"] = count(lambda: model.decode(memory, beam, words, words))
    return found


def bytes_read(model: CaptionModel, prefix: int, words: int, size: int) -> dict[str, float]:
    """Bytes that each stage must read: its weights, with `size` bytes per number, and the prefix."""
    encoder, config = model.encoder, model.config.decoder

    def weights(*parts: str) -> int:
        return sum(p.numel() for name, p in encoder.named_parameters() if name.startswith(parts)) * size

    decoder = sum(p.numel() for name, p in model.decoder.named_parameters() if "positions" not in name) * size
    kept = 2 * config.layers * prefix * config.width * size
    return {
        "encode audio": weights("patch_embed_a", "blocks_a", "blocks_u"),
        "encode video": weights("patch_embed_v", "blocks_v", "blocks_u"),
        "fuse": sum(p.numel() for p in model.fusion.parameters()) * size,
        "generate": (words + 1) * (decoder + kept),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="evacap-base")
    parser.add_argument("--frames", type=int, default=18)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    device = pick_device(args.device)
    autocast = pick_precision(args.precision, device)
    dtype = autocast or torch.float32
    timing = {"words": args.words, "runs": args.runs, "device": args.device, "precision": args.precision}
    options = SpeedOptions((args.frames,), **timing)
    (row,) = measure([args.preset], options).rows
    subject = TimedModel.open(args.preset)
    model = subject.plain(args.frames).eval()
    fbank, pixels = noise_clips(
        FeatureSettings.from_dict(subject.features), args.frames, 1, torch.device("cpu")
    )
    counted = operations(model, fbank, pixels, args.words, options.beam)
    encoder = model.config.encoder
    tokens = encoder.audio_tokens + (encoder.tokens_for(args.frames) if model.unified else 0)
    read = bytes_read(model, tokens, args.words, torch.finfo(dtype).bits // 8)
    rates = {"matrix": matrix_rate(device, dtype), "copy": copy_rate(device)}
    stages, limits = {}, []
    for stage in STAGES:
        if stage not in row.seconds:
            continue
        limit = max(counted[stage] / rates["matrix"], read[stage] / rates["copy"])
        limits.append(limit)
        stages[stage] = {
            "GFLOP": round(counted[stage] / 1e9, 2),
            "MB": round(read[stage] / 1e6, 1),
            "limit s": round(limit, 4),
            "measured s": round(row.seconds[stage], 4),
            "measured / limit": round(row.seconds[stage] / limit, 2),
        }
    print(json.dumps({
        "preset": args.preset, "frames": args.frames, "words": args.words, "beam": options.beam,
        "matrix GFLOP/s": round(rates["matrix"] / 1e9, 1), "copy GB/s": round(rates["copy"] / 1e9, 1),
        "stages": stages, "limit s": round(float(np.sum(limits)), 3), "measured s": round(row.seconds["all"], 3),
        "measured / limit": round(row.seconds["all"] / float(np.sum(limits)), 2),
        **environment(device, autocast),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
