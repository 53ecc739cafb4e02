"""Pre-trains the towers with multi-label tagging of sounds and objects and an audio-visual contrastive loss.

Both towers use the encoder's tag head, each for its own classes. The logit of a clip is the log-sum-exp over its
tokens, so one token with a bell is enough. The contrastive loss (InfoNCE over clip means, as in CAV-MAE) applies to
clips with matching audio and picture.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from evacap_cli.model import CaptionModel
from evacap_cli.model.encoder import TwoTowerEncoder
from evacap_cli.model.evidence import pooled_tags
from evacap_cli.tasks.batches import Augmentation, FeatureBatches

TAGS = 10.0
"""Weight of each of the two tagging losses."""


@dataclass(frozen=True)
class PretrainSettings:
    steps: int = 1500
    batch_size: int = 64
    lr: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.05
    frames: int = 2
    """Number of frames per clip in a step, drawn at random."""
    contrast: float = 0.5
    """Weight of the contrastive loss."""
    temperature: float = 0.07
    freq_mask: int = 16
    time_mask: int = 64
    seed: int = 0


@dataclass
class Labels:
    """sounds: float (N, C_a) and things: float (N, C_v), 1 if a clip has the class. together: bool (N,), whether audio
    and picture match."""

    sounds: np.ndarray
    things: np.ndarray
    together: np.ndarray


class Pretrainer(nn.Module):
    """The weighted losses on a captioner's encoder, whose tag head has C_a + C_v outputs."""

    def __init__(self, encoder: TwoTowerEncoder, sounds: int, settings: PretrainSettings) -> None:
        super().__init__()
        self.encoder, self.sounds, self.contrast = encoder, sounds, settings.contrast
        self.scale = nn.Parameter(torch.tensor(math.log(1 / settings.temperature)))

    def tag(self, tokens: Tensor) -> Tensor:
        """Clip logits (B, C_a + C_v) of aligned tokens (B, T, d)."""
        head = self.encoder.tag_head
        assert head is not None
        return pooled_tags(head(tokens))

    def forward(
        self, fbank: Tensor, pixels: Tensor, sounds: Tensor, things: Tensor, together: Tensor
    ) -> dict[str, Tensor]:
        encoder = self.encoder
        heard = encoder.align_audio(encoder.audio_tower(fbank))
        seen = encoder.align_picture(encoder.picture_tower(pixels))
        losses = {
            "hear": TAGS * binary_cross_entropy_with_logits(self.tag(heard)[:, : self.sounds], sounds),
            "see": TAGS * binary_cross_entropy_with_logits(self.tag(seen)[:, self.sounds :], things),
        }
        a, v = (normalize(x.float().mean(dim=1), dim=-1)[together] for x in (heard, seen))
        similarity = a @ v.T * self.scale.exp().clamp(max=100)
        own = torch.arange(len(a), device=a.device)
        both = (cross_entropy(similarity, own) + cross_entropy(similarity.T, own)) / 2
        losses["contrast"] = self.contrast * both
        return losses


def pretrain(
    trainer: Pretrainer,
    data: FeatureBatches,
    labels: Labels,
    settings: PretrainSettings,
    out: Path,
    autocast: torch.dtype | None = None,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    save_every: int = 100,
) -> None:
    """Trains an encoder in place. A call with the `out` of an interrupted run continues from the last save."""
    device, parameters = trainer.scale.device, list(trainer.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.lr, weight_decay=settings.weight_decay, betas=(0.9, 0.98), fused=True
    )
    out.mkdir(parents=True, exist_ok=True)
    state_file, first = out / "pretraining.pt", 0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        trainer.load_state_dict(state["trainer"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    trainer.train()
    started = time.monotonic()
    window: dict[str, float] = {}
    for step in range(first, settings.steps):
        rng = np.random.default_rng((settings.seed, step))
        torch.manual_seed(settings.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * _schedule(step, settings)
        rows = np.sort(rng.choice(len(data), min(settings.batch_size, len(data)), replace=False))
        draw = Augmentation((settings.seed, step), settings.freq_mask, settings.time_mask)
        fbank, pixels, _ = data.batch(rows.tolist(), draw).inputs(device, data.features)
        assert pixels is not None
        looked = rng.permutation(pixels.shape[1])[: settings.frames]
        target = [
            torch.from_numpy(x[rows]).to(device) for x in (labels.sounds, labels.things, labels.together)
        ]
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            losses = trainer(fbank, pixels[:, looked], *target)
            loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        for name, value in losses.items():
            window[name] = 0.95 * window.get(name, value.item()) + 0.05 * value.item()
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            state = {
                "trainer": trainer.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
            }
            torch.save(state, state_file.with_suffix(".tmp"))
            state_file.with_suffix(".tmp").replace(state_file)
            rate = (step + 1 - first) * settings.batch_size / (time.monotonic() - started)
            with (out / "pretraining.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, "clips_per_second": round(rate, 1), **window}) + "\n")
            if progress:
                progress(step + 1, {**window, "clips/s": rate})
    (out / "pretraining.json").write_text(json.dumps(asdict(settings)))


def _schedule(step: int, settings: PretrainSettings) -> float:
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.5 * (1 + math.cos(math.pi * share)) + 1e-3


@torch.inference_mode()
def tower_report(model: CaptionModel, data: FeatureBatches, labels: Labels, names: Sequence[str],
                 batch_size: int = 64) -> dict[str, object]:  # fmt: skip
    """Evaluates the towers: mean average precision of sounds and objects, AUROC of the clip cosine, and the average
    precision of every sound by name."""
    trainer = Pretrainer(model.encoder, labels.sounds.shape[1], PretrainSettings()).to(model.device)
    model.eval()
    heard_scores, seen_scores, a_means, v_means = [], [], [], []
    for start in range(0, len(data), batch_size):
        rows = range(start, min(start + batch_size, len(data)))
        fbank, pixels, _ = data.batch(rows).inputs(model.device, data.features)
        assert pixels is not None
        heard, seen = model.encode_audio(fbank), model.encode_picture(pixels)
        heard_scores.append(trainer.tag(heard)[:, : trainer.sounds])
        seen_scores.append(trainer.tag(seen)[:, trainer.sounds :])
        a_means.append(normalize(heard.float().mean(1), dim=-1))
        v_means.append(normalize(seen.float().mean(1), dim=-1))
    heard_all, seen_all = torch.cat(heard_scores).cpu().numpy(), torch.cat(seen_scores).cpu().numpy()
    a, v = torch.cat(a_means), torch.cat(v_means)
    same = labels.together
    matched, wrong = (a * v).sum(1).cpu().numpy()[same], (a * v.roll(1, 0)).sum(1).cpu().numpy()[same]
    by_sound = {n: average_precision(heard_all[:, i], labels.sounds[:, i]) for i, n in enumerate(names)}
    things = [average_precision(seen_all[:, i], labels.things[:, i]) for i in range(seen_all.shape[1])]
    return {
        "sound mAP": float(np.nanmean(list(by_sound.values()))),
        "thing mAP": float(np.nanmean(things)),
        "cosine AUROC": float((matched[:, None] > wrong[None]).mean()),
        "by sound": by_sound,
    }


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the precision-recall curve of scores (N,) and truth (N,) in {0, 1}; NaN without positives."""
    ranked = truth[np.argsort(-scores, kind="stable")]
    if not ranked.any():
        return float("nan")
    precision = ranked.cumsum() / np.arange(1, len(ranked) + 1)
    return float((precision * ranked).sum() / ranked.sum())
