"""Compares the speed of AVCap's public implementation with this one, in one run on one machine:

    git clone https://github.com/JongSuk1/AVCap && pip install six boto3 requests
    python benchmarks/against_avcap.py AVCap [--frames 1,18] [--runs 1] [--precision fp32,bf16]

Both models have full size, random weights, batch size 1 and beam size 4, and generate 20 words (the end token is
disabled). The public code runs unmodified in fp32, with the old timm `Attention` that it expects. Prints JSON with the
seconds of every run and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evacap_cli.features import FeatureSettings
from evacap_cli.tasks.devices import pick_precision
from evacap_cli.tasks.speed import TimedModel, environment, noise_clips

BEAM, WORDS = 4, 20
CPU = torch.device("cpu")


class OldAttention(nn.Module):
    """timm's attention of 2021, which has the parameter `qk_scale` and computes the attention matrix explicitly."""

    def __init__(self, dim: int, num_heads: int = 8, qkv_bias: bool = False, qk_scale: float | None = None,
                 attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.scale = num_heads, qk_scale or (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


def public_model(
    repository: Path, frames: int, device: torch.device = CPU, words: int = WORDS
) -> Callable[[Tensor, Tensor], Any]:
    """Returns a function of fbank and pixels that captions with the public code.

    pixels: (B, 3, S, S) for one frame, else (B, 3, N, S, S).
    """
    import timm.models.vision_transformer as vit

    vit.Attention = OldAttention  # type: ignore[misc]
    sys.path.insert(0, str(repository))
    from models.AVCap import get_avcap_model  # type: ignore[import-not-found]
    from models.cav_mae import CAVMAEFT  # type: ignore[import-not-found]

    torch.manual_seed(0)
    encoder = CAVMAEFT(label_dim=527, modality_specific_depth=11, num_frames=max(frames, 1), tr_pos=True)
    ids = SimpleNamespace(cls_token_id=101, sep_token_id=102)
    model = get_avcap_model(ids, encoder, {"mode": "captioning" if frames else "audio_captioning"})
    model = model.to(device).eval()
    model.decoder.max_steps = words + 2
    model.textual.output.bias.data[ids.sep_token_id] = -1e9

    @torch.no_grad()
    def run(fbank: Tensor, pixels: Tensor) -> Any:
        clip = {"audio": fbank, "visual": pixels, "torch_id": torch.zeros(1, device=device)}
        return model(clip)["predictions"]

    return run


def our_model(preset: str, frames: int, precision: str) -> Callable[[Tensor, Tensor | None], Any]:
    autocast = pick_precision(precision, CPU)
    model = TimedModel.open(preset).model(frames, CPU, autocast, False)

    def run(fbank: Tensor, pixels: Tensor | None) -> Any:
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            seen = pixels if model.has_picture and frames else None
            return model.generate(fbank, seen, beam=BEAM, max_words=WORDS, min_words=WORDS).tokens

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("--frames", default="18")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--precision", default="fp32,bf16")
    args = parser.parse_args()
    results = []
    for frames in map(int, args.frames.split(",")):
        features = FeatureSettings.from_dict(TimedModel.open("evacap-base").features)
        fbank, pixels = noise_clips(features, max(frames, 1), 1, CPU)
        assert pixels is not None
        theirs = pixels[:, 0] if frames <= 1 else pixels.transpose(1, 2)
        runs: dict[str, Callable[[], Any]] = {}
        public = public_model(args.repository, frames)
        runs["public AVCap, fp32"] = partial(public, fbank, theirs)
        presets = ("avcap-base", "evacap-base") if frames else ("audio-base",)
        for preset in presets:
            for precision in args.precision.split(","):
                ours = our_model(preset, frames, precision)
                runs[f"{preset}, {precision}"] = partial(ours, fbank, pixels)
        for name, run in runs.items():
            if not name.startswith("public"):
                run()  # warm
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.runs):
            for name, run in runs.items():
                for _ in range(1 if name.startswith("public") else 3):
                    began = time.perf_counter()
                    run()
                    seconds[name].append(round(time.perf_counter() - began, 3))
        medians = {name: float(np.median(times)) for name, times in seconds.items()}
        base = medians["public AVCap, fp32"]
        results.append({
            "frames": frames,
            "seconds": seconds,
            "times as fast": {name: round(base / median, 1) for name, median in medians.items()},
        })  # fmt: skip
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"beam": BEAM, "words": WORDS, "results": results,
                      **environment(CPU, None)}, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
