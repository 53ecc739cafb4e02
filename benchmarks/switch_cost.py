"""Measures the cost of the `evidence` switch: a used, an unused and a black picture, and an audio-only model.

    python benchmarks/switch_cost.py --frames 4

The models have full size and random weights. The threshold sets the state of the switch. Prints medians of interleaved
runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from evacap_cli.model import CaptionModel, build_model, load_preset
from evacap_cli.model.packing import pack

WORDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    ours = pack(build_model(load_preset("evidence-base").model).eval(), None)
    alone = pack(build_model(load_preset("audio-base").model).eval(), None)
    fbank = torch.randn(1, 1024, 128)
    shown = torch.nn.functional.interpolate(torch.randn(args.frames, 3, 14, 14), 224, mode="bicubic")[None]
    black = torch.full_like(shown, -2.0)

    def stages(model: CaptionModel, pixels: torch.Tensor | None, threshold: float = 0.0) -> dict[str, float]:
        if model.has_evidence:
            model.fusion.config = replace(model.fusion.config, threshold=threshold)
        seconds = {}

        def timed(name: str, work: Callable[[], object]) -> object:
            began = time.perf_counter()
            result = work()
            seconds[name] = time.perf_counter() - began
            return result

        with torch.inference_mode():
            mask = None if pixels is None else model.visible(pixels, None)
            there = pixels is not None and model.has_picture and (mask is None or bool(mask.any()))
            heard = timed("sound", lambda: model.encode_audio(fbank))
            seen = timed("picture", lambda: model.encode_picture(pixels) if there else None)
            memory = timed("fuse", lambda: model.fuse(heard, seen))
            timed("words", lambda: model.decode(memory, 4, WORDS, WORDS))
        return {**seconds, "all": sum(seconds.values())}

    ways = {
        "audio-base": lambda: stages(alone, None),
        "evidence-base, black": lambda: stages(ours, black),
        "evidence-base, shut": lambda: stages(ours, shown, 1.0),
        "evidence-base, open": lambda: stages(ours, shown, 0.0),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for run in range(args.runs + 1):
        for name, way in ways.items():
            took = way()
            if run:  # the first run is a warm-up
                found[name].append(took)
    medians = {
        name: {stage: round(statistics.median(run[stage] for run in runs), 3) for stage in runs[0]}
        for name, runs in found.items()
    }
    about = {
        "frames": args.frames,
        "words": WORDS,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps({**about, "torch": torch.__version__, "seconds": medians}, indent=1))


if __name__ == "__main__":
    main()
