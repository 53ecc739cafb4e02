"""Seconds per clip of a preset with random weights on one video, split into decode, encode and generate.

    python benchmarks/engine_split.py VIDEO [--preset evacap-base] [--repeats 3]

Float32, one clip at a time, beam 4, exactly 20 words, so that the time does not depend on what is said. The first pass
only warms up; of the others the medians are printed, as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from evacap_cli.features import FeatureSettings, normalize_frames
from evacap_cli.model import build_model, load_preset
from evacap_cli.tasks.clips import ClipSettings, load_clip
from evacap_cli.tasks.devices import pick_device

BEAM, WORDS = 4, 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("--preset", default="evacap-base")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    preset, device = load_preset(args.preset), pick_device(args.device)
    features = FeatureSettings.from_dict(preset.features)
    torch.manual_seed(0)
    model = build_model(preset.model).to(device).eval()
    settings = ClipSettings(features, None if model.has_picture else 0)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @torch.inference_mode()
    def once() -> dict[str, float]:
        began = clock()
        clip = load_clip(args.video, settings)
        decoded = clock()
        pixels = None
        if clip.frames is not None:
            pixels = normalize_frames(torch.from_numpy(clip.frames)[None].to(device), features)
        heard = model.encode_audio(torch.from_numpy(clip.fbank)[None].to(device))
        memory = model.fuse(heard, None if pixels is None else model.encode_picture(pixels))
        encoded = clock()
        model.describe(memory, beam=BEAM, max_words=WORDS, min_words=WORDS)
        done = clock()
        return {
            "decode": decoded - began,
            "encode": encoded - decoded,
            "generate": done - encoded,
            "total": done - began,
        }

    once()
    passes = [once() for _ in range(args.repeats)]
    print(json.dumps({
        "preset": args.preset,
        "video": args.video.name,
        "frames": features.frames if model.has_picture else 0,
        "beam": BEAM,
        "words": WORDS,
        "precision": "fp32",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seconds_per_clip": {part: round(statistics.median(one[part] for one in passes), 4) for part in passes[0]},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
