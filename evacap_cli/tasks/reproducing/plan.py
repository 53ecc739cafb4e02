"""The plan of a reproduction: the systems, the sizes at each scale, and the steps in their order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from evacap_cli.errors import UsageError
from evacap_cli.tasks.speed import SpeedOptions

SHARES = (0.0, 0.05, 0.5, 1.0)
"""Shares of shuffled pictures, in training (Table 2) and at test time (Table 3)."""
TABLES = ("table1", "table2", "table3", "table4", "figure2")
FRAMES = (0, 1, 4, 8, 18)


@dataclass(frozen=True)
class System:
    """A row of a table. method: its presets are `METHOD-base` and `METHOD-tiny`. overrides: settings that differ from
    the preset."""

    key: str
    name: str
    method: str
    overrides: tuple[str, ...] = ()

    @property
    def in_paper(self) -> str:
        """The preset that has the paper's numbers."""
        return f"{self.method}-base"


SYSTEMS = {
    system.key: system
    for system in (
        System("audio", "Audio Only", "audio"),
        System("avcap", "AVCap", "avcap"),
        System("vact", "V-ACT", "vact"),
        System("lavcap", "LAVCap", "lavcap"),
        System("evacap", "EVACap (Proposed)", "evacap"),
        System("evacap-no-sms", "EVACap w/o S", "evacap-no-sms"),
        System("evacap-no-entropy", "EVACap w/o E", "evacap-no-entropy"),
        System("evacap-no-sms-no-entropy", "EVACap w/o S&E", "evacap-no-sms-no-entropy"),
        System("evacap-no-gate", "EVACap w/o G", "evacap-no-gate"),
        System("evidence", "Evidence (ours)", "evidence"),
        System("evacap-sms-50", "EVACap, SMS 50 %", "evacap", ("training.sms=0.5",)),
        System("evacap-sms-100", "EVACap, SMS 100 %", "evacap", ("training.sms=1.0",)),
    )
}
MAIN = ("audio", "avcap", "vact", "lavcap", "evacap", "evacap-no-sms", "evidence")
ABLATIONS = ("evacap", "evacap-no-sms", "evacap-no-entropy", "evacap-no-sms-no-entropy", "evacap-no-gate")
SHUFFLED = {0.0: "evacap-no-sms", 0.05: "evacap", 0.5: "evacap-sms-50", 1.0: "evacap-sms-100"}
"""The systems of Table 2 by their share of shuffled pictures."""
ROWS = {
    "table1": MAIN,
    "table2": tuple(SHUFFLED.values()),
    "table3": (*MAIN, *ABLATIONS[2:]),
    "table4": (*ABLATIONS, "evidence"),
}
TIMED = ("audio", "avcap", "vact", "lavcap", "evacap", "evacap-no-entropy", "evacap-no-gate", "evidence")
"""The systems of Figure 2: one per network. Modality shuffling does not change the network."""
AT_18_FRAMES = (
    "features.frames=18",
    "features.fps=2.0",
    "features.window=hamming",
    "model.encoder.frames=18",
)
"""AVCap has 18 frames in the paper and 8 in its public code."""


@dataclass(frozen=True)
class Costs:
    """Estimates for the plan: seconds per clip (training, captioning, scoring, making a clip), per step, and for all of
    `speed`; megabytes of a model and of a clip. `machine`: where they were measured."""

    train: float
    caption: float
    score: float
    make: float
    start: float
    timing: float
    model: float
    clip: float
    machine: str


@dataclass(frozen=True)
class Scale:
    """The sizes of a reproduction. clips: of train, val and test, made by `evacap synth`; None: the stores of the user.
    start_epochs: of the model that all others are initialised from; 0: none. start_init: the packaged model that it
    starts from. epochs: of each system. overrides: settings of all models. donors: seeds of the shuffled pictures."""

    name: str
    size: str
    seeds: tuple[int, ...]
    clips: tuple[int, int, int] | None
    start_epochs: float
    start_init: str
    epochs: float
    overrides: tuple[str, ...]
    donors: tuple[int, ...]
    metrics: str | None
    speed: SpeedOptions
    costs: Costs
    checkpoint: str = "last"
    workers: int = 2
    """Processes that decode and load clips."""

    def preset(self, system: System) -> str:
        return f"{system.method}-{self.size}"

    def settings(self, system: System, seed: int) -> tuple[str, ...]:
        """Settings that replace those of the preset."""
        frames = AT_18_FRAMES if self.size == "base" and system.method in ("avcap", "audio") else ()
        schedule = (f"training.epochs={self.epochs:g}", f"training.seed={seed}")
        return (*frames, *self.overrides, *schedule, *system.overrides)


BOTH = ("cached", "recompute")
SYNTHETIC = ("model.lexicon=null", "training.lr=5e-4")
"""Settings for synthetic clips. The lexicon is for real sounds: the networks do not recognise all synthetic ones."""
SCALES = {
    scale.name: scale
    for scale in (
        Scale("paper", "base", (0,), None, 0.0, "", 50.0, ("training.stop_on=cider",), (0, 1, 2), None,
              SpeedOptions(FRAMES, BOTH), checkpoint="best",
              costs=Costs(0.05, 0.1, 0.05, 0.0, 60.0, 3600.0, 960.0, 0.6, "guessed for one GPU of a data centre")),
        Scale("demo", "tags", (0, 1, 2), (2400, 200, 300), 8.0, "audio-demo", 2.0,
              (*SYNTHETIC, "training.batch_size=32"), (0, 1, 2), None, SpeedOptions(FRAMES, BOTH),
              costs=Costs(0.013, 0.015, 0.003, 1.0, 12.0, 240.0, 30.0, 0.5, "short runs on 2 cores")),
        Scale("smoke", "tags", (0,), (12, 20, 10), 1.0, "audio-demo", 1.0,
              (*SYNTHETIC, "training.batch_size=4"), (0,), "BLEU,ROUGE_L,CIDEr",
              SpeedOptions(FRAMES, BOTH, words=2, beam=2, warmup=0, runs=1), workers=0,
              costs=Costs(0.05, 0.05, 0.01, 1.0, 2.0, 30.0, 30.0, 0.5, "short runs on 2 cores")),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One step, with a separate folder. seconds, megabytes: the estimated time and disk space."""

    name: str
    kind: str
    seconds: float
    megabytes: float
    system: str = ""
    seed: int = 0


def plan(scale: Scale, only: Sequence[str], clips: tuple[int, int, int], seeds: Sequence[int]) -> list[Step]:
    """The steps of the tables `only`, in their order. clips: of train, val and test. Raises UsageError."""
    if unknown := [name for name in only if name not in TABLES]:
        raise UsageError(f"--only {', '.join(unknown)}: no such table", f"there are {', '.join(TABLES)}")
    wanted = [name for name in TABLES if not only or name in only]
    evaluated = {key for name in wanted if name in ("table1", "table2", "table4") for key in ROWS[name]}
    swept = set(ROWS["table3"]) if "table3" in wanted else set()
    trained = [key for key in SYSTEMS if key in evaluated | swept]
    costs, train, test = scale.costs, clips[0], clips[2]
    steps = []
    if trained and scale.clips is not None:
        steps.append(Step("clips", "clips", sum(clips) * costs.make, sum(clips) * costs.clip))
    if trained and scale.start_epochs:
        seconds = _training(scale, scale.start_epochs, train)
        steps.append(Step("start", "train", seconds, costs.model))
    caption, score = costs.caption * test, costs.score * test
    for seed in seeds:
        for key in trained:
            seconds = _training(scale, scale.epochs, train)
            steps.append(Step(f"train-{key}-{seed}", "train", seconds, costs.model, key, seed))
            if key in evaluated:
                steps.append(
                    Step(f"evaluate-{key}-{seed}", "evaluate", costs.start + caption + score, 1, key, seed)
                )
            if key in swept:
                many = 1 + len(scale.donors)
                seconds = costs.start + many * caption + 2 * many * score
                steps.append(Step(f"robustness-{key}-{seed}", "robustness", seconds, 1, key, seed))
    if "figure2" in wanted:
        steps.append(Step("speed", "speed", costs.timing, 1))
    return steps


def _training(scale: Scale, epochs: float, clips: int) -> float:
    return scale.costs.start + epochs * clips * scale.costs.train


def hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def processes_by_default() -> int:
    """One process per GPU, or one without a GPU."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return 1
    import torch

    return max(1, torch.cuda.device_count())
