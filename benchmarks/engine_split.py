"""Where the time of one clip goes: decode, encode and generate, for a preset with random weights.

    python benchmarks/engine_split.py VIDEO [--preset evacap-base] [--words 20] [--runs 3]

Every caption has the same number of words (random weights would stop anywhere). Prints the median of the runs after one
that is not counted, with the machine and the date.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

import torch

from evacap_cli.features import FeatureSettings, normalize_frames
from evacap_cli.model import build_model, load_preset
from evacap_cli.tasks.clips import ClipSettings, load_clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--preset", default="evacap-base")
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    preset = load_preset(args.preset)
    features = FeatureSettings.from_dict(preset.features)
    torch.manual_seed(0)
    model = build_model(preset.model).eval()
    seconds: dict[str, list[float]] = defaultdict(list)

    def lap(name: str, since: float) -> float:
        now = time.perf_counter()
        seconds[name].append(now - since)
        return now

    with torch.inference_mode():
        for _ in range(args.runs + 1):
            start = at = time.perf_counter()
            clip = load_clip(args.video, ClipSettings(features))
            at = lap("decode", at)
            heard = model.encode_audio(torch.from_numpy(clip.fbank)[None])
            at = lap("encode sound", at)
            seen = None
            if clip.frames is not None and model.has_picture:
                seen = model.encode_picture(normalize_frames(torch.from_numpy(clip.frames)[None], features))
                at = lap("encode picture", at)
            memory = model.fuse(heard, seen)
            at = lap("fuse", at)
            model.describe(memory, args.beam, max_words=args.words, min_words=args.words)
            lap("generate", at)
            lap("all", start)
    middle = {name: round(statistics.median(runs[1:]), 3) for name, runs in seconds.items()}
    about = {
        "preset": args.preset,
        "parameters": sum(p.numel() for p in model.parameters()),
        "frames": 0 if clip.frames is None else len(clip.frames),
        "beam": args.beam,
        "words": args.words,
        "precision": "fp32",
        "seconds": middle,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    print(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
