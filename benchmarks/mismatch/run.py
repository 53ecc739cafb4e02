"""Runs the whole benchmark: renders clips, trains towers and arms, and captions. `report.py` writes the tables.

    python benchmarks/mismatch/run.py --recordings ESC-10 --work WORK

Interrupted stages continue when the command runs again. Choose settings on `val`; use `--set test` only at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import arms
import numpy as np
import torch
from measure import Listener, black_tokens, calibrate, measure
from pairs import conditions
from tokens import TowerBatches, cache_towers
from towers import STEPS, towers, weights
from world import SETS, labels_of, render, world

from evacap_cli.data.store import Store
from evacap_cli.features import FeatureSettings
from evacap_cli.model import Tokenizer, load_preset
from evacap_cli.tasks.batches import FeatureBatches
from evacap_cli.tasks.devices import PRECISIONS


@dataclass(frozen=True)
class Job:
    """One arm with one seed, run in a separate process."""

    arm: str
    seed: int
    work: Path
    recordings: Path
    sets: tuple[str, ...]
    device: str
    threads: int
    scale: float


def add_time(work: Path, name: str, seconds: float) -> None:
    path = work / "times.json"
    spent = json.loads(path.read_text()) if path.exists() else {}
    spent[name] = round(spent.get(name, 0.0) + seconds, 1)
    path.write_text(json.dumps(spent, indent=1))


def work_on(job: Job) -> str:
    """Trains, calibrates and measures an arm."""
    torch.set_num_threads(job.threads)
    torch.set_flush_denormal(True)  # denormal gradients are very slow on CPUs
    features = FeatureSettings.from_dict(load_preset("evacap-tiny").features)
    tokenizer = Tokenizer.load(job.work / "tokenizer.json")
    known = weights(job.work)
    started = time.monotonic()
    train = Store(job.work / "train")
    arms.train(job.arm, job.seed, job.work, known, tokenizer, features, train.captions, job.device, job.scale)
    folder = arms.folder_of(job.work, job.arm, job.seed)
    black = torch.load(job.work / "black.pt", weights_only=True)

    def listener(name: str) -> Listener:
        model = arms.trained(job.arm, job.work, known, len(tokenizer), job.seed)
        data = TowerBatches(
            job.work / f"tokens-{name}", features, Store(job.work / name).captions, model.has_picture
        )
        return Listener(model, tokenizer, data, black)

    if job.arm in arms.OURS and not (folder / "calibration.json").exists():
        val = Store(job.work / "val")
        dubbed = np.array([val.extra(i)["kind"] == "dubbed" for i in range(len(val))])
        (folder / "calibration.json").write_text(json.dumps(calibrate(listener("val"), dubbed), indent=1))
    catalogue = world("train", job.recordings).catalogue
    for name in job.sets:
        place = job.work / "said" / name / f"{job.arm}-{job.seed}.json"
        if not place.exists():
            measure(listener(name), conditions(Store(job.work / name), catalogue), place)
    return f"{job.arm}-{job.seed}: {time.monotonic() - started:.0f} s"


def prepared(args: argparse.Namespace) -> None:
    """Prepares everything that the arms share: clips, towers, their tokens and the tokenizer."""
    features = FeatureSettings.from_dict(load_preset("evacap-tiny").features)
    started = time.monotonic()
    stores = {
        name: render(name, args.work, args.recordings, features, args.workers, args.clips) for name in SETS
    }
    add_time(args.work, "render", time.monotonic() - started)
    ours = world("train", args.recordings)
    data = {name: FeatureBatches(store, features) for name, store in stores.items()}
    labels = {
        name: labels_of(store, ours.sound_classes, ours.object_classes) for name, store in stores.items()
    }
    started = time.monotonic()
    steps = round(STEPS * args.scale)
    base = towers(data, labels, ours.sound_classes, args.work, steps, args.device, args.masked)
    add_time(args.work, "towers", time.monotonic() - started)
    started = time.monotonic()
    for name in SETS:
        cache_towers(base, data[name], args.work / f"tokens-{name}", autocast=PRECISIONS[arms.PRECISION])
    torch.save(black_tokens(base.cpu(), features), args.work / "black.pt")
    if not (args.work / "tokenizer.json").exists():
        captions = [text for i in range(len(stores["train"])) for text in stores["train"].captions(i)]
        Tokenizer.train(captions, 1000).save(args.work / "tokenizer.json")
    add_time(args.work, "tokens", time.monotonic() - started)


def show(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path, required=True, help="ESC-10 with metadata.csv")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--set", action="append", choices=("val", "test"), help="set to measure on; default: both"
    )
    parser.add_argument("--arms", default=",".join(arms.ARMS), help="default: all")
    parser.add_argument("--seeds", default=",".join(map(str, arms.SEEDS)))
    parser.add_argument(
        "--masked",
        action="store_true",
        help="also train the towers with masked reconstruction (CAV-MAE); use a separate --work",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 2, help="processes; 0: everything in this one"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clips", type=int, help="number of clips, for trial runs")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all step counts, for trial runs")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    prepared(args)
    workers = min(1, args.workers) if args.device != "cpu" else args.workers
    threads = max(1, (os.cpu_count() or 1) // max(1, workers))
    seeds, chosen = [int(seed) for seed in args.seeds.split(",")], args.arms.split(",")
    sets = tuple(args.set or ("val", "test"))
    started = time.monotonic()
    # an arm that initialises another one comes first
    first = [
        "words",
        *dict.fromkeys(arms.ARMS[name].after for name in chosen if arms.ARMS[name].after != "words"),
    ]
    stages = [[name] for name in first if name] + [[name for name in chosen if name not in first]]
    for stage in stages:
        jobs = [
            Job(
                name,
                seed,
                args.work,
                args.recordings,
                () if name == "words" else sets,
                args.device,
                threads,
                args.scale,
            )
            for name in stage
            for seed in seeds
        ]
        if workers:
            with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
                show(pool.map(work_on, jobs))
        else:
            show(map(work_on, jobs))
    add_time(args.work, "arms", time.monotonic() - started)


if __name__ == "__main__":
    main()
