"""Compares a precision with fp32: the share of identical captions, and the metrics.

    python benchmarks/precision.py STORE [--models demo,audio-demo] [--precision bf16] [--metrics CIDEr,BLEU_4]

Prints JSON: for each model, the share of identical captions and each metric in both precisions with the change in
per cent.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from evacap_cli.data.store import Store
from evacap_cli.metrics.suite import Settings, choose_metrics, score_captions
from evacap_cli.model import load_checkpoint
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.speed import environment
from evacap_cli.tasks.store_captioner import InferenceOptions, StoreCaptioner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--models", default="demo,avcap-demo,audio-demo")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--metrics", default=None, help="as in `evacap score`; default: all")
    args = parser.parse_args()
    device, store = pick_device(args.device), Store(args.store)
    autocast, settings = pick_precision(args.precision, device), Settings(choose_metrics(args.metrics))
    references = [store.captions(i) for i in range(len(store))]
    models = {}
    for name in args.models.split(","):
        said = [
            StoreCaptioner(load_checkpoint(name), store, InferenceOptions(device=device, autocast=kind))
            .caption()
            .captions
            for kind in (None, autocast)
        ]
        exact, lower = (
            score_captions(store.keys, captions, references, settings).values for captions in said
        )
        models[name] = {
            "same captions": float(np.mean([a == b for a, b in zip(*said, strict=True)])),
            "metrics": {
                metric: {
                    "fp32": round(value, 4),
                    args.precision: round(other, 4),
                    "change %": round(100 * (other / value - 1), 2),
                }
                for metric, value in exact.items()
                if value and (other := lower[metric]) is not None
            },
        }
    print(json.dumps({"clips": len(store), "models": models, **environment(device, autocast)}, indent=1))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
