"""The training loop, with logging, validation, checkpoints and resumption."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from evacap_cli.errors import EvacapError
from evacap_cli.model import CaptionModel, Objective, Tokenizer, save_checkpoint
from evacap_cli.model.modality_shuffling import shuffle_partners
from evacap_cli.report.training_curves import draw_curves
from evacap_cli.tasks.batches import Batch, Batches
from evacap_cli.tasks.devices import pick_precision
from evacap_cli.tasks.reporting.results import report_folders
from evacap_cli.tasks.training.caption_tokens import encode_captions
from evacap_cli.tasks.training.distributed import SINGLE, Ranks
from evacap_cli.tasks.training.loading import Plan, load_batches
from evacap_cli.tasks.training.log import RunLog, Tally, read_log
from evacap_cli.tasks.training.parameter_groups import freeze, parameter_groups
from evacap_cli.tasks.training.settings import TrainSettings
from evacap_cli.tasks.training.state import load_state, save_state
from evacap_cli.tasks.training.validation import sample_captions, validate

if TYPE_CHECKING:
    from evacap_cli.tasks.training.sharding import Sharding

RECENT = 50
"""Number of steps whose median loss a loss spike is compared with."""
DRAW_SECONDS = 60.0
"""Least time between two drawings of the curves, which take seconds: an epoch may be shorter."""


@dataclass
class Progress:
    """The progress of a run. `left`: remaining seconds. `note`: a skipped step or validation results."""

    step: int
    steps: int
    loss: float
    clips_per_second: float
    left: float
    note: str = ""


def fit(
    model: CaptionModel,
    tokenizer: Tokenizer,
    train: Batches,
    settings: TrainSettings,
    out: Path,
    validation: Batches | None = None,
    device: str | torch.device = "cpu",
    ranks: Ranks = SINGLE,
    workers: int = 0,
    resume: bool = True,
    identity: dict[str, str] | None = None,
    metadata: dict[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains `model` in place; returns a summary.

    Writes `out/last`, `out/best` (by `settings.stop_on` on `validation`), `metrics.jsonl` and `curves.png`. After an
    interruption, the same call resumes from the last save, with the same result, because the clips and randomness of a
    step depend only on (seed, step). `identity`: other values that a resumed run must share with the interrupted one.
    Every process of `ranks` makes the same call; the first one writes. `stop` is called after every step: if it returns
    True in any process, the state is saved and the summary has `stopped`.
    """
    run = _Run(model, tokenizer, train, settings, out, validation, torch.device(device), ranks, workers,
               identity or {}, metadata or {})  # fmt: skip
    if resume:
        run.resume()
    try:
        return run.train(progress or (lambda now: None), stop)
    finally:
        run.close()


class _Run:
    def __init__(
        self, model: CaptionModel, tokenizer: Tokenizer, train: Batches, settings: TrainSettings, out: Path,
        validation: Batches | None, device: torch.device, ranks: Ranks, workers: int, identity: dict[str, str],
        metadata: dict[str, Any],
    ) -> None:  # fmt: skip
        self.plan = Plan(len(train), settings, ranks.world)
        self.settings, self.ranks, self.workers, self.device = settings, ranks, workers, device
        self.tokenizer, self.train_data, self.validation = tokenizer, train, validation
        self.out, self.identity, self.metadata = out, identity, metadata
        self.objective = Objective(
            settings.smoothing, settings.gate_stability, settings.consistency, settings.match
        )
        self.dtype = pick_precision(settings.precision, device)
        # parameters without gradients would make the processes wait for one another
        unused = () if settings.match else getattr(model.fusion, "trained_by_match", ())
        freeze(model, (*settings.freeze, *unused))
        sharded = settings.shard and ranks.world > 1
        self.model = model if sharded else model.to(device)
        self.model.set_checkpointing(settings.checkpointing, settings.mlp_checkpointing)
        self.ema = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema)) if settings.ema else None
        )
        self.sharding: Sharding | None = None
        if sharded:
            from evacap_cli.tasks.training.sharding import Sharding

            self.sharding = Sharding(model, device, ranks)
            self.sharding.shard(model)
            if self.ema is not None:
                self.sharding.shard(self.averaged_model)
        if settings.compile:
            model.compile_blocks()
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.lr_scale),
            lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True,
        )  # fmt: skip
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        gpu = [device] if device.type == "cuda" else None
        self.parallel: nn.Module = model
        if ranks.world > 1 and not sharded:
            self.parallel = DistributedDataParallel(model, device_ids=gpu, broadcast_buffers=False)
        self.step = self.skips = self.stale = 0
        self.best = -math.inf
        self.window, self.recent = Tally(), deque[float](maxlen=RECENT)
        self.samples: list[dict[str, Any]] = []  # captions of the last evaluation that are not logged yet
        self.log: RunLog | None = None

    # -- state ---------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        state = load_state(self.out, self.settings, self.identity)
        steps = self.ranks.gather(0 if state is None else state["step"])
        if len(set(steps)) > 1:
            raise EvacapError(
                f"{self.out}: the processes find different states of the run, steps {', '.join(map(str, steps))}",
                "use a folder on a file system that all machines share",
            )
        if state is None:
            return
        if (sharding := self.sharding) is not None:
            state["model"] = sharding.scatter(state["model"], self.model)
            state["ema"] = None if self.ema is None else sharding.scatter(state["ema"], self.ema)
            state["optimizer"] = sharding.scatter_optimizer(state["optimizer"], self.optimizer)
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.skips, self.stale = state["step"], state["skips"], state["stale"]
        self.best, self.window.sums = state["best"], state["window"]
        self.recent.extend(state["recent"])

    def save(self) -> None:
        """Saves the full state. Every process must call it."""
        if not self.ranks.first and self.sharding is None:
            return
        model = self.whole_model()
        state = {
            "step": self.step, "skips": self.skips, "stale": self.stale, "best": self.best,
            "window": self.window.sums, "recent": list(self.recent), "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(), "settings": self.settings.to_dict(), "identity": self.identity,
        }  # fmt: skip
        if self.sharding is not None:
            state = self.sharding.gather(state)
        if self.ranks.first:
            self.save_model("last", model, {})
            save_state(self.out, state)
        self.saved = time.monotonic()

    def save_model(self, name: str, model: CaptionModel, values: dict[str, float]) -> None:
        """Saves a checkpoint."""
        described = {**self.metadata, "step": self.step, **{k: round(v, 4) for k, v in values.items()},
                     "training": self.settings.to_dict()}  # fmt: skip
        features = self.train_data.features.to_dict()
        save_checkpoint(self.out / name, model, self.tokenizer, features, described)

    @property
    def averaged_model(self) -> CaptionModel:
        """The model with averaged weights, if they are averaged."""
        return self.model if self.ema is None else cast("CaptionModel", self.ema.module)

    def whole_model(self) -> CaptionModel:
        """Returns the model to validate and save. If the model is sharded, every process must call it."""
        averaged = self.averaged_model
        return averaged if self.sharding is None else self.sharding.whole_model(averaged)

    @property
    def done_early(self) -> bool:
        return 0 < self.settings.patience <= self.stale

    def close(self) -> None:
        if self.log is not None:
            self.log.close()

    def draw(self) -> None:
        """Draws the curves of the log, and writes the run's page."""
        if not self.ranks.first:
            return
        draw_curves(read_log(self.out / "metrics.jsonl"), self.out / "curves.png")
        with suppress(Exception):  # `evacap report RUN` can write the page later
            report_folders([self.out], self.out / "report.html")

    # -- the loop ------------------------------------------------------------------------------------------------

    def train(self, progress: Callable[[Progress], None], stop: Callable[[], bool]) -> dict[str, Any]:
        plan, settings, first = self.plan, self.settings, self.step
        if self.ranks.first:
            self.out.mkdir(parents=True, exist_ok=True)
            self.log = RunLog(self.out, first)
        self.saved = drawn = started = time.monotonic()
        smooth, ended_early, stopped = math.nan, self.done_early, False
        portions = plan.portions(self.ranks.rank, first)
        batches = load_batches(self.train_data, portions, settings, self.workers, self.device.type == "cuda")
        while self.step < plan.steps and not ended_early and not stopped:
            lr = settings.learning_rate(self.step, plan.steps, plan.per_epoch)
            values, skipped = self.update(list(islice(batches, settings.accumulate)), lr)
            smooth = values["caption"] if math.isnan(smooth) else 0.95 * smooth + 0.05 * values["caption"]
            rate = (self.step - first) * plan.batch / (time.monotonic() - started)
            epoch_ended = self.step % plan.per_epoch == 0 or self.step == plan.steps
            checked = self.check() if epoch_ended and self.validation is not None else {}
            ended_early = self.done_early
            note = f"skipped: {skipped}" if skipped else ", ".join(f"{k} {v:.4f}" for k, v in checked.items())
            if self.step % settings.log_every == 0 or epoch_ended or skipped:
                self.write({"lr": lr, "clips_per_second": round(rate, 1)}, checked, skipped)
            if self.ranks.first:
                progress(
                    Progress(
                        self.step,
                        plan.steps,
                        smooth,
                        rate,
                        (plan.steps - self.step) * plan.batch / rate,
                        note,
                    )
                )
            if self.skips >= settings.max_skips:
                raise EvacapError(
                    f"{self.skips} steps in a row were skipped; the last one, {self.step}, because {skipped}",
                    f"the last good weights are in {self.out / 'last'}; lower training.lr, or check the clips"
                    if (self.out / "last").exists()
                    else "nothing was saved yet; lower training.lr, or check the clips",
                )
            by_step = settings.save_every and self.step % settings.save_every == 0
            minutes = (time.monotonic() - self.saved) / 60
            due = self.ranks.first and minutes >= settings.save_minutes  # clocks of processes differ
            asked = torch.tensor([stop(), due], dtype=torch.int, device=self.device)
            stopped, by_time = self.ranks.sum(asked).tolist()
            if epoch_ended or ended_early or by_step or stopped or by_time:
                self.save()
            over = self.step == plan.steps or ended_early
            if over or (epoch_ended and time.monotonic() - drawn >= DRAW_SECONDS):
                self.draw()
                drawn = time.monotonic()
        batches.close()  # type: ignore[attr-defined]
        self.ranks.wait()
        best = None if math.isinf(self.best) else self.best if settings.stop_on == "cider" else -self.best
        return {
            "step": self.step,
            "steps": plan.steps,
            "loss": None if math.isnan(smooth) else smooth,
            "best": best,
            "best_in": settings.stop_on,
            "ended_early": ended_early,
            "stopped": bool(stopped) and self.step < plan.steps and not ended_early,
            "seconds": time.monotonic() - started,
        }

    def update(self, batches: list[Batch], lr: float) -> tuple[dict[str, float], str]:
        """Runs one step on the portions of this process. Returns the means over all processes, and the reason if the
        step was skipped."""
        settings, ranks = self.settings, self.ranks
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        texts = [encode_captions(self.tokenizer, batch.captions, settings.max_words) for batch in batches]
        words = [int(wanted.sum()) for _, wanted in texts]
        # Means are over the words and clips of the whole step, so they do not depend on how these are distributed.
        total_words, total_clips = ranks.sum(
            torch.tensor([sum(words), sum(map(len, batches))], device=self.device)
        ).tolist()
        tally = Tally(self.device)
        for i, (batch, (tokens, wanted)) in enumerate(zip(batches, texts, strict=True)):
            torch.manual_seed(_combine_seeds(settings.seed, self.step, ranks.rank, i))
            audio, picture, mask = batch.inputs(self.device, self.train_data.features)
            partners = shuffle_partners(len(batch), settings.sms, per_batch=settings.sms_per_batch)
            dropped = settings.modality_dropout
            unseen = torch.rand(len(batch)) < dropped if dropped else None
            last = i == len(batches) - 1
            parallel = self.parallel if isinstance(self.parallel, DistributedDataParallel) else None
            sync = nullcontext() if last or parallel is None else parallel.no_sync()
            with sync:
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                    parts = self.parallel(audio, picture, tokens.to(self.device), wanted.to(self.device), mask,
                                          partners, self.objective, batch.towers, unseen)  # fmt: skip
                loss = self.objective.total(parts, words[i] / total_words, len(batch) / total_clips)
                # distributed training averages the gradients, but they must be summed
                self.scaler.scale(loss * ranks.world).backward()
            tally.add(parts, words[i], len(batch))
        if self.sharding is not None:
            self.sharding.average_numbers(self.model)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(
            [p for g in self.optimizer.param_groups for p in g["params"]], settings.clip_norm or math.inf
        )
        if self.sharding is not None:
            norm = self.sharding.whole(norm)
        total = tally.over(ranks)
        values = total.values()
        skipped = self.skip_reason(values["caption"], float(norm))
        if not skipped:
            self.recent.append(values["caption"])
            self.window.merge(total)
            self.scaler.step(self.optimizer)
            if self.ema is not None:
                self.ema.update_parameters(self.model)
        self.scaler.update()
        self.skips = self.skips + 1 if skipped else 0
        self.step += 1
        return values, skipped

    def skip_reason(self, loss: float, norm: float) -> str:
        """Returns why a step must be skipped, or "". All processes get the same loss and gradients, and so agree."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm) and not (self.scaler.is_enabled() and self.scaler.get_scale() > 1):
            return f"the gradient norm is {norm}"  # not with fp16, whose loss scale may just be too large
        usual = median(self.recent) if len(self.recent) >= RECENT // 2 else math.inf
        if self.settings.spike and loss > self.settings.spike * max(usual, 0.5):
            return f"the loss jumped to {loss:.3f} from about {usual:.3f}"
        return ""

    def check(self) -> dict[str, float]:
        """Validates, and saves the model if it is the best so far."""
        assert self.validation is not None
        model = self.whole_model()
        found = validate(
            model,
            self.tokenizer,
            self.validation,
            self.settings,
            self.dtype,
            self.ranks,
            self.workers,
        )
        if self.ranks.first:
            self.samples = sample_captions(model, self.tokenizer, self.validation, self.settings, self.dtype)
        score = found["validation_cider"] if self.settings.stop_on == "cider" else -found["validation"]
        self.stale += 1
        if score > self.best:
            self.best, self.stale = score, 0
            if self.ranks.first:
                self.save_model("best", model, found)
        return found

    def write(self, now: dict[str, Any], checked: dict[str, float], skipped: str) -> None:
        values = self.window.values()
        self.window = Tally()
        if self.log is None:
            return
        line = {"step": self.step, "epoch": round(self.step / self.plan.per_epoch, 3), **now}
        line |= {name: round(value, 6) for name, value in (values | checked).items()}
        if skipped:
            line["skipped"] = skipped
        if self.samples:
            for name in ("gate", "gate_shuffled"):
                gates = [sample[name] for sample in self.samples if name in sample]
                if gates:
                    line[f"sample_{name}"] = round(sum(gates) / len(gates), 6)
            line["samples"], self.samples = self.samples, []
        if self.device.type == "cuda":
            line["memory_gb"] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 2)
        self.log.write(line)


def _combine_seeds(*numbers: int) -> int:
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % 2**63
    return seed
