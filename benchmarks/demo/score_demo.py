"""What the packaged models hear: captions of fresh clips and of unseen recordings, counted sound by sound.

    python benchmarks/demo/score_demo.py --recordings DIR --work WORKDIR --model NAME_OR_DIR

Reads the test features that `make_demo.py` wrote, and captions the fold-4 recordings one by one without a picture.
Prints a table and returns it as JSON in WORKDIR/scores-MODEL.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from naming import Naming, recall_by_class

from evacap_cli.data.store import Store
from evacap_cli.data.world import RecordingBank, World
from evacap_cli.data.world.events import Catalogue
from evacap_cli.features import FeatureSettings, fbank
from evacap_cli.model import Checkpoint, load_checkpoint
from evacap_cli.tasks.batches import FeatureBatches


def caption_all(
    checkpoint: Checkpoint, data: FeatureBatches, batch_size: int = 32
) -> tuple[list[str], list[float]]:
    """Captions and mean gates (NaN without one) of every clip."""
    captions: list[str] = []
    gates: list[float] = []
    for start in range(0, len(data), batch_size):
        rows = range(start, min(start + batch_size, len(data)))
        out = checkpoint.model.generate(*data.batch(rows).inputs(torch.device("cpu"), data.features))
        captions += [checkpoint.tokenizer.decode(tokens.tolist()) for tokens in out.tokens]
        gates += [float("nan")] * len(rows) if out.gate is None else out.gate.tolist()
    return captions, gates


def caption_recordings(checkpoint: Checkpoint, bank: RecordingBank) -> tuple[list[str], list[str], list[str]]:
    """Files, categories and captions of recordings, heard only."""
    features = FeatureSettings.from_dict(checkpoint.features)
    files, categories, captions = [], [], []
    for category, names in bank.categories.items():
        waves = [torch.from_numpy(np.ascontiguousarray(bank.wave(name))) for name in names]
        out = checkpoint.model.generate(fbank(waves, features))
        files += names
        categories += [category] * len(names)
        captions += [checkpoint.tokenizer.decode(tokens.tolist()) for tokens in out.tokens]
    return files, categories, captions


def score(checkpoint: Checkpoint, store: Store, recordings: Path, seed: int) -> dict[str, Any]:
    world = World(seed, recordings=recordings, folds=(4,), licenses=("CC0", "CC-BY"))
    assert world.recordings is not None
    features = FeatureSettings.from_dict(checkpoint.features)
    catalogue = Catalogue.for_categories(tuple(world.recordings.categories))
    naming = Naming(catalogue)
    started = time.monotonic()
    captions, gates = caption_all(checkpoint, FeatureBatches(store, features))
    seconds = time.monotonic() - started
    truths = [store.extra(i)["sounds"] for i in range(len(store))]
    by_sound = recall_by_class(naming, captions, truths)
    found = sum(naming.named(c, s) for c, t in zip(captions, truths, strict=True) for s in t)
    claimed = sum(len(naming.all_named(c)) for c in captions)
    families = [
        bool(naming.source[sound.event] & set(caption.lower().split()))
        for i, caption in enumerate(captions)
        for sound in world.script(i).sounds
        if sound.visible and naming.source.get(sound.event)
    ]
    category_sound = {event.recorded: event.sound for event in catalogue.events if event.recorded}
    files, categories, heard = caption_recordings(checkpoint, world.recordings)
    real = recall_by_class(naming, heard, [[category_sound[c]] for c in categories])
    return {
        "clips": len(captions),
        "recall": round(found / sum(map(len, truths)), 4),
        "precision": round(found / max(claimed, 1), 4),
        "source named when only the picture tells": round(float(np.mean(families)), 4),
        "source clips": len(families),
        "mean gate": None if np.isnan(gates).all() else round(float(np.nanmean(gates)), 4),
        "seconds per clip": round(seconds / len(captions), 4),
        "by sound": by_sound,
        "recordings": len(files),
        "recordings recall": round(sum(r["recall"] * r["clips"] for r in real.values()) / len(files), 4),
        "recordings by sound": real,
        "recording captions": [
            {"file": f, "category": c, "caption": h} for f, c, h in zip(files, categories, heard, strict=True)
        ],
        "examples": [
            {"kind": store.extra(i)["kind"], "truth": store.captions(i)[0], "caption": caption}
            for i, caption in enumerate(captions[:20])
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--set", default="test", choices=("val", "test"))
    parser.add_argument("--seed", type=int, default=303, help="the seed that the set was made with")
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.model)
    result = score(checkpoint, Store(args.work / args.set), args.recordings, args.seed)
    name = (
        Path(args.model).parent.name if Path(args.model).name in ("best", "last") else Path(args.model).name
    )
    (args.work / f"scores-{args.set}-{name}.json").write_text(
        json.dumps(result, indent=1, ensure_ascii=False)
    )
    print(json.dumps({k: v for k, v in result.items() if k not in ("recording captions",)}, indent=1))


if __name__ == "__main__":
    main()
