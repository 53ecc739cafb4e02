"""Small folders as evaluate, robustness, speed and train write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from evacap_cli.tasks.evaluation import file_name
from evacap_cli.tasks.training.config import read_config

Captions = dict[str, tuple[str, str, str, str, str]]
CAPTIONS: Captions = {
    "a": ("a dog barks", "a cat", "dog", "0.5", "0.9"),
    "b": ("rain", "rain", "rain", "", ""),
}
"""Of each clip: caption, caption of the changed clip, references, and the gate of both."""


def sweep_folder(
    folder: Path, cider: float = 0.6, model: str = "ours", captions: Captions = CAPTIONS, store: str = "s"
) -> Path:
    """As `evacap robustness` writes it. The picture of every changed clip is that of the last clip."""
    folder.mkdir()
    points = [
        {"at": at, "values": {"CIDEr": cider - at / 10}, "intervals": {"CIDEr": [cider - 0.2, cider]},
         "kept": {"CIDEr": 1 - at / 10} if at else {}, "kept_intervals": {}, "paper": {"CIDEr": 0.65}, "by_seed": []}
        for at in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    described = {"name": model, "preset": "evacap-base", "followed": {}, "told_apart": {"gate": 0.9},
                 "told_apart_intervals": {"gate": [0.8, 0.95]}, "by_kind": {},
                 "reliability": [[0.2, 0.1, 0, 0.3], [0.8, 0.9, 0.7, 1]],
                 "unavailable": {}, "seconds": {}, "points": points}  # fmt: skip
    made = {"perturb": "shuffle", "points": [0, 0.5, 1], "clips": len(captions), "id_hash": "ab", "store": store,
            "models": [described], "pairings": [{"seed": 0}]}  # fmt: skip
    (folder / "robustness.json").write_text(json.dumps(made))
    names = ("own", "changed", "references", "gate, as it is", "gate, changed")
    donor = list(captions)[-1]
    rows = [
        {"model": model, "key": key, "donor": donor, **dict(zip(names, row, strict=True))}
        for key, row in captions.items()
    ]
    write_csv(folder / "clips.csv", rows)
    return folder


def evaluated_folder(folder: Path, keys: Sequence[str], store: str, models: Sequence[str] = ("x",)) -> Path:
    """As `evacap evaluate` writes it. The last model has the same caption for every clip."""
    folder.mkdir()
    described = [
        {"model": model, "parameters": 10**6, "clips": len(keys), "id_hash": "ab", "metrics": {"CIDEr": 0.5 + i / 10},
         "intervals": {"CIDEr": [0.4, 0.7]}, "paper": {"method": "Proposed", "metrics": {"CIDEr": 0.649}}}
        for i, model in enumerate(models)
    ]  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps({"models": described, "store": store}))
    for model in models:
        write_csv(folder / f"predictions-{file_name(model)}.csv", [
            {"key": key, "caption": "a dog" if model == models[-1] else key, "CIDEr": "0.25"} for key in keys
        ])  # fmt: skip
    return folder


def speed_folder(folder: Path, model: str = "evacap-base") -> Path:
    """As `evacap speed` writes it."""
    folder.mkdir()
    rows = [
        {"model": model, "fusion": "f", "preset": "evacap-base", "frames": frames, "decoding": "cached",
         "seconds": {"fuse": 0.5, "generate": 1.5, "all": 2.0}, "raw": [{"all": 1.9}, {"all": 2.2}],
         "to_audio_only": 1.1, "paper": 1.2}
        for frames in (1, 18)
    ]  # fmt: skip
    about = {
        "device": "cpu",
        "processor": model,
        "threads": 1,
        "precision": "fp32",
        "torch": "2",
        "date": "d",
    }
    options = {"batch_size": 1, "beam": 4, "words": 20}
    (folder / "speed.json").write_text(json.dumps({"options": options, "environment": about, "rows": rows}))
    return folder


def run_folder(
    folder: Path, overrides: dict[str, float] | None = None, clips: Sequence[str] = ("a",)
) -> Path:
    """As `evacap train` writes it: a run of the preset evacap-tiny with two evaluations, killed while it logged."""
    folder.mkdir()

    def samples(caption: str) -> list[dict[str, object]]:
        return [
            {"clip": clip, "caption": caption, "reference": "a dog barks", "gate": 0.9, "gate_shuffled": 0.2}
            for clip in clips
        ]

    log = [
        {"step": 1, "caption": 4.0, "lr": 0.1, "gate_matched": 0.5, "gate_shuffled": 0.4},
        {
            "step": 2,
            "caption": 3.0,
            "lr": 0.1,
            "validation": 3.5,
            "sample_gate": 0.9,
            "samples": samples("a cat"),
        },
        {"step": 4, "caption": 2.0, "lr": 0.1, "validation": 2.5, "samples": samples("a dog barks")},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log) + '{"step": 5, "cap')
    (folder / "last").mkdir()
    config = read_config("evacap-tiny", [f"training.{n}={v}" for n, v in (overrides or {}).items()]).to_dict()
    metadata = {"preset": "evacap-tiny", "training": config.pop("training")}
    (folder / "last" / "config.yaml").write_text(yaml.safe_dump({**config, "metadata": metadata}))
    return folder


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
