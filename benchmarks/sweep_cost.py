"""Compares the time of a shuffle sweep with one evaluation of the same model:

    python benchmarks/sweep_cost.py [--preset evacap-base] [--clips 8] [--batch-size 4] [--rounds 2] [--seeds 1]

Uses random weights and random clips, and measures only captioning, without scoring. The number of probabilities of the
sweep does not change its time. Prints the seconds and their ratio for every round.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch

from evacap_cli.data.store import Sample, Store, write_store
from evacap_cli.features import FeatureSettings
from evacap_cli.model import Checkpoint, Tokenizer, build_model, load_preset
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.pairing import Pairing
from evacap_cli.tasks.store_captioner import InferenceOptions, StoreCaptioner


@dataclass(frozen=True)
class Noise:
    key: str
    captions: tuple[str, ...] = ("noise",)
    error: str = ""

    @property
    def source(self) -> str:
        return self.key


def make(item: Noise, settings: FeatureSettings) -> Sample:
    rng = np.random.default_rng(int(item.key))
    frames = rng.integers(
        0, 256, (settings.frames, 3, settings.image_size, settings.image_size), dtype=np.uint8
    )
    return Sample(rng.standard_normal((settings.audio_frames, settings.mel_bins)), frames, end=10.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="evacap-base")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    preset = load_preset(args.preset)
    settings = FeatureSettings.from_dict(preset.features)
    torch.manual_seed(0)
    model = build_model(preset.model).eval()
    tokenizer = Tokenizer.train(["noise"], 40)  # the words do not matter
    tokenizer.decode = lambda tokens: str(len(tokens))  # type: ignore[method-assign]
    checkpoint = Checkpoint(args.preset, Path(args.preset), model, tokenizer, settings.to_dict())
    device = pick_device(args.device)
    how = InferenceOptions(
        batch_size=args.batch_size, device=device, autocast=pick_precision(args.precision, device)
    )
    with tempfile.TemporaryDirectory() as folder:
        items = [Noise(str(i)) for i in range(args.clips)]
        write_store(folder, items, partial(make, settings=settings), settings, frames_format="raw", workers=0)
        captioner = StoreCaptioner(checkpoint, Store(folder), how)
        captioner.caption()  # warm-up
        rounds = []
        for _ in range(args.rounds):
            began = time.perf_counter()
            plain = captioner.caption()
            middle = time.perf_counter()
            own, _ = captioner.caption_paired([Pairing.draw(args.clips, seed) for seed in range(args.seeds)])
            end = time.perf_counter()
            assert own.captions == plain.captions
            rounds.append({"evaluation s": round(middle - began, 2), "sweep s": round(end - middle, 2),
                           "ratio": round((end - middle) / (middle - began), 3)})  # fmt: skip
    print(json.dumps({
        "preset": args.preset, "clips": args.clips, "frames": settings.frames, "batch size": args.batch_size,
        "seeds": args.seeds,
        "words": sorted(set(plain.captions)), "rounds": rounds, "device": str(device), "machine": platform.machine(),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "date": str(date.today()),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
