"""Packages what `make_demo.py` trained: fp16 weights, model cards, and the list of recordings they heard.

    python benchmarks/demo/install_demo.py --recordings DIR --work WORKDIR

Scores each model first (`score_demo.py`, on the test clips in WORKDIR) and writes what it printed into the card.
What `--flag-mismatch` needs comes after it: `evacap weights calibrate demo --data STORE`, with a store of other clips.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch
from make_demo import LICENSES, MODELS, SETS
from score_demo import score

import evacap_cli
from evacap_cli.data.store import Store
from evacap_cli.data.world import World
from evacap_cli.model import load_checkpoint, parameter_counts, save_checkpoint

ASSETS = Path(evacap_cli.__file__).parent / "assets" / "models"
ABOUT = {
    "demo": "EVACap, small: the picture is let in by a gate on attention entropy",
    "avcap-demo": "AVCap, small: tokens of sound and picture side by side",
    "audio-demo": "audio only, small: no picture at all",
}


def card(name: str, result: dict[str, Any], facts: dict[str, Any]) -> str:
    """The model card: `card.md`, every number in it from what was measured."""
    sounds = (
        f"| {sound} | {row['clips']} | {row['recall']:.2f} | {facts['tower_ap'].get(sound, float('nan')):.2f} |"
        for sound, row in result["by sound"].items()
    )
    real = (
        f"| {sound} | {row['clips']} | {row['recall']:.2f} |"
        for sound, row in result["recordings by sound"].items()
    )
    gate = result["mean gate"]
    return (Path(__file__).parent / "card.md").read_text("utf-8").format(
        name=name,
        about=ABOUT[name],
        preset=MODELS[name],
        sound_rows="\n".join(sounds),
        real_rows="\n".join(real),
        gate="It has no gate." if gate is None else f"Mean visual gate on the test clips: {gate:.3f}.",
        machine=f"{platform.machine()}, {os.cpu_count()} CPU cores shared with other work",
        date=date.today().isoformat(),
        sets=SETS,
        result={key.replace(" ", "_"): value for key, value in result.items()},
        **facts,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    seconds = json.loads((args.work / "times.json").read_text())
    minutes = {k: v / 60 for k, v in seconds.items()}
    towers = json.loads((args.work / "towers-test.json").read_text())
    _, seed, folds = SETS["train"]
    bank = World(seed, recordings=args.recordings, folds=folds, licenses=LICENSES).recordings
    assert bank is not None
    ASSETS.mkdir(parents=True, exist_ok=True)
    used = [bank.rows[name] for names in bank.categories.values() for name in names]
    with (ASSETS / "RECORDINGS.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file", "fold", "category", "title", "author", "license", "source"])
        writer.writeheader()
        writer.writerows(sorted(used, key=lambda row: row["file"]))
    for name in MODELS:
        if not (args.work / name / "best").is_dir():
            print(f"{name}: not trained, left out")
            continue
        trained = load_checkpoint(args.work / name / "best")
        metadata = {**trained.metadata, "about": ABOUT[name]}
        place = ASSETS / name
        save_checkpoint(place, trained.model, trained.tokenizer, trained.features, metadata, torch.float16)
        packaged = load_checkpoint(place)  # what is shipped is what is scored
        result = score(packaged, Store(args.work / "test"), args.recordings, SETS["test"][1])
        (args.work / f"scores-{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False))
        megabytes = (place / "model.safetensors").stat().st_size / 1e6
        features, counts = packaged.features, parameter_counts(packaged.model)
        pictures = f"{features['frames']} frames of {features['image_size']} pixels, spread over them"
        facts = {
            "parameters": counts["total"] / 1e6,
            "parts": ", ".join(
                f"{part} {n / 1e6:.2f} M" for part, n in counts.items() if n and part != "total"
            ),
            "megabytes": megabytes,
            "eyes": f"looks at {pictures}" if packaged.model.has_picture else "does not look",
            "recordings": len(used),
            "metadata": metadata,
            "minutes": {"captioner": minutes[name], **minutes},
            "towers": {key.replace(" ", "_"): value for key, value in towers.items()},
            "tower_ap": towers["by sound"],
        }
        text = card(name, result, facts)
        (place / "README.md").write_text(text, "utf-8")
        keys = ("recall", "precision", "source named when only the picture tells", "recordings recall")
        print(
            f"{name}: {megabytes:.1f} MB; " + ", ".join(f"{key} {result[key]:.1%}" for key in keys),
            flush=True,
        )


if __name__ == "__main__":
    main()
