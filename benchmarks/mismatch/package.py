"""Packages the models trained by `run.py`: fp16 weights, calibration, model cards and the list of recordings.

    python benchmarks/mismatch/package.py --recordings ESC-10 --work WORK

The checkpoints are written to WORK/models. Use them with `evacap caption --model WORK/models/demo`.

All models have the seed whose `evidence` arm has the highest CIDEr on `val`.
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

import arms
import torch
from listening import heard
from scores import fitting
from towers import weights
from world import SETS, world

from evacap_cli.data.store import Store
from evacap_cli.features import FeatureSettings
from evacap_cli.metrics.quick_cider import quick_cider
from evacap_cli.model import Tokenizer, load_checkpoint, load_preset, parameter_counts, save_checkpoint
from evacap_cli.tasks.calibrating import calibrate

MODELS = {
    "demo": "evidence",
    "entropy-demo": "entropy-sms-0.05",
    "avcap-demo": "concat",
    "audio-demo": "audio-only",
}
ABOUT = {
    "demo": "The picture behind a switch on evidence that it belongs to the sound, small; shut, it is `audio-demo`",
    "entropy-demo": "EVACap as printed, small: the picture is let in by a gate on attention entropy",
    "avcap-demo": "AVCap, small: tokens of sound and picture side by side",
    "audio-demo": "Audio only, small: no picture at all",
}


def best_seed(work: Path, store: Store) -> int:
    rows = fitting(store)
    references = {str(row): store.captions(int(row)) for row in rows}

    def cider(seed: int) -> float:
        said = json.loads((work / "said" / "val" / f"evidence-{seed}.json").read_text())["own"]["captions"]
        return quick_cider({str(row): said[row] for row in rows}, references)

    return max(arms.SEEDS, key=cider)


def card(name: str, result: dict[str, Any], facts: dict[str, Any]) -> str:
    """The model card, from the template `card.md` and the measured numbers."""
    by_sound, real = result["by sound"], result["recordings by sound"]
    return (Path(__file__).parent / "card.md").read_text("utf-8").format(
        name=name,
        about=ABOUT[name],
        sound_rows="\n".join(
            f"| {sound} | {row['clips']} | {row['recall']:.2f} | {facts['tower_ap'].get(sound, float('nan')):.2f} |"
            for sound, row in by_sound.items()
        ),
        real_rows="\n".join(f"| {sound} | {row['clips']} | {row['recall']:.2f} |" for sound, row in real.items()),
        gate="It has no gate." if result["gate"] is None else f"Mean visual gate: {result['gate']:.3f}.",
        machine=f"{platform.machine()}, {os.cpu_count()} CPU cores",
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
    models = args.work / "models"
    models.mkdir(exist_ok=True)
    towers = json.loads((args.work / "towers.json").read_text())
    minutes = {k: v / 60 for k, v in json.loads((args.work / "times.json").read_text()).items()}
    known = weights(args.work)
    tokenizer = Tokenizer.load(args.work / "tokenizer.json")
    features = FeatureSettings.from_dict(load_preset("evacap-tiny").features)
    val, test = Store(args.work / "val"), Store(args.work / "test")
    seed = best_seed(args.work, val)
    bank = world("train", args.recordings).recordings
    assert bank is not None
    used = [bank.rows[name] for names in bank.categories.values() for name in names]
    with (models / "RECORDINGS.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file", "fold", "category", "title", "author", "license", "source"])
        writer.writeheader()
        writer.writerows(sorted(used, key=lambda row: row["file"]))
    for name, arm in MODELS.items():
        model = arms.trained(arm, args.work, known, len(tokenizer), seed)
        folder = arms.folder_of(args.work, arm, seed)
        done = json.loads((folder / "done.json").read_text())
        trained = load_checkpoint(folder / "last").metadata
        metadata = {"preset": arms.ARMS[arm].preset, "about": ABOUT[name], "training": trained["training"]}
        frames = features.to_dict()
        save_checkpoint(models / name, model, tokenizer, frames, metadata, torch.float16, f"# {name}\n")
        packaged = load_checkpoint(models / name)  # score the packaged checkpoint
        counts = parameter_counts(packaged.model)  # before the weights are repacked for inference
        place = args.work / f"heard-{name}-{seed}.json"
        if not place.exists():
            result = heard(packaged, test, world("test", args.recordings), args.recordings)
            place.write_text(json.dumps(result, indent=1, ensure_ascii=False))
        result = json.loads(place.read_text())
        facts = {
            "preset": metadata["preset"],
            "parameters": counts["total"] / 1e6,
            "parts": ", ".join(
                f"{part} {n / 1e6:.2f} M" for part, n in counts.items() if n and part != "total"
            ),
            "megabytes": (models / name / "model.safetensors").stat().st_size / 1e6,
            "eyes": f"looks at {features.frames} frames of {features.image_size} pixels, spread over them"
            if packaged.model.has_picture
            else "does not look",
            "recordings": len(used),
            "training": trained["training"],
            "steps": done["steps"],
            "seconds": done["seconds"],
            "after": {
                "words": "the words' end",
                "audio-only": "the words' end; sounds alone keep the words of `audio-demo`",
            }[arms.ARMS[arm].after],
            "minutes": minutes,
            "seed": seed,
            "towers": {key.replace(" ", "_"): value for key, value in towers.items()},
            "tower_ap": towers["by sound"],
        }
        (models / name / "README.md").write_text(card(name, result, facts), "utf-8")
        if packaged.model.has_gate:
            about = f"{len(val)} clips of world {SETS['val'].seed} with fold 4, which it was not trained on"
            calibrate(str(models / name), args.work / "val", about=about)
        keys = ("recall", "precision", "source", "recordings recall", "score when right", "score when wrong")
        print(
            f"{name}: {facts['megabytes']:.1f} MB; " + ", ".join(f"{key} {result[key]:.3f}" for key in keys),
            flush=True,
        )


if __name__ == "__main__":
    main()
