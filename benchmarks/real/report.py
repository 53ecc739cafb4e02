"""Evaluates the packaged models on real recordings, photographs, videos and AudioCaps' test captions.

    python benchmarks/real/report.py WORK --shared SHARED [--out results]

Writes `tables.md`, `results.json` and the section `Results` of the models' cards. WORK is that of `run.py`. What each
set is for: the networks and the simulation were chosen on `real videos` and on recordings of role `check`; `ESC-10,
fold 4` and `scratch` were looked at only here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captions import Event, Scene, Vocabulary, audioset_places, clip_labels
from listen import FEATURES, embed, hear, load_ear, load_eye, read_rows, see
from measure import CaptionedClips, auroc, by_label, caption_clips, naming, unlike
from naming import Judge
from package import ASSETS
from run import choose_pairs
from simulate import FixedClips, Simulation, Statistics

from evacap_cli.metrics.spice_cache import TupleCache
from evacap_cli.metrics.suite import Settings, score_captions
from evacap_cli.model import Checkpoint, load_checkpoint

MODELS = ("demo", "entropy-demo", "avcap-demo", "audio-demo")
METRICS = ("BLEU_4", "METEOR", "CIDEr", "SPICE", "SPIDEr")
DRAWS = 5  # random other pictures for every sound


class Sets:
    """Network outputs and labels of real clips."""

    def __init__(self, work: Path) -> None:
        ear, eye = load_ear(work / "ear.safetensors"), load_eye(work / "eye.safetensors")
        everything = read_rows(work / "recordings.csv")
        rows = [row for row in everything if row["role"] != "train"]
        self.rows = {row["path"]: row for row in rows}
        plain = load_ear(work / "yamnet.safetensors")
        embedded = embed([row["path"] for row in everything], plain, work / "embeddings.npz")
        self.heard = {path: hear(embedded[path], ear.classifier) for path in self.rows if path in embedded}
        videos = [row["path"] for row in rows if row["path"].endswith(".mp4")]
        self.seen = see(
            [row["path"] for row in read_rows(work / "photographs.csv")] + videos, eye, work / "seen.npz"
        )
        self.videos = videos
        self.pairs = choose_pairs([
            row for row in read_rows(work / "real_pairs.csv")
            if row["sound_path"] in self.heard and self.rows[row["sound_path"]]["role"] == "check"
        ])  # fmt: skip

    def role(self, role: str) -> list[str]:
        return [path for path in self.heard if self.rows[path]["role"] == role and self.labels(path)]

    def labels(self, path: str) -> list[str]:
        return [label for label in self.rows[path]["labels"].split(";") if label]


def sounds(model: Checkpoint, sets: Sets, paths: Sequence[str], judge: Judge) -> dict[str, Any]:
    """Evaluates recordings without pictures."""
    captioned = caption_clips(model, [sets.heard[path] for path in paths], [None] * len(paths))
    labels = [sets.labels(path) for path in paths]
    examples = [
        (Path(path).stem, caption, judge.named(caption, names))
        for path, caption, names in zip(paths, captioned.captions, labels, strict=True)
    ]
    return {
        **naming(captioned, labels, judge),
        "by label": by_label(captioned, labels, judge),
        "examples": examples,
    }


def pictures(model: Checkpoint, heard: list[np.ndarray], seen: list[np.ndarray], labels: list[list[str]],
             judge: Judge) -> dict[str, Any]:  # fmt: skip
    """Evaluates clips with their own pictures, without pictures, and with pictures of clips without a common label."""
    own, none = caption_clips(model, heard, seen), caption_clips(model, heard, [None] * len(heard))
    rng = np.random.default_rng(0)
    others: list[CaptionedClips] = [
        caption_clips(model, heard, [seen[i] for i in unlike(labels, rng)]) for _ in range(DRAWS)
    ]
    named = {
        name: naming(captioned, labels, judge)["named"] for name, captioned in (("own", own), ("none", none))
    }
    named["other"] = float(np.mean([naming(captioned, labels, judge)["named"] for captioned in others]))
    found: dict[str, Any] = {
        "clips": len(heard),
        "named": named,
        "speech and repeats": naming(own, labels, judge),
    }
    for name, sign in (("evidence", 1), ("gate", 1), ("entropy", -1)):
        values = getattr(own, name) * sign
        if np.isfinite(values).all():
            found[f"AUROC of {name}"] = auroc(
                values, np.concatenate([getattr(o, name) * sign for o in others])
            )
    found["captions"] = [
        (names[0], a, b, c) for names, a, b, c in
        zip(labels, own.captions, none.captions, others[0].captions, strict=True)
    ]  # fmt: skip
    return found


def audiocaps_test(
    model: Checkpoint, shared: Path, statistics: Statistics, cache: Path, limit: int | None
) -> dict[str, Any]:
    """Scores captions of AudioCaps' test clips from simulated tags of their labels, without using the captions."""
    vocabulary = Vocabulary()
    labels = clip_labels(
        shared / "ears" / "audiocaps_audioset_labels.csv.gz", audioset_places(shared, vocabulary)
    )
    references: dict[tuple[str, str], list[str]] = {}
    for row in read_rows(shared / "audiocaps" / "test.csv"):
        references.setdefault((row["youtube_id"], str(int(float(row["start_time"])))), []).append(
            row["caption"]
        )
    keys = [key for key in references if labels.get(key)][:limit]
    scenes = [[Scene("", tuple(Event(label, True, -1) for label in sorted(labels[key])), 1)] for key in keys]
    picture = model.model.has_picture
    fixed = FixedClips(scenes, Simulation(statistics), FEATURES, picture)
    captions = []
    for start in range(0, len(keys), 32):
        batch = fixed.batch(range(start, min(start + 32, len(keys))))
        out = model.model.generate(batch.audio, batch.picture, towers=True)
        captions += [model.tokenizer.decode(tokens) for tokens in out.tokens.tolist()]
    names = [" ".join(key) for key in keys]
    scores = score_captions(
        names, captions, [references[key] for key in keys], Settings(metrics=METRICS), TupleCache(cache)
    )
    return {"clips": len(keys), **scores.values}


def tables(results: dict[str, Any]) -> str:
    lines = [
        f"Measured by `report.py` on {results['date']}, {results['machine']}.",
        "",
        "A sound is named when the caption has a word that belongs to it and to few other sounds (`naming.py`).",
        "",
        "| set | clips | " + " | ".join(results["models"]) + " |",
        "|---|---|" + "---|" * len(results["models"]),
    ]
    for name in ("ESC-10, fold 4", "scratch"):
        rows = [results["models"][model][name] for model in results["models"]]
        for what in ("named", "speech invented", "repeats"):
            cells = " | ".join(f"{row[what]:.3f}" for row in rows)
            lines.append(f"| {name}, sound alone: {what} | {rows[0]['clips']} | {cells} |")
    for name in ("real videos", "pairs of a check recording and a photograph"):
        rows = [results["models"][model][name] for model in results["models"]]
        for what in ("own", "none", "other"):
            cells = " | ".join(f"{row['named'][what]:.3f}" for row in rows)
            lines.append(f"| {name}: named, picture {what} | {rows[0]['clips']} | {cells} |")
        for what in ("evidence", "gate", "entropy"):
            if any(f"AUROC of {what}" in row for row in rows):
                cells = " | ".join(
                    f"{row[f'AUROC of {what}']:.3f}" if f"AUROC of {what}" in row else "-" for row in rows
                )
                lines.append(f"| {name}: AUROC of {what}, own against other | {rows[0]['clips']} | {cells} |")
    rows = [results["models"][model]["AudioCaps test"] for model in results["models"]]
    for what in METRICS:
        cells = " | ".join(f"{row[what]:.3f}" for row in rows)
        lines.append(f"| AudioCaps' test captions from labels: {what} | {rows[0]['clips']} | {cells} |")
    demo = results["models"]["demo"]
    lines += [
        "",
        "## By sound, `demo`, sound alone",
        "",
        "| set | sound | recordings | named |",
        "|---|---|---|---|",
    ]
    for name in ("ESC-10, fold 4", "scratch"):
        lines += [
            f"| {name} | {label} | {n} | {right} |"
            for label, (n, right) in sorted(demo[name]["by label"].items())
        ]
    lines += [
        "",
        "## What `demo` says of scratch's sounds",
        "",
        "| file | caption | named |",
        "|---|---|---|",
    ]
    lines += [
        f"| {stem} | {caption} | {'yes' if right else 'no'} |"
        for stem, caption, right in demo["scratch"]["examples"]
    ]
    lines += ["", "## What `demo` says of the real videos", "",
              "| what sounds | own picture | none | another's |", "|---|---|---|---|"]  # fmt: skip
    lines += [f"| {what} | {a} | {b} | {c} |" for what, a, b, c in demo["real videos"]["captions"]]
    return "\n".join(lines) + "\n"


def card_results(results: dict[str, Any], name: str) -> str:
    """The section `Results` of a model card."""
    found = results["models"][name]
    lines = [
        f"By `benchmarks/real/report.py`, {results['date']}; all numbers: `benchmarks/real/results/tables.md`.",
        "A sound is named when the caption has a word that belongs to it and to few other sounds.",
        "",
        "| set | clips | named |",
        "|---|---|---|",
    ]
    for label, key in (("sounds of the package `scratch`, used neither for training nor to choose settings", "scratch"),
                       ("ESC-10, fold 4; folds 1 to 3 are training data", "ESC-10, fold 4")):  # fmt: skip
        lines.append(f"| {label} | {found[key]['clips']} | {found[key]['named']:.3f} |")
    pictures = {
        "real videos, on which settings were chosen": "real videos",
        "recordings that nothing was learned from, with photographs; the switch is calibrated on them":
            "pairs of a check recording and a photograph",
    }  # fmt: skip
    for label, key in pictures.items():
        for what, picture_name in (
            ("own", "own picture"),
            ("none", "no picture"),
            ("other", "another clip's picture"),
        ):
            row = found[key]
            lines.append(f"| {label}; {picture_name} | {row['clips']} | {row['named'][what]:.3f} |")
    return "\n".join(lines)


def put_results(card: str, section: str) -> str:
    """Replaces the section `Results` of a card."""
    before, rest = card.split("## Results\n", 1)
    after = rest[rest.index("\n## ") :]
    return f"{before}## Results\n{section}\n{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--captions", type=int, help="of AudioCaps' test clips; all by default")
    args = parser.parse_args()
    sets, judge = Sets(args.work), Judge()
    statistics = Statistics.load(args.work / "statistics.npz")
    machine = f"{platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}"
    results: dict[str, Any] = {"date": date.today().isoformat(), "machine": machine, "models": {}}
    videos = [path for path in sets.videos if path in sets.heard]
    cache = args.work / "tuples.sqlite"
    for name in args.models.split(","):
        model = load_checkpoint(name)
        found: dict[str, Any] = {
            "ESC-10, fold 4": sounds(model, sets, sets.role("exam-esc10"), judge),
            "scratch": sounds(model, sets, sets.role("exam"), judge),
            "real videos": pictures(model, [sets.heard[p] for p in videos], [sets.seen[p] for p in videos],
                                    [sets.labels(p) for p in videos], judge),
            "pairs of a check recording and a photograph": pictures(
                model, [sets.heard[row["sound_path"]] for row in sets.pairs],
                [sets.seen[row["photo_path"]] for row in sets.pairs],
                [sets.labels(row["sound_path"]) for row in sets.pairs], judge),
            "AudioCaps test": audiocaps_test(model, args.shared, statistics, cache, args.captions),
        }  # fmt: skip
        results["models"][name] = found
        print(name, {k: v.get("named", v.get("SPIDEr")) for k, v in found.items()}, flush=True)
    args.out.mkdir(exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (args.out / "tables.md").write_text(tables(results), "utf-8")
    for name in results["models"]:
        card = ASSETS / name / "README.md"
        card.write_text(put_results(card.read_text("utf-8"), card_results(results, name)), "utf-8")


if __name__ == "__main__":
    main()
