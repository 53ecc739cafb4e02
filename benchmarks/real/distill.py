"""Fine-tunes the classifier of YAMNet, or its last blocks, to hear what a better tagger (`teacher.py`) hears.

    python benchmarks/real/distill.py W --teacher mn04_as_mAP_432.pt --teacher-classes class_labels_indices.csv

W holds `recordings.csv` (columns path, source, role, labels) and `yamnet.safetensors` and `yamnet_classes.csv` of
`convert_yamnet.py`. Only recordings of role `train` make clips; those of role `check` choose the epoch; those of role
`exam` are never opened. Stages, each of which goes on where it was interrupted:

    cache   makes clips (`soundscapes.py`), and keeps what goes into the blocks that are trained, YAMNet's own logits
            and the teacher's, as W/ear/clips/*.npz (every other patch) and W/ear/check/*.npz
    train   W/ear/epoch-*.safetensors and W/ear/log.json
    report  W/ear.safetensors, the best epoch or, if none is better, plain YAMNet; W/distill_report.md

The student's score of a class in a clip is the root mean square of its patches' probabilities, as in
`evacap_cli.model.tags`. Soft targets: the teacher's probabilities, raised for known labels. Breadth is kept by a pull
to YAMNet's own answers in every patch and by one to its weights.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from soundscapes import SAMPLES, Soundscapes, read_recordings
from teacher import RATE, Teacher, read_classes, read_sound
from torch import Tensor
from torchaudio.functional import resample

from evacap_cli.features import FeatureSettings, fbank
from evacap_cli.model.yamnet import YAMNet, patches

SETTINGS = FeatureSettings(
    spectrogram="yamnet", padding="repeat", mel_bins=64, audio_frames=1008, fbank_mean=0.0, fbank_std=1.0
)
SHARD = 32  # clips a file
TOPS = (1, 3, 5)


class Listener:
    """YAMNet and the teacher, side by side."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.first = options.first_block
        self.yamnet = load_yamnet(options.W / "yamnet.safetensors")
        self.teacher = Teacher.load(options.teacher)
        theirs = {mid: i for i, (mid, _) in enumerate(read_classes(options.teacher_classes))}
        ours = read_classes(options.W / "yamnet_classes.csv")
        self.columns = [theirs[mid] for mid, _ in ours]
        self.index = {name: i for i, (_, name) in enumerate(ours)}

    @torch.inference_mode()
    def hear(
        self, sounds: np.ndarray, labels: Sequence[Iterable[str]], step: int = 1
    ) -> dict[str, np.ndarray]:
        """sounds: (B, S) at 32 kHz. Returns maps (B, W, C, H, F), plain (B, W, 521), teacher (B, 521) and labels (B,
        521), bool; the others are float16. W: every `step`-th of the 20 patches.
        """
        waves = torch.from_numpy(sounds)
        log_mel = fbank(resample(waves, RATE, 16_000), SETTINGS)
        heard = patches(log_mel).unflatten(0, (len(sounds), -1))[:, ::step].flatten(0, 1)
        maps = self.yamnet.trunk(heard, end=self.first)
        plain = self.yamnet.classify(self.yamnet.trunk(maps, start=self.first))
        if self.first == len(self.yamnet.blocks):  # the classifier takes nothing but the mean
            maps = maps.mean(dim=(2, 3), keepdim=True)
        logits = self.teacher(waves)[:, self.columns]
        positive = np.zeros((len(sounds), len(self.index)), bool)
        for row, names in zip(positive, labels, strict=True):
            row[[self.index[name] for name in names if name in self.index]] = True
        return {
            "maps": maps.unflatten(0, (len(sounds), -1)).contiguous().half().numpy(),
            "plain": plain.unflatten(0, (len(sounds), -1)).half().numpy(),
            "teacher": logits.half().numpy(),
            "labels": positive,
        }


def load_yamnet(path: Path) -> YAMNet:
    yamnet = YAMNet()
    yamnet.load_state_dict(load_file(path))
    return yamnet.eval()


# -- cache -------------------------------------------------------------------------------------------------------


def cache(options: argparse.Namespace) -> None:
    """Check recordings, then clips until there are enough or the time is over, in processes of one thread."""
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


def _cache_part(options: argparse.Namespace, part: int, end: float) -> None:
    torch.set_num_threads(1)
    listener = Listener(options)
    checks = [r for r in read_recordings(options.W / "recordings.csv", "check") if r.labels]
    groups = [checks[i : i + SHARD] for i in range(0, len(checks), SHARD)]
    for number, group in list(enumerate(groups))[part :: options.processes]:
        target = options.W / "ear" / "check" / f"{number:05}.npz"
        if not target.exists():
            heard, sources = [], []
            for recording in group:
                try:
                    sound = _loudest(read_sound(recording.path))
                except (av.FFmpegError, IndexError, ValueError):
                    continue
                if len(sound) >= RATE // 40:
                    heard.append(listener.hear(np.resize(sound, (1, SAMPLES)), [recording.labels]))
                    sources.append(recording.source)
            _save(target, heard, sources=np.array(sources))
    scapes = Soundscapes(read_recordings(options.W / "recordings.csv", "train"), options.seed)
    for number in range(part, -(-options.clips // SHARD), options.processes):
        if time.time() > end:
            break
        target = options.W / "ear" / "clips" / f"{number:05}.npz"
        if not target.exists():
            made = [scapes.make(number * SHARD + i) for i in range(SHARD)]
            eights = [made[i : i + 8] for i in range(0, SHARD, 8)]
            heard = [
                listener.hear(
                    np.stack([sound for sound, _ in eight]), [labels for _, labels in eight], step=2
                )
                for eight in eights
            ]
            _save(target, heard)


def _loudest(sound: np.ndarray) -> np.ndarray:
    """The 10 s with most energy of a longer sound, to 0.1 s, as the captioner takes them."""
    if len(sound) <= SAMPLES:
        return sound
    step = RATE // 10
    energy = np.square(sound[: len(sound) // step * step]).reshape(-1, step).sum(axis=1, dtype=np.float64)
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    start = int(np.argmax(sums[100:] - sums[:-100])) * step
    return sound[start : start + SAMPLES]


def _save(target: Path, heard: Sequence[dict[str, np.ndarray]], **more: np.ndarray) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    with open(part, "wb") as file:
        np.savez(file, **{name: np.concatenate([h[name] for h in heard]) for name in heard[0]}, **more)
    part.rename(target)


def load_cache(folder: Path) -> dict[str, Any]:
    """All shards of a folder, one after the other: tensors, and `sources` as an array of strings."""
    shards = [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]
    if not shards:
        raise SystemExit(f"{folder}: no clips; run the stage `cache`")
    found: dict[str, Any] = {}
    for name in list(shards[0]):
        parts = [shard.pop(name) for shard in shards]
        whole = np.concatenate(parts)
        found[name] = whole if name == "sources" else torch.from_numpy(whole)
    return found


# -- train -------------------------------------------------------------------------------------------------------


def clip_scores(logits: Tensor) -> Tensor:
    """(B, W, 521) logits of patches to (B, 521) scores of clips."""
    return logits.float().sigmoid().square().mean(dim=1).clamp(1e-12).sqrt()


def student_logits(yamnet: YAMNet, maps: Tensor, first: int) -> Tensor:
    """(B, W, 521) logits of maps (B, W, C, H, F), the input of block `first`."""
    flat = maps.flatten(0, 1).float().contiguous(memory_format=torch.channels_last)
    return yamnet.classify(yamnet.trunk(flat, start=first)).unflatten(0, maps.shape[:2])


@torch.inference_mode()
def student_scores(yamnet: YAMNet, maps: Tensor, first: int) -> Tensor:
    return torch.cat([clip_scores(student_logits(yamnet, part, first)) for part in maps.split(32)])


def hits(scores: Tensor, check: dict[str, Any]) -> dict[str, list[float]]:
    """Per source and for `all`: the number of rows, the shares of rows with an accepted label among the top 1, 3 and 5
    tags, the mean rank of the best accepted label and the mean of 1 / rank.
    """
    best = torch.where(check["labels"], scores, -1.0).amax(dim=1, keepdim=True)
    ranks = 1 + (scores > best).sum(dim=1)
    known = check["labels"].any(dim=1)
    groups: dict[str, list[float]] = defaultdict(list)
    for source, rank, labelled in zip(check["sources"], ranks.tolist(), known.tolist(), strict=True):
        if labelled:
            groups[str(source)].append(rank)
            groups["all"].append(rank)
    table = {}
    for source, found in groups.items():
        r = np.array(found, float)
        table[source] = [
            len(r),
            *(float((r <= k).mean()) for k in TOPS),
            float(r.mean()),
            float((1 / r).mean()),
        ]
    return table


def figure_of_merit(table: dict[str, list[float]]) -> float:
    """What the epoch is chosen by: the mean of 1 / rank and of the shares, each over all rows."""
    _, *shares, _, reciprocal = table["all"]
    return (sum(shares) + reciprocal) / (len(shares) + 1)


def train(options: argparse.Namespace) -> None:
    """Epochs until `--epochs` or `--train-minutes`; each is kept, and its figures go to log.json."""
    end = time.time() + 60 * options.train_minutes
    torch.set_num_threads(options.processes)
    folder = options.W / "ear"
    clips, check = load_cache(folder / "clips"), load_cache(folder / "check")
    yamnet = load_yamnet(options.W / "yamnet.safetensors").requires_grad_(False)
    trained = {
        f"{name}.{key}": parameter
        for name, part in [
            *((f"blocks.{i}", yamnet.blocks[i]) for i in range(options.first_block, len(yamnet.blocks))),
            ("classifier", yamnet.classifier),
        ]
        for key, parameter in part.named_parameters()
    }
    start = {name: parameter.clone() for name, parameter in trained.items()}
    optimiser = torch.optim.Adam(trained.values(), lr=options.lr)
    targets = clips["teacher"].float().sigmoid()
    targets += options.label_share * (1 - targets) * clips["labels"]
    log_path = folder / "log.json"
    log: list[dict[str, Any]] = json.loads(log_path.read_text()) if log_path.exists() else []
    if log:
        state = torch.load(folder / "state.pt", weights_only=True)
        yamnet.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    for parameter in trained.values():
        parameter.requires_grad_(True)

    for epoch in range(len(log) + 1, options.epochs + 1):
        began, total, seen = time.time(), 0.0, 0
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(options.seed + epoch))
        for batch in order.split(options.batch):
            logits = student_logits(yamnet, clips["maps"][batch], options.first_block)
            own = clips["plain"][batch].float().sigmoid()
            loss = F.binary_cross_entropy(clip_scores(logits), targets[batch], reduction="sum") / len(batch)
            pull = F.binary_cross_entropy_with_logits(logits, own, reduction="none").sum(-1).mean()
            drift = sum((trained[name] - start[name]).square().sum() for name in trained)
            optimiser.zero_grad()
            (loss + options.pull * pull + options.weight_pull * drift).backward()
            optimiser.step()
            total, seen = total + loss.item() * len(batch), seen + len(batch)
        table = hits(student_scores(yamnet, check["maps"], options.first_block), check)
        state = {name: value.contiguous() for name, value in yamnet.state_dict().items()}
        save_file(state, folder / f"epoch-{epoch:02}.safetensors")
        torch.save({"model": state, "optimiser": optimiser.state_dict()}, folder / "state.pt")
        log.append({"epoch": epoch, "loss": total / seen, "merit": figure_of_merit(table), "table": table})
        log_path.write_text(json.dumps(log))
        print(f"epoch {epoch}: loss {total / seen:.3f}, merit {log[-1]['merit']:.4f}, {time.time() - began:.0f} s",
              [round(x, 3) for x in table["all"]], flush=True)  # fmt: skip
        if time.time() > end:
            break


# -- report ------------------------------------------------------------------------------------------------------


def report(options: argparse.Namespace) -> None:
    """The best of plain YAMNet and all epochs, by check recordings, and a table of all listeners."""
    check = load_cache(options.W / "ear" / "check")
    plain, teacher = clip_scores(check["plain"]), check["teacher"].float().sigmoid()
    scores = {"plain YAMNet": plain, "teacher": teacher, "mean of both": (plain + teacher) / 2}
    log = json.loads((options.W / "ear" / "log.json").read_text())
    best = max(log, key=lambda entry: entry["merit"])
    target = options.W / "ear.safetensors"
    if best["merit"] <= figure_of_merit(hits(plain, check)):
        target.write_bytes((options.W / "yamnet.safetensors").read_bytes())
        chosen = "No epoch is better than plain YAMNet, which is kept."
    else:
        path = options.W / "ear" / f"epoch-{best['epoch']:02}.safetensors"
        target.write_bytes(path.read_bytes())
        chosen = f"Epoch {best['epoch']} of {len(log)} is kept."
        scores["distilled"] = student_scores(load_yamnet(target), check["maps"], options.first_block)
    top = plain.topk(5, dim=1).indices
    lines = [
        "# Distillation",
        "",
        chosen,
        "",
        "| listener | source | rows | top 1 | top 3 | top 5 | mean rank | 1 / rank |",
    ]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, score in scores.items():
        for source, (rows, *shares, rank, reciprocal) in sorted(hits(score, check).items()):
            cells = [f"{100 * share:.1f}" for share in shares]
            lines.append(
                f"| {name} | {source} | {rows:.0f} | {' | '.join(cells)} | {rank:.1f} | {reciprocal:.3f} |"
            )
    lines.append("")
    for name, score in scores.items():
        kept = (score.topk(10, dim=1).indices[:, :, None] == top[:, None, :]).any(dim=1).float().mean()
        lines.append(
            f"Of plain YAMNet's top 5 tags, {100 * float(kept):.1f} % are among the top 10 of {name}.  "
        )
    (options.W / "distill_report.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


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
    parser.add_argument(
        "--first-block", type=int, default=13, help="of the 13 blocks, the first that is trained; 13: none"
    )
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--cache-minutes", type=float, default=12.0)
    parser.add_argument("--train-minutes", type=float, default=12.0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--pull", type=float, default=1.0, help="weight of YAMNet's own answers")
    parser.add_argument(
        "--weight-pull", type=float, default=0.01, help="weight of the squared way from its weights"
    )
    parser.add_argument(
        "--label-share", type=float, default=0.3, help="how far labels raise targets towards 1"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    stages = {"cache": cache, "train": train, "report": report}
    for stage in options.stages.split(","):
        stages[stage](options)


if __name__ == "__main__":
    main()
