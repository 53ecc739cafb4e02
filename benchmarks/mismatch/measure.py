"""Captions the clips with an arm under every condition, and saves captions and scores as JSON for the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import Condition
from tokens import TowerBatches
from torch import Tensor

from evacap_cli.features import FeatureSettings, normalize_frames
from evacap_cli.model import CaptionModel, Tokenizer
from evacap_cli.model.packing import pack
from evacap_cli.tasks.mismatch import fit
from evacap_cli.tasks.pairing import Pairing

BATCH, BEAM, WORDS = 100, 4, 20
DONORS = 4


class Listener:
    """Runs an arm on the towers' tokens of a set. Each modality is encoded once."""

    def __init__(self, model: CaptionModel, tokenizer: Tokenizer, data: TowerBatches, black: Tensor) -> None:
        self.model, self.tokenizer, self.data, self.black = pack(model, None), tokenizer, data, black
        with torch.inference_mode():
            self.heard = self._all(np.arange(len(data)), "audio")
            self.seen = self._all(np.arange(len(data)), "picture") if model.has_picture else None

    def _all(self, rows: np.ndarray, what: str) -> Tensor:
        parts = []
        for start in range(0, len(rows), BATCH):
            batch = self.data.batch(rows[start : start + BATCH].tolist())
            if what == "audio":
                parts.append(self.model.finish_audio(batch.audio.float()))
            else:
                assert batch.picture is not None
                parts.append(self.model.finish_picture(batch.picture.float()))
        return torch.cat(parts)

    @torch.inference_mode()
    def parts(self, condition: Condition) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yields aligned audio and picture tokens by batch."""
        for start in range(0, len(condition.rows), BATCH):
            rows = torch.from_numpy(condition.rows[start : start + BATCH])
            if self.seen is None:
                yield self.heard[rows], None
                continue
            seen = self.seen[rows]
            if condition.donors is not None:
                other = self.seen[torch.from_numpy(condition.donors[start : start + BATCH])]
                middle = seen.shape[1] // 2
                seen = torch.cat((seen[:, :middle], other[:, middle:]), dim=1) if condition.half else other
            if condition.frozen:
                frames = self.model.frame_count(seen)
                seen = seen.unflatten(1, (frames, -1))[:, :1].expand(-1, frames, -1, -1).flatten(1, 2)
            if condition.blank:  # as in `evidence`: no frame shows anything
                black = self.model.finish_picture(self.black)
                yield self.heard[rows], None if self.model.has_evidence else black.expand(len(rows), -1, -1)
                continue
            yield self.heard[rows], seen

    @torch.inference_mode()
    def say(self, condition: Condition) -> dict[str, Any]:
        """Captions of the condition's clips, and the gate, entropy, evidence and cues that the arm has."""
        found: dict[str, list[Any]] = {"rows": condition.rows.tolist()}
        for heard, seen in self.parts(condition):
            out = self.model.decode(self.model.fuse(heard, seen), BEAM, WORDS)
            found.setdefault("captions", []).extend(self.tokenizer.decode(t) for t in out.tokens.tolist())
            for name in ("score", "gate", "entropy", "evidence", "cues"):
                values = getattr(out, name)
                if values is not None:
                    found.setdefault(name, []).extend(values.float().numpy().round(5).tolist())
        return found

    @torch.inference_mode()
    def cues(self, condition: Condition) -> np.ndarray:
        """(N, K)."""
        parts = [self.model.fuse(heard, seen).cues for heard, seen in self.parts(condition)]
        return torch.cat([part for part in parts if part is not None]).double().numpy()


def calibrate(listener: Listener, dubbed: np.ndarray) -> dict[str, Any]:
    """Calibrates the switch on a set: all clips with their own pictures against pairs with other clips' pictures."""
    everybody = np.arange(len(dubbed))
    own = listener.cues(Condition("own", everybody))
    own[dubbed] = np.nan
    seeds = np.random.default_rng(0).choice(len(dubbed) - 1, DONORS, replace=False)
    pairings = [Pairing.draw(len(dubbed), int(seed)) for seed in seeds]
    mixed = np.stack([listener.cues(Condition("any", everybody, pairing.donor)) for pairing in pairings])
    return fit(own, mixed, listener.model.cues).to_dict()


def black_tokens(towers: CaptionModel, features: FeatureSettings) -> Tensor:
    """The picture tower's tokens of a clip of black frames: (1, T_v, d)."""
    size = features.image_size
    frames = torch.zeros(1, features.frames, 3, size, size, dtype=torch.uint8)
    with torch.inference_mode():
        return towers.encoder.picture_tower(normalize_frames(frames, features))


def with_switch(model: CaptionModel, **changed: Any) -> None:
    """Changes the threshold or the windows of the switch."""
    model.fusion.config = replace(model.fusion.config, **changed)


def measure(listener: Listener, wanted: list[Condition], place: Path) -> None:
    """Measures all conditions. `evidence` arms also run with the switch always open, and with one decision per half."""
    if place.exists():
        return
    said = {condition.name: listener.say(condition) for condition in wanted}
    model = listener.model
    if model.has_evidence:
        usual = model.fusion.config
        for label, changed in (("open", {"threshold": 0.0}), ("windows", {"windows": 2})):
            with_switch(model, **changed)
            for condition in wanted:
                if condition.name in ("own", "unlike", "any", "half"):
                    said[f"{condition.name}, {label}"] = listener.say(condition)
            model.fusion.config = usual
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_suffix(".part")
    aside.write_text(json.dumps(said), "utf-8")
    aside.replace(place)
