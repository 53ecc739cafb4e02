"""The settings of a training run, checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from evacap_cli.errors import UsageError
from evacap_cli.tasks.devices import PRECISIONS

STOP_ON = ("loss", "cider")


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a training run. The defaults are those of AVCap's public code, with EVACap's loss terms.

    A step is one weight update from `batch_size` clips over all processes; each process takes its share in `accumulate`
    portions. An epoch leaves out the clips that do not fill a batch, different ones each time.
    """

    epochs: float = 50.0
    batch_size: int = 32
    accumulate: int = 1
    lr: float = 1e-4
    start_lr: float = 2e-7
    final_lr: float = 1e-6
    warmup_epochs: float = 1.0
    lr_scale: dict[str, float] = field(default_factory=dict)
    """Learning rate factors of parts, by prefix of the parameter names; the longest matching prefix counts."""
    freeze: tuple[str, ...] = ()
    """Parts that are not trained, by prefix of the parameter names."""
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = 5e-7
    clip_norm: float = 1.0
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is then validated and saved; 0 for none."""
    precision: str = "auto"
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    mlp_checkpointing: bool = False
    """Recompute only norms and the hidden values of MLPs: half of the activations, about a ninth more time."""
    compile: bool = False
    shard: bool = False
    """Shard weights, gradients and optimizer state over the processes: less memory per process, more communication."""
    freq_mask: int = 48
    time_mask: int = 192
    noise: bool = True
    sms: float = 0.05
    sms_per_batch: bool = False
    smoothing: float = 0.1
    gate_stability: float = 0.01
    consistency: float = 0.1
    match: float = 1.0
    """Weight of the loss over the pairs of a batch, for the fusions `evidence` and `optimal-transport` only."""
    modality_dropout: float = 0.0
    """Probability that a clip is trained without its picture."""
    max_words: int = 40
    stop_on: str = "loss"
    """Validation criterion of `best`: `loss` or `cider` (CIDEr of captions by beam search)."""
    patience: int = 0
    """Validations without improvement after which the run stops; 0 for never."""
    validation_beam: int = 3
    max_skips: int = 5
    """Steps skipped in a row, because the loss was not finite or spiked, after which the run stops with an error."""
    spike: float = 4.0
    """A step whose loss exceeds the recent median by this factor is skipped; 0 disables the check."""
    save_minutes: float = 5.0
    """Minutes between saves of the full state, in addition to one per epoch."""
    save_every: int = 0
    """Steps between additional saves; 0 for none."""
    log_every: int = 20
    seed: int = 0

    @property
    def augments(self) -> bool:
        """Whether the audio of a clip changes from epoch to epoch."""
        return bool(self.freq_mask or self.time_mask or self.noise)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Checks names, types and ranges. Raises UsageError that lists all problems."""
        known: dict[str, Any] = {f.name: getattr(cls(), f.name) for f in fields(cls)}
        problems = [f"training.{name}: no such setting" for name in values if name not in known]
        kept: dict[str, Any] = {}
        for name in values.keys() & known.keys():
            try:
                kept[name] = _READERS[type(known[name])](values[name])
            except (TypeError, ValueError):
                problems.append(f"training.{name}: {values[name]!r} is not like {_format(known[name])}")
        if "betas" in kept and (len(kept["betas"]) != 2 or any(isinstance(b, str) for b in kept["betas"])):
            problems.append(f"training.betas: {_format(kept.pop('betas'))} is not two numbers")
        if "freeze" in kept and not all(isinstance(part, str) for part in kept["freeze"]):
            problems.append(f"training.freeze: {_format(kept.pop('freeze'))} is not a list of names")
        problems += cls(**kept)._out_of_range()
        if problems:
            raise UsageError("the training settings are wrong:\n  " + "\n  ".join(sorted(problems)))
        return cls(**kept)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for YAML and JSON; `from_dict` is the inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def _out_of_range(self) -> list[str]:
        problems = []
        for name in ("epochs", "batch_size", "accumulate", "lr", "save_minutes", "log_every", "max_words",
                     "validation_beam", "max_skips"):  # fmt: skip
            if not getattr(self, name) > 0:
                problems.append(f"training.{name}: {getattr(self, name)} must be above 0")
        for name in ("start_lr", "final_lr", "warmup_epochs", "weight_decay", "clip_norm", "freq_mask", "time_mask",
                     "gate_stability", "consistency", "match", "patience", "save_every", "seed"):  # fmt: skip
            if not getattr(self, name) >= 0:
                problems.append(f"training.{name}: {getattr(self, name)} must not be below 0")
        for name in ("sms", "smoothing", "modality_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"training.{name}: {getattr(self, name)} must be between 0 and 1")
        for name in ("ema", *(f"betas.{i}" for i in range(2))):
            value = self.ema if name == "ema" else self.betas[int(name[-1])]
            if not 0 <= value < 1:
                problems.append(f"training.{name}: {value} must be at least 0 and below 1")
        if self.spike and not self.spike > 1:
            problems.append(f"training.spike: {self.spike} must be above 1, or 0 for no check")
        if self.precision not in ("auto", *PRECISIONS):
            problems.append(
                f"training.precision: {self.precision!r} must be one of auto, {', '.join(PRECISIONS)}"
            )
        if self.stop_on not in STOP_ON:
            problems.append(f"training.stop_on: {self.stop_on!r} must be one of {', '.join(STOP_ON)}")
        if self.shard and self.compile:
            problems.append("training.shard: cannot be combined with training.compile; leave one of them out")
        if self.batch_size > 0 < self.accumulate and self.batch_size % self.accumulate:
            problems.append(
                f"training.accumulate: {self.accumulate} portions do not divide batch_size {self.batch_size}"
            )
        problems += [
            f"training.lr_scale.{part}: {factor} must not be below 0"
            for part, factor in self.lr_scale.items()
            if not factor >= 0
        ]
        return problems

    def learning_rate(self, step: int, steps: int, per_epoch: int) -> float:
        """Returns the learning rate of a step: linear warm-up from `start_lr`, then cosine decay to `final_lr`."""
        warmup = min(round(self.warmup_epochs * per_epoch), steps - 1)
        if step < warmup:
            return self.start_lr + step / warmup * (self.lr - self.start_lr)
        share = (step - warmup) / max(1, steps - warmup)
        return self.final_lr + 0.5 * (self.lr - self.final_lr) * (1 + math.cos(math.pi * share))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _list(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return tuple(v if isinstance(v, str) else _number(v) for v in value)


def _factors(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise TypeError
    return {_string(part): _number(factor) for part, factor in value.items()}


_READERS: dict[type, Any] = {
    float: _number,
    int: _integer,
    bool: _boolean,
    str: _string,
    tuple: _list,
    dict: _factors,
}


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return repr(list(value)) if value else "a list of names"
    return "part: factor" if value == {} else repr(value)
