"""The training loop: reads top to bottom, logs what it does, and goes on where it was stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.model import CaptionModel, Objective, Tokenizer, load_checkpoint, save_checkpoint
from evacap_cli.model.shuffling import shuffle_partners
from evacap_cli.tasks.batches import Augmentation, Batches
from evacap_cli.tasks.devices import PRECISIONS, pick_precision


@dataclass(frozen=True)
class TrainSettings:
    """Every number of a run; the defaults are the recipe of AVCap's public code with EVACap's terms."""

    epochs: float = 50
    batch_size: int = 32
    lr: float = 1e-4
    start_lr: float = 2e-7
    final_lr: float = 1e-6
    warmup_epochs: float = 1.0
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = 5e-7
    clip_norm: float = 1.0
    precision: str = "auto"
    freq_mask: int = 48
    time_mask: int = 192
    noise: bool = True
    sms: float = 0.05
    sms_per_batch: bool = False
    smoothing: float = 0.1
    gate_stability: float = 0.01
    consistency: float = 0.1
    max_words: int = 40
    save_every: int = 200
    """Steps between saves of the full state."""
    log_every: int = 20
    seed: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainSettings:
        """Checks names, kinds and ranges; all problems at once (`UsageError`)."""
        known: dict[str, Any] = {f.name: f.default for f in fields(cls)}
        problems = [f"training.{name}: no such setting" for name in values if name not in known]
        kept: dict[str, Any] = {}
        for name in values.keys() & known.keys():
            value, default = values[name], known[name]
            try:
                if name == "betas":
                    kept[name] = (float(value[0]), float(value[1]))
                elif isinstance(value, bool) != isinstance(default, bool):
                    raise TypeError
                else:
                    kept[name] = type(default)(value)
            except (TypeError, ValueError, IndexError):
                problems.append(f"training.{name}: {value!r} is not like {default!r}")
        settings = cls(**kept)
        for name in ("epochs", "batch_size", "lr", "save_every", "log_every", "max_words"):
            if getattr(settings, name) <= 0:
                problems.append(f"training.{name}: {getattr(settings, name)} must be above 0")
        for name in ("sms", "smoothing"):
            if not 0 <= getattr(settings, name) <= 1:
                problems.append(f"training.{name}: {getattr(settings, name)} must be between 0 and 1")
        if settings.precision not in ("auto", *PRECISIONS):
            problems.append(
                f"training.precision: {settings.precision!r} is none of auto, {', '.join(PRECISIONS)}"
            )
        if problems:
            raise UsageError("the training settings are wrong:\n  " + "\n  ".join(problems))
        return settings


@dataclass
class Progress:
    """What a caller may show: `left` in seconds; `validation` only after an epoch."""

    step: int
    steps: int
    loss: float
    clips_per_second: float
    left: float
    validation: float | None = None


def fit(
    model: CaptionModel,
    tokenizer: Tokenizer,
    train: Batches,
    settings: TrainSettings,
    features: FeatureSettings,
    out: Path,
    validation: Batches | None = None,
    device: str | torch.device = "cpu",
    resume: bool = True,
    metadata: dict[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Trains `model` in place and keeps `out/last`, `out/best` (lowest validation loss), and `out/metrics.jsonl`.

    Parameters that do not require gradients stay as they are. Returns a summary. Stopped at any point, the same call
    goes on from the last save; every step draws its own randomness from (seed, step), so that the result is the same.
    """
    device = torch.device(device)
    model.to(device)
    per_epoch = max(1, len(train) // settings.batch_size)
    steps = max(1, round(settings.epochs * per_epoch))
    if len(train) == 0:
        raise EvacapError(
            "there is no clip to train on", "see which clips failed, and why, in the manifest's summary"
        )
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    dtype = pick_precision(settings.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    objective = Objective(settings.smoothing, settings.gate_stability, settings.consistency)
    augment = Augmentation(settings.freq_mask, settings.time_mask, settings.noise)
    out.mkdir(parents=True, exist_ok=True)
    first, best = _resume(out, model, optimizer, scaler, settings, device) if resume else (0, math.inf)

    def save(step: int) -> None:
        state = {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(), "step": step, "best": best,
                 "settings": asdict(settings)}  # fmt: skip
        described = {**(metadata or {}), "step": step, "training": _plain(asdict(settings))}
        save_checkpoint(out / "last", model, tokenizer, features.to_dict(), described)
        torch.save(state, out / "training.tmp")
        (out / "training.tmp").replace(out / "training.pt")

    started, loss_now = time.monotonic(), math.nan
    for step in range(first, steps):
        model.train()
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((settings.seed, epoch)).permutation(len(train))
        rows = np.sort(order[place * settings.batch_size : (place + 1) * settings.batch_size]).tolist()
        torch.manual_seed(settings.seed * 1_000_003 + step)
        lr = learning_rate(step, steps, per_epoch, settings)
        for group in optimizer.param_groups:
            group["lr"] = lr
        audio, picture, mask = train.batch(rows, device, augment)
        tokens, wanted = encode_captions(
            tokenizer, [_one_of(train.captions(i)) for i in rows], settings.max_words
        )
        partners = shuffle_partners(len(rows), settings.sms, per_batch=settings.sms_per_batch)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            result = model(
                audio, picture, tokens.to(device), wanted.to(device), mask, partners, objective, train.towers
            )
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(result["loss"]).backward()
        scaler.unscale_(optimizer)
        if settings.clip_norm:
            nn.utils.clip_grad_norm_(trained, settings.clip_norm)
        scaler.step(optimizer)
        scaler.update()

        value = result["caption"].item()
        loss_now = value if math.isnan(loss_now) else 0.95 * loss_now + 0.05 * value
        done = step + 1
        rate = (done - first) * settings.batch_size / (time.monotonic() - started)
        ended = done % per_epoch == 0 or done == steps
        checked = _validate(model, tokenizer, validation, settings, dtype) if ended and validation else None
        if done % settings.log_every == 0 or ended:
            line = {
                "step": done,
                "epoch": round(done / per_epoch, 3),
                "lr": lr,
                "clips_per_second": round(rate, 1),
            }
            line |= {name: round(float(part.detach()), 6) for name, part in result.items()}
            if checked is not None:
                line["validation"] = round(checked, 6)
            with (out / "metrics.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            if progress:
                left = (steps - done) * settings.batch_size / rate
                progress(Progress(done, steps, loss_now, rate, left, checked))
        if checked is not None and checked < best:
            best = checked
            described = {**(metadata or {}), "step": done, "validation_loss": round(checked, 4),
                         "training": _plain(asdict(settings))}  # fmt: skip
            save_checkpoint(out / "best", model, tokenizer, features.to_dict(), described)
        if done % settings.save_every == 0 or ended:
            save(done)
    seconds = time.monotonic() - started
    return {
        "steps": steps,
        "loss": loss_now,
        "best_validation": None if math.isinf(best) else best,
        "seconds": seconds,
    }


def learning_rate(step: int, steps: int, per_epoch: int, settings: TrainSettings) -> float:
    """Linear from `start_lr` over the warm-up, then a cosine to `final_lr`."""
    warmup = min(round(settings.warmup_epochs * per_epoch), steps - 1)
    if step < warmup:
        return settings.start_lr + step / warmup * (settings.lr - settings.start_lr)
    share = (step - warmup) / max(1, steps - warmup)
    return settings.final_lr + 0.5 * (settings.lr - settings.final_lr) * (1 + math.cos(math.pi * share))


def encode_captions(tokenizer: Tokenizer, captions: list[str], max_words: int) -> tuple[Tensor, Tensor]:
    """Token numbers int64 (B, L) and which of them are to be predicted, bool (B, L): all but bos and padding."""
    rows = [torch.tensor(tokenizer.encode(caption, max_words)) for caption in captions]
    tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad)
    lengths = torch.tensor([len(row) for row in rows])
    place = torch.arange(tokens.shape[1])
    return tokens, (place > 0) & (place < lengths[:, None])


def _one_of(captions: list[str]) -> str:
    return captions[int(torch.randint(len(captions), ()))]


@torch.inference_mode()
def _validate(
    model: CaptionModel,
    tokenizer: Tokenizer,
    data: Batches,
    settings: TrainSettings,
    dtype: torch.dtype | None,
) -> float:
    """Mean smoothed cross-entropy of the first captions of `data`."""
    model.eval()
    objective = Objective(settings.smoothing, 0.0, 0.0)
    total = 0.0
    for start in range(0, len(data), settings.batch_size):
        rows = range(start, min(start + settings.batch_size, len(data)))
        audio, picture, mask = data.batch(rows, model.device)
        tokens, wanted = encode_captions(tokenizer, [data.captions(i)[0] for i in rows], settings.max_words)
        with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
            result = model(audio, picture, tokens.to(model.device), wanted.to(model.device), mask, None, objective,
                           data.towers)  # fmt: skip
        total += result["caption"].item() * len(rows)
    return total / len(data)


def _resume(
    out: Path, model: CaptionModel, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler,
    settings: TrainSettings, device: torch.device,
) -> tuple[int, float]:  # fmt: skip
    """Takes up the last saved state, if any; one made with other settings is refused."""
    if not (out / "training.pt").exists():
        return 0, math.inf
    state = torch.load(out / "training.pt", map_location=device, weights_only=True)
    saved, wanted = _plain(state["settings"]), _plain(asdict(settings))
    if differing := [f"{k} was {saved.get(k)!r}, is {v!r}" for k, v in wanted.items() if saved.get(k) != v]:
        raise EvacapError(
            f"{out}: holds a run with other settings ({'; '.join(differing)})",
            "give another -o, or --no-resume",
        )
    model.load_state_dict(load_checkpoint(out / "last").model.state_dict())
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    return state["step"], state["best"]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
