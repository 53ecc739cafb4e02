"""Validates a model on held-out clips, distributed over the processes of a run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from evacap_cli.metrics.quick_cider import quick_cider
from evacap_cli.model import CaptionModel, Generation, Objective, Tokenizer
from evacap_cli.tasks.batches import Batches
from evacap_cli.tasks.training.caption_tokens import encode_captions
from evacap_cli.tasks.training.distributed import SINGLE, Ranks
from evacap_cli.tasks.training.loading import load_batches
from evacap_cli.tasks.training.settings import TrainSettings


@torch.inference_mode()
def validate(
    model: CaptionModel,
    tokenizer: Tokenizer,
    data: Batches,
    settings: TrainSettings,
    dtype: torch.dtype | None,
    ranks: Ranks = SINGLE,
    workers: int = 0,
) -> dict[str, float]:
    """Returns `validation`, the mean smoothed cross-entropy per word on the first captions; with `stop_on: cider` also
    `validation_cider`, the CIDEr of captions by beam search against all references."""
    model.eval()
    device = model.device
    objective = Objective(settings.smoothing, 0.0, 0.0)
    mine = list(range(ranks.rank, len(data), ranks.world))
    size = max(1, settings.batch_size // settings.accumulate // ranks.world)
    portions = [(0, mine[start : start + size]) for start in range(0, len(mine), size)]
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    captions: dict[int, str] = {}
    for (_, rows), batch in zip(portions, load_batches(data, iter(portions), None, workers), strict=True):
        audio, picture, mask = batch.inputs(device, data.features)
        tokens, wanted = encode_captions(tokenizer, batch.captions, settings.max_words)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            parts = model(
                audio, picture, tokens.to(device), wanted.to(device), mask, None, objective, batch.towers
            )
            words = int(wanted.sum())
            sums += torch.stack((parts["caption"].double() * words, sums.new_tensor(words)))
            if settings.stop_on == "cider":
                longest = min(settings.max_words, model.config.decoder.positions - 2)
                found = model.generate(
                    audio, picture, mask, settings.validation_beam, longest, towers=batch.towers
                )
                texts = map(tokenizer.decode, found.tokens.tolist())
                captions |= dict(zip(rows, texts, strict=True))
    total, total_words = ranks.sum(sums).tolist()
    values = {"validation": total / total_words}
    if settings.stop_on == "cider":
        gathered = {str(row): text for part in ranks.gather(captions) for row, text in part.items()}
        values["validation_cider"] = quick_cider(gathered, {row: data.captions(int(row)) for row in gathered})
    return values


SAMPLES = 6  # validation clips whose captions are logged
OFFSET = 1  # to the sample whose picture a sample also gets


@torch.inference_mode()
def sample_captions(
    model: CaptionModel,
    tokenizer: Tokenizer,
    data: Batches,
    settings: TrainSettings,
    dtype: torch.dtype | None,
) -> list[dict[str, Any]]:
    """The captions of a few validation clips, for the log: clip, caption, one reference and, with a gate, its mean with
    the clip's own picture (`gate`) and with another sample's picture (`gate_shuffled`)."""
    model.eval()
    device = model.device
    count = min(SAMPLES, len(data))
    rows = [i * len(data) // count for i in range(count)]
    batch = data.batch(rows)
    audio, picture, mask = batch.inputs(device, data.features)
    longest = min(settings.max_words, model.config.decoder.positions - 2)

    def generate(picture: Tensor | None, mask: Tensor | None) -> Generation:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return model.generate(
                audio, picture, mask, settings.validation_beam, longest, towers=batch.towers
            )

    own = generate(picture, mask)
    samples: list[dict[str, Any]] = [
        {
            "clip": data.key(row),
            "caption": tokenizer.decode(tokens.tolist()),
            "reference": data.captions(row)[0],
        }
        for row, tokens in zip(rows, own.tokens, strict=True)
    ]
    gates = {"gate": own.gate}
    if own.gate is not None and picture is not None and count > 1:
        shuffled = generate(picture.roll(OFFSET, 0), None if mask is None else mask.roll(OFFSET, 0))
        gates["gate_shuffled"] = shuffled.gate
    for name, values in gates.items():
        for sample, value in zip(
            samples, () if values is None else values.tolist(), strict=values is not None
        ):
            if math.isfinite(value):
                sample[name] = round(value, 4)
    return samples
