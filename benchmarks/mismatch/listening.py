"""Evaluates a packaged model on new clips and unseen recordings, by sound class."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from naming import Naming, recall_by_class
from world import LICENSES

from evacap_cli.data.store import Store
from evacap_cli.features import FeatureSettings, fbank
from evacap_cli.model import Checkpoint
from evacap_cli.tasks.store_captioner import InferenceOptions, StoreCaptioner
from evacap_cli.world import RecordingBank, World


def caption_recordings(checkpoint: Checkpoint, bank: RecordingBank) -> list[dict[str, Any]]:
    """Captions every recording without a picture. Returns file, category, caption and score."""
    features, found = FeatureSettings.from_dict(checkpoint.features), []
    for category, names in bank.categories.items():
        waves = [torch.from_numpy(np.ascontiguousarray(bank.wave(name))) for name in names]
        out = checkpoint.model.generate(fbank(waves, features))
        captions = [checkpoint.tokenizer.decode(tokens.tolist()) for tokens in out.tokens]
        found += [
            {"file": name, "category": category, "caption": caption, "score": round(score, 3)}
            for name, caption, score in zip(names, captions, out.score.tolist(), strict=True)
        ]
    return found


def heard(checkpoint: Checkpoint, store: Store, ours: World, recordings: Path) -> dict[str, Any]:
    """Recall and precision of sounds on the clips of a set with their own pictures, and on fold 4 without pictures."""
    naming = Naming(ours.catalogue)
    started = time.monotonic()
    said = StoreCaptioner(checkpoint, store, InferenceOptions()).caption()
    seconds = time.monotonic() - started
    truths = [store.extra(i)["sounds"] for i in range(len(store))]
    found = sum(naming.named(c, s) for c, t in zip(said.captions, truths, strict=True) for s in t)
    claimed = sum(len(naming.all_named(c)) for c in said.captions)
    families = [
        bool(naming.source[sound.event] & set(caption.lower().split()))
        for i, caption in enumerate(said.captions)
        for sound in ours.script(i).sounds
        if sound.visible and naming.source.get(sound.event)
    ]
    bank = RecordingBank.open(recordings, (4,), LICENSES)
    sound_of = {event.recorded: event.sound for event in ours.catalogue.events if event.recorded}
    real = caption_recordings(checkpoint, bank)
    by_category = recall_by_class(
        naming, [r["caption"] for r in real], [[sound_of[r["category"]]] for r in real]
    )
    right = [naming.named(r["caption"], sound_of[r["category"]]) for r in real]
    return {
        "clips": len(said.captions),
        "recall": found / sum(map(len, truths)),
        "precision": found_share(said.captions, truths, naming, claimed),
        "source": float(np.mean(families)),
        "source clips": len(families),
        "gate": None if said.gate is None else float(np.nanmean(said.gate)),
        "seconds per clip": seconds / len(said.captions),
        "by sound": recall_by_class(naming, said.captions, truths),
        "recordings": len(real),
        "recordings recall": float(np.mean(right)),
        "recordings by sound": by_category,
        "score when right": float(np.mean([r["score"] for r, ok in zip(real, right, strict=True) if ok])),
        "score when wrong": float(
            np.mean([r["score"] for r, ok in zip(real, right, strict=True) if not ok] or [np.nan])
        ),
        "recording captions": real,
    }


def found_share(
    captions: Sequence[str], truths: Sequence[Sequence[str]], naming: Naming, claimed: int
) -> float:
    """The share of named sounds that are present (precision)."""
    there = sum(
        sound in truth for c, truth in zip(captions, truths, strict=True) for sound in naming.all_named(c)
    )
    return there / max(claimed, 1)
