"""Profiles captioning: the time of each stage at several batch sizes, and the operations in each stage.

    python benchmarks/profile_stages.py [--preset evacap-base] [--frames 18] [--precision fp32] [--batch 1,2,4,8]

Prints JSON (also to `-o FILE`): for every batch size, the seconds per clip of each stage; for batch size 1 and the best
batch size, the slowest operations of each stage; the machine and the date.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

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

MAX_OPERATIONS = 6  # operations listed per stage


def operations(run: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """The shares of time of the slowest operations, excluding the time of nested operations."""
    run()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as found:
        run()
        wait_for(device)

    def own(event: Any) -> float:
        return event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total

    events = sorted(found.key_averages(), key=own, reverse=True)
    total = sum(map(own, events))
    return {event.key: round(own(event) / total, 3) for event in events[:MAX_OPERATIONS]}


def stage_operations(
    model: CaptionModel, fbank: torch.Tensor, pixels: torch.Tensor | None, options: SpeedOptions
) -> dict[str, dict[str, float]]:
    device = fbank.device
    heard, seen = model.encode_audio(fbank), None
    found = {"encode audio": operations(lambda: model.encode_audio(fbank), device)}
    if pixels is not None and model.has_picture:
        seen = model.encode_picture(pixels)
        found["encode video"] = operations(lambda: model.encode_picture(pixels), device)
    memory = model.fuse(heard, seen)
    found["fuse"] = operations(lambda: model.fuse(heard, seen), device)
    words = options.words
    found["generate"] = operations(lambda: model.decode(memory, options.beam, words, words), device)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="evacap-base")
    parser.add_argument("--frames", type=int, default=18)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", default="1,2,4,8")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    device = pick_device(args.device)
    autocast = pick_precision(args.precision, device)
    batches: dict[int, dict[str, float]] = {}
    for size in map(int, args.batch.split(",")):
        options = SpeedOptions(
            (args.frames,), batch_size=size, runs=args.runs, device=args.device, precision=args.precision
        )
        (row,) = measure([args.preset], options).rows
        batches[size] = {
            stage: round(row.seconds[stage] / size, 4) for stage in (*STAGES, "all") if stage in row.seconds
        }
    best = min(batches, key=lambda size: batches[size]["all"])
    subject = TimedModel.open(args.preset)
    model = subject.model(args.frames, device, autocast, False)
    spent = {}
    for size in dict.fromkeys((1, best)):
        fbank, pixels = noise_clips(FeatureSettings.from_dict(subject.features), args.frames, size, device)
        with torch.inference_mode(), torch.autocast(device.type, autocast, enabled=autocast is not None):
            spent[size] = stage_operations(model, fbank, pixels, SpeedOptions((args.frames,)))
    text = json.dumps({
        "preset": args.preset, "frames": args.frames, "beam": 4, "words": 20,
        "seconds a clip, by batch size": batches, "best batch": best, "share of operations, by batch size": spent,
        **environment(device, autocast),
    }, indent=1)  # fmt: skip
    print(text)
    if args.out:
        args.out.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
