"""Trains the packaged models, from nothing: world -> towers -> three captioners -> scores -> model cards.

    python benchmarks/demo/make_demo.py --recordings DIR --work WORKDIR

`--recordings` is a folder such as ESC-10's with `metadata.csv`; folds 1-3 train, fold 4 is only looked at. Every stage
goes on where it was stopped. `install_demo.py` packages and scores the result.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from evacap_cli.data.store import Store, write_store
from evacap_cli.data.world import World
from evacap_cli.features import FeatureSettings
from evacap_cli.model import (
    CaptionModel,
    Tokenizer,
    build_model,
    load_preset,
)
from evacap_cli.tasks.batches import FeatureBatches, cache_towers
from evacap_cli.tasks.pretraining import Labels, PretrainSettings, pretrain, tower_report
from evacap_cli.tasks.sample import Recordings, Scene, make_sample, world_of
from evacap_cli.tasks.training import Progress, TrainSettings, fit

SETS = {"train": (12_000, 101, (1, 2, 3)), "val": (512, 202, (4,)), "test": (512, 303, (4,))}
"""Clips, seed of the world, folds of the recordings."""
MODELS = {"demo": "evacap-tiny", "audio-demo": "audio-tiny", "avcap-demo": "avcap-tiny"}
LICENSES = ("CC0", "CC-BY")


def recordings_of(args: argparse.Namespace, folds: tuple[int, ...]) -> Recordings:
    return Recordings(str(args.recordings), folds, LICENSES)


def store_of(name: str, args: argparse.Namespace, settings: FeatureSettings) -> Store:
    clips, seed, folds = SETS[name]
    clips = min(clips, args.clips) if args.clips else clips
    started = time.monotonic()

    def progress(done: int, total: int) -> None:
        if done % 1024 == 0 or done == total:
            print(f"{name}: {done}/{total} clips rendered, {time.monotonic() - started:.0f} s", flush=True)

    write_store(
        args.work / name,
        [Scene(number, seed) for number in range(clips)],
        partial(make_sample, settings=settings, recordings=recordings_of(args, folds)),
        settings,
        frames_format="raw",
        made_with={"seed": seed, "folds": list(folds)},
        workers=args.workers,
        progress=progress,
    )
    return Store(args.work / name)


def labels_of(store: Store, sounds: list[str], things: list[str]) -> Labels:
    truths = [store.extra(i) for i in range(len(store))]

    def table(key: str, names: list[str]) -> np.ndarray:
        rows = np.zeros((len(store), len(names)), np.float32)
        for row, truth in zip(rows, truths, strict=True):
            row[[names.index(label) for label in truth[key]]] = 1
        return rows

    together = np.array([truth["kind"] in ("matched", "distractor") for truth in truths])
    return Labels(table("sounds", sounds), table("things", things), together)


def towers(
    args: argparse.Namespace, data: dict[str, FeatureBatches], world: World, times: Path
) -> CaptionModel:
    """The demo's towers, trained by tagging and contrast."""
    sounds, things = world.sound_classes, world.object_classes
    config = load_preset("evacap-tiny").model
    config = replace(config, encoder=replace(config.encoder, tag_classes=len(sounds) + len(things)))
    torch.manual_seed(0)
    model = build_model(config)
    labels = {name: labels_of(batches.store, sounds, things) for name, batches in data.items()}
    settings = PretrainSettings(steps=args.tower_steps, keep_audio=0.5)

    def progress(step: int, losses: dict[str, float]) -> None:
        print(
            f"towers: {step}/{settings.steps} " + " ".join(f"{k} {v:.4f}" for k, v in losses.items()),
            flush=True,
        )

    started = time.monotonic()
    pretrain(model, data["train"], labels["train"], settings, args.work / "towers", torch.bfloat16, progress)
    add_time(times, "towers", time.monotonic() - started)
    for name in ("val", "test"):
        report = tower_report(model, data[name], labels[name], sounds)
        (args.work / f"towers-{name}.json").write_text(json.dumps(report, indent=1))
        print(name, {k: round(v, 4) for k, v in report.items() if isinstance(v, float)}, flush=True)
    return model


def add_time(path: Path, name: str, seconds: float) -> None:
    """Minutes are added up over stops."""
    spent = json.loads(path.read_text()) if path.exists() else {}
    spent[name] = round(spent.get(name, 0.0) + seconds, 1)
    path.write_text(json.dumps(spent, indent=1))


def with_towers(preset: str, vocab: int, towers: CaptionModel) -> CaptionModel:
    """A captioner of `preset` on the pre-trained towers, which stay as they are."""
    config = load_preset(preset).model
    torch.manual_seed(1)
    model = build_model(replace(config, decoder=replace(config.decoder, vocab_size=vocab)))
    known = towers.encoder.state_dict()
    if model.unified:  # the joint norms start as the sound's
        known |= {k.replace(".a.", ".joint."): v for k, v in known.items() if ".a." in k}
    model.encoder.load_state_dict({k: v for k, v in known.items() if k in model.encoder.state_dict()})
    for name, parameter in model.encoder.named_parameters():
        parameter.requires_grad_(name.startswith(("blocks_u", "norms")))
    return model


def train_captioners(args: argparse.Namespace, data: dict[str, FeatureBatches], base: CaptionModel,
                     features: FeatureSettings, times: Path) -> None:  # fmt: skip
    train = data["train"]
    captions = [text for i in range(len(train)) for text in train.captions(i)]
    tokenizer = Tokenizer.train(captions, 1000)
    print(f"tokenizer: {len(tokenizer)} words", flush=True)
    started = time.monotonic()
    cached = {
        name: cache_towers(base, data[name], args.work / f"tokens-{name}", autocast=torch.bfloat16)
        for name in ("train", "val")
    }
    add_time(times, "tokens", time.monotonic() - started)
    for name, preset in MODELS.items():
        settings = TrainSettings.from_dict(
            {**load_preset(preset).training, "precision": "bf16", "epochs": args.epochs, "noise": False,
             "freq_mask": 0, "time_mask": 0}
        )  # fmt: skip
        model = with_towers(preset, len(tokenizer), base)

        def progress(p: Progress, name: str = name) -> None:
            if p.step % 100 == 0 or p.note:
                checked = f" {p.note}" if p.note else ""
                print(f"{name}: {p.step}/{p.steps} loss {p.loss:.4f}{checked} {p.clips_per_second:.0f} clips/s, "
                      f"{p.left / 60:.1f} min left", flush=True)  # fmt: skip

        started = time.monotonic()
        fit(model, tokenizer, cached["train"], settings, args.work / name, cached["val"],
            metadata={"preset": preset}, progress=progress)  # fmt: skip
        add_time(times, name, time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--clips", type=int, help="fewer clips, for a trial")
    parser.add_argument("--tower-steps", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=3.0)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)  # tiny gradients cost a CPU many times a normal one
    times = args.work / "times.json"
    features = FeatureSettings.from_dict(load_preset("evacap-tiny").features)
    data = {}
    for name in SETS:
        started = time.monotonic()
        data[name] = FeatureBatches(store_of(name, args, features), features)
        add_time(times, "render", time.monotonic() - started)
    world = world_of(SETS["train"][1], recordings_of(args, SETS["train"][2]))
    base = towers(args, data, world, times)
    train_captioners(args, data, base, features, times)


if __name__ == "__main__":
    main()
