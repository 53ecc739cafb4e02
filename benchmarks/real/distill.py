"""Fine-tunes the classifier of YAMNet on the outputs of a better tagger (`teacher.py`) and on labels of recordings.

    python benchmarks/real/distill.py W --teacher mn04_as_mAP_432.pt --teacher-classes class_labels_indices.csv

W contains `recordings.csv` (columns path, source, role, labels), `yamnet.safetensors`, `yamnet_classes.csv` and
`embeddings.npz` (`listen.embed`). Only recordings of role `train` are used for training; those of role `exam` are never
read. The sources form four groups, and a clip has sounds of one group only. This allows cross-validation: classifiers
trained without a group are evaluated on it to choose settings, and tag its clips for the captioner (`recorded.py`).

    cache   embeddings and teacher logits of clips (`soundscapes.py`)    W/ear/clips/*.npz, teacher.npz
    train   the classifier, and one classifier per held-out group        W/ear.safetensors, ear_folds.safetensors
    report  a comparison of all classifiers                              W/distill_report.md

The student's score of a class in a clip is the root mean square of its patches' probabilities, as in
`evacap_cli.model.tag_encoder`. The soft targets are the teacher's probabilities, raised for known labels. Two
regularisers preserve the other classes: the distance to YAMNet's outputs in every patch, and the distance to its
weights.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from listen import FEATURES, embedding, load_ear
from safetensors.torch import load_file, save_file
from soundscapes import SAMPLES, Sound, Soundscapes, groups_of, labels_of, read_recordings
from teacher import RATE, Teacher, read_classes, read_sound
from torch import Tensor, nn
from torchaudio.functional import resample

from evacap_cli.features import fbank

SHARD = 32  # clips per file
GROUPS = 4
TOPS = (1, 3, 5)


@dataclass
class Examples:
    """Training examples: embeddings (N, P, 1024) float16, teacher logits (N, C) float16, labels (N, C) bool, and the
    group and source of each clip."""

    embeddings: Tensor
    teacher: Tensor
    labels: Tensor
    group: Tensor
    source: np.ndarray

    def __getitem__(self, rows: Tensor) -> Examples:
        return Examples(
            self.embeddings[rows],
            self.teacher[rows],
            self.labels[rows],
            self.group[rows],
            self.source[rows.numpy()],
        )

    @staticmethod
    def together(parts: Sequence[Examples]) -> Examples:
        return Examples(
            torch.cat([p.embeddings for p in parts]), torch.cat([p.teacher for p in parts]),
            torch.cat([p.labels for p in parts]), torch.cat([p.group for p in parts]),
            np.concatenate([p.source for p in parts]),
        )  # fmt: skip


# -- cache -------------------------------------------------------------------------------------------------------


def cache(options: argparse.Namespace) -> None:
    """Computes the teacher's logits of all recordings, then clips until their number or the time limit is reached, in
    single-threaded processes."""
    end = time.time() + 60 * options.cache_minutes
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_cache_part, args=(options, part, end)) for part in range(options.processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a process that caches clips failed")


@torch.inference_mode()
def _cache_part(options: argparse.Namespace, part: int, end: float) -> None:
    torch.set_num_threads(1)
    ear, teacher = load_ear(options.W / "yamnet.safetensors"), Teacher.load(options.teacher)
    theirs = {mid: i for i, (mid, _) in enumerate(read_classes(options.teacher_classes))}
    columns = [theirs[mid] for mid, _ in read_classes(options.W / "yamnet_classes.csv")]
    target = options.W / "ear" / "teacher.npz"
    if part == 0 and not target.exists():
        _save(target, **_taught(options.W, teacher, columns))
    train = read_recordings(options.W / "recordings.csv", "train")
    group = groups_of(train, GROUPS)
    scapes = [Soundscapes([r for r in train if group[r.source] == g], options.seed) for g in range(GROUPS)]
    for number in range(part, -(-options.clips // SHARD), options.processes):
        if time.time() > end:
            break
        target = options.W / "ear" / "clips" / f"{number:05}.npz"
        if not target.exists():
            made = [scapes[number % GROUPS].make(number * SHARD + i) for i in range(SHARD)]
            waves = torch.from_numpy(np.stack([clip for clip, _ in made]))
            embedded = torch.cat([
                embedding(fbank(resample(wave, RATE, FEATURES.sample_rate), FEATURES), ear)
                for wave in waves.split(8)
            ])  # fmt: skip
            logits = torch.cat([teacher(wave)[:, columns] for wave in waves.split(8)])
            sounds = [json.dumps([asdict(sound) for sound in sounds]) for _, sounds in made]
            _save(
                target,
                embeddings=embedded.half().numpy(),
                teacher=logits.half().numpy(),
                sounds=np.array(sounds),
            )


def _taught(W: Path, teacher: Teacher, columns: list[int]) -> dict[str, np.ndarray]:
    """The teacher's logits of all recordings of roles `train` and `check`."""
    paths, logits = [], []
    for role in ("train", "check"):
        for recording in read_recordings(W / "recordings.csv", role):
            try:
                sound = _loudest(read_sound(recording.path))
            except (av.FFmpegError, IndexError, ValueError):
                continue
            if len(sound) >= RATE // 40:
                wave = torch.from_numpy(np.resize(sound, (1, SAMPLES)))
                paths.append(recording.path)
                logits.append(teacher(wave)[0, columns].half().numpy())
    return {"paths": np.array(paths), "logits": np.stack(logits)}


def _loudest(sound: np.ndarray) -> np.ndarray:
    """The 10 s with the most energy of a longer sound (step 0.1 s), as the captioner selects them."""
    if len(sound) <= SAMPLES:
        return sound
    step = RATE // 10
    energy = np.square(sound[: len(sound) // step * step]).reshape(-1, step).sum(axis=1, dtype=np.float64)
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    start = int(np.argmax(sums[100:] - sums[:-100])) * step
    return sound[start : start + SAMPLES]


def _save(target: Path, **values: np.ndarray) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    with open(part, "wb") as file:
        np.savez(file, **values)
    part.rename(target)


# -- what was cached -----------------------------------------------------------------------------------------------


def load_clips(W: Path) -> tuple[Examples, list[list[Sound]]]:
    """Reads the cached clips and the sounds in each."""
    index = {name: i for i, (_, name) in enumerate(read_classes(W / "yamnet_classes.csv"))}
    parts, sounds = [], []
    for path in sorted((W / "ear" / "clips").glob("*.npz")):
        with np.load(path) as values:
            known = [[Sound(tuple(s["labels"]), s["level"], s["part"]) for s in json.loads(text)]
                     for text in values["sounds"]]  # fmt: skip
            parts.append(Examples(
                torch.from_numpy(values["embeddings"]), torch.from_numpy(values["teacher"]),
                _labelled((labels_of(clip) for clip in known), len(known), index),
                torch.full((len(known),), int(path.stem) % GROUPS), np.full(len(known), "clips"),
            ))  # fmt: skip
            sounds += known
    if not parts:
        raise SystemExit(f"{W / 'ear' / 'clips'}: no clips; run the stage `cache` first")
    return Examples.together(parts), sounds


def load_recordings(W: Path, role: str) -> tuple[Examples, list[str]]:
    """The labelled recordings of a role, and their paths."""
    index = {name: i for i, (_, name) in enumerate(read_classes(W / "yamnet_classes.csv"))}
    with np.load(W / "ear" / "teacher.npz") as values:
        taught = dict(zip(values["paths"].tolist(), values["logits"], strict=True))
    with np.load(W / "embeddings.npz") as values:
        parts = np.split(values["values"], values["ends"][:-1])
        embedded = dict(zip(values["paths"].tolist(), parts, strict=True))
    group = groups_of(read_recordings(W / "recordings.csv", "train"), GROUPS)
    rows = [r for r in read_recordings(W / "recordings.csv", role)
            if r.labels and r.path in taught and r.path in embedded]  # fmt: skip
    return Examples(
        torch.from_numpy(np.stack([embedded[r.path] for r in rows])),
        torch.from_numpy(np.stack([taught[r.path] for r in rows])),
        _labelled((r.labels for r in rows), len(rows), index),
        torch.tensor([group.get(r.source, -1) for r in rows]),
        np.array([r.source for r in rows]),
    ), [r.path for r in rows]  # fmt: skip


def _labelled(labels: Iterable[Iterable[str]], count: int, index: dict[str, int]) -> Tensor:
    found = torch.zeros(count, len(index), dtype=torch.bool)
    for row, names in zip(found, labels, strict=True):
        row[[index[name] for name in names if name in index]] = True
    return found


# -- train -------------------------------------------------------------------------------------------------------


def clip_scores(logits: Tensor) -> Tensor:
    """Clip scores (B, C) of patch logits (B, P, C)."""
    return logits.float().sigmoid().square().mean(dim=1).clamp(1e-12).sqrt()


def learn(examples: Examples, start: nn.Linear, options: argparse.Namespace) -> nn.Linear:
    """Trains a classifier, initialised with `start`, on the examples. Each epoch uses every other patch."""
    classifier = nn.Linear(start.in_features, start.out_features)
    classifier.load_state_dict(start.state_dict())
    first = [p.detach().clone() for p in classifier.parameters()]
    optimiser = torch.optim.Adam(classifier.parameters(), lr=options.lr)
    targets = examples.teacher.float().sigmoid()
    targets += options.label_share * (1 - targets) * examples.labels
    steps = options.epochs * -(-len(targets) // options.batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, steps)
    for epoch in range(options.epochs):
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(options.seed + epoch))
        for batch in order.split(options.batch):
            embedded = examples.embeddings[batch, epoch % 2 :: 2].float()
            with torch.no_grad():
                own = start(embedded).sigmoid()
            logits = classifier(embedded)
            loss = F.binary_cross_entropy(clip_scores(logits), targets[batch], reduction="sum") / len(batch)
            pull = F.binary_cross_entropy_with_logits(logits, own, reduction="none").sum(-1).mean()
            drift = sum((p - q).square().sum() for p, q in zip(classifier.parameters(), first, strict=True))
            optimiser.zero_grad()
            (loss + options.pull * pull + options.weight_pull * drift).backward()
            optimiser.step()
            schedule.step()
    return classifier.requires_grad_(False)


@torch.inference_mode()
def heard_scores(classifier: nn.Linear, embeddings: Tensor) -> Tensor:
    return torch.cat([clip_scores(classifier(part.float())) for part in embeddings.split(64)])


def train(options: argparse.Namespace) -> None:
    """Trains the classifiers of the folds and the final classifier. `--only-folds` skips the latter."""
    torch.set_num_threads(options.processes)
    ear = load_ear(options.W / "yamnet.safetensors").requires_grad_(False)
    examples = Examples.together([load_clips(options.W)[0], load_recordings(options.W, "train")[0]])
    folds = {}
    for g in range(GROUPS):
        without = learn(examples[(examples.group != g).nonzero()[:, 0]], ear.classifier, options)
        folds |= {f"{g}.{name}": value for name, value in without.state_dict().items()}
    save_file(folds, options.W / "ear_folds.safetensors")
    if not options.only_folds:
        ear.classifier = learn(examples, ear.classifier, options)
        state = {name: value.contiguous() for name, value in ear.state_dict().items()}
        save_file(state, options.W / "ear.safetensors")


def load_folds(W: Path) -> list[nn.Linear]:
    """For each group, the classifier that was trained on the other groups."""
    state = load_file(W / "ear_folds.safetensors")
    folds = []
    for g in range(GROUPS):
        weight = state[f"{g}.weight"]
        fold = nn.Linear(weight.shape[1], weight.shape[0])
        fold.load_state_dict({"weight": weight, "bias": state[f"{g}.bias"]})
        folds.append(fold.requires_grad_(False))
    return folds


# -- report ------------------------------------------------------------------------------------------------------


def hits(scores: Tensor, labels: Tensor, source: np.ndarray) -> dict[str, list[float]]:
    """Per source and for `all`: the number of rows, the shares of rows with an accepted label among the top 1, 3 and 5
    tags, the mean rank of the best accepted label and the mean of 1 / rank.
    """
    best = torch.where(labels, scores, -1.0).amax(dim=1, keepdim=True)
    ranks = (1 + (scores > best).sum(dim=1)).float().numpy()
    groups: dict[str, list[float]] = defaultdict(list)
    for name, rank in zip(source.tolist(), ranks.tolist(), strict=True):
        groups[name].append(rank)
        groups["all"].append(rank)
    table = {}
    for name, found in groups.items():
        r = np.array(found)
        shares = [float((r <= k).mean()) for k in TOPS]
        table[name] = [len(r), *shares, float(r.mean()), float((1 / r).mean())]
    return table


def report(options: argparse.Namespace) -> None:
    """Evaluates all classifiers on recordings of held-out sources and on check recordings."""
    plain, folds = load_ear(options.W / "yamnet.safetensors").classifier, load_folds(options.W)
    known = load_recordings(options.W, "train")[0]
    held_out = torch.zeros(known.labels.shape)
    for g, fold in enumerate(folds):
        rows = (known.group == g).nonzero()[:, 0]
        held_out[rows] = heard_scores(fold, known.embeddings[rows])
    lines = _table("Recordings that teach, each heard by a classifier that did not learn from its source", known,
                   plain, {"distilled": held_out}, ("esc10",))  # fmt: skip
    path = options.W / "ear.safetensors"
    if path.exists() and not options.only_folds:
        check = load_recordings(options.W, "check")[0]
        ours = heard_scores(load_ear(path).classifier, check.embeddings)
        lines += _table("Check recordings", check, plain, {"distilled": ours}, ("real-videos",))
    (options.W / "distill_report.md").write_text("\n".join(["# Distillation", *lines]) + "\n")
    print("\n".join(lines))


def _table(
    title: str, examples: Examples, plain: nn.Linear, ours: dict[str, Tensor], shown: Sequence[str]
) -> list[str]:
    yamnet, teacher = heard_scores(plain, examples.embeddings), examples.teacher.float().sigmoid()
    scores = {"plain YAMNet": yamnet, "teacher": teacher, "mean of both": (yamnet + teacher) / 2, **ours}
    lines = ["", f"## {title}", "", "| listener | source | rows | top 1 | top 3 | top 5 | mean rank | 1 / rank |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, score in scores.items():
        table = hits(score, examples.labels, examples.source)
        for source in ("all", *shown):
            rows, *shares, rank, reciprocal = table[source]
            cells = " | ".join(f"{100 * share:.1f}" for share in shares)
            lines.append(f"| {name} | {source} | {rows:.0f} | {cells} | {rank:.1f} | {reciprocal:.3f} |")
    top = yamnet.topk(5, dim=1).indices
    for name, score in ours.items():
        kept = (score.topk(10, dim=1).indices[:, :, None] == top[:, None, :]).any(dim=1).float().mean()
        lines += [
            "",
            f"Of plain YAMNet's top 5 tags, {100 * float(kept):.1f} % are among the top 10 of {name}.",
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("W", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument(
        "--teacher-classes", type=Path, required=True, help="AudioSet's class_labels_indices.csv"
    )
    parser.add_argument("--stages", default="cache,train,report")
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--cache-minutes", type=float, default=20.0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--pull", type=float, default=0.03, help="weight of the distance to YAMNet's outputs")
    parser.add_argument(
        "--weight-pull", type=float, default=0.01, help="weight of the squared distance to YAMNet's weights"
    )
    parser.add_argument(
        "--label-share", type=float, default=0.9, help="factor by which labels raise targets towards 1"
    )
    parser.add_argument("--only-folds", action="store_true", help="train only the folds, to try settings")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    stages = {"cache": cache, "train": train, "report": report}
    for stage in options.stages.split(","):
        stages[stage](options)


if __name__ == "__main__":
    main()
