"""How well a captioner does on real recordings, photographs and videos, from the networks' cached answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from captions import Vocabulary
from naming import Judge, has_speech, speaks_of_speech
from torch import Tensor

from evacap_cli.model import Checkpoint, Generation
from evacap_cli.model.tags import frame_tags, heard_tags


@dataclass
class Described:
    """Captions of some clips, and their numbers: float (N,), NaN where there are none."""

    captions: list[str]
    score: np.ndarray
    evidence: np.ndarray
    gate: np.ndarray
    entropy: np.ndarray


def sound_tags(checkpoint: Checkpoint, logits: np.ndarray) -> Tensor:
    """(1, heard, 2 + windows) of patches' logits (P, C)."""
    encoder = checkpoint.model.config.encoder
    return heard_tags(torch.from_numpy(logits).float()[None], encoder.heard, encoder.windows)  # type: ignore[union-attr]


def picture_tags(checkpoint: Checkpoint, logits: np.ndarray) -> Tensor:
    """(1, N * seen, 3) of frames' logits (N, C)."""
    return frame_tags(torch.from_numpy(logits).float()[None], checkpoint.model.config.encoder.seen)  # type: ignore[union-attr]


@torch.inference_mode()
def describe(checkpoint: Checkpoint, sounds: Sequence[np.ndarray], pictures: Sequence[np.ndarray | None],
             beam: int = 4) -> Described:  # fmt: skip
    """What a model says of each sound with its picture, None for none; logits as `listen` keeps them."""
    model = checkpoint.model.eval()
    captions, numbers = [], []
    for sound, picture in zip(sounds, pictures, strict=True):
        seen = None if picture is None or not model.has_picture else picture_tags(checkpoint, picture)
        out: Generation = model.generate(sound_tags(checkpoint, sound), seen, beam=beam, towers=True)
        captions.append(checkpoint.tokenizer.decode(out.tokens[0].tolist()))
        numbers.append([_one(x) for x in (out.score, out.evidence, out.gate, out.entropy)])
    return Described(captions, *np.array(numbers, float).reshape(-1, 4).T)


def _one(values: Tensor | None) -> float:
    return float("nan") if values is None else float(values[0])


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that one of `positive` is above one of `negative`; ties count half."""
    a, b = np.asarray(positive)[:, None], np.asarray(negative)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def naming(described: Described, labels: Sequence[Sequence[str]], judge: Judge) -> dict[str, float]:
    """Shares of clips: named; speech said where there is none; something said twice."""
    vocabulary = Vocabulary()
    silent = [i for i, names in enumerate(labels) if not has_speech(names)]
    return {
        "clips": len(labels),
        "named": float(np.mean([judge.named(c, n) for c, n in zip(described.captions, labels, strict=True)])),
        "speech invented": float(np.mean([speaks_of_speech(described.captions[i]) for i in silent]))
        if silent
        else 0.0,
        "repeats": float(np.mean([vocabulary.stutters(caption) for caption in described.captions])),
    }


def by_label(
    described: Described, labels: Sequence[Sequence[str]], judge: Judge
) -> dict[str, tuple[int, int]]:
    """Of each clip's first label: how many clips, and how many of them are named."""
    found: dict[str, tuple[int, int]] = {}
    for caption, names in zip(described.captions, labels, strict=True):
        if names:
            clips, right = found.get(names[0], (0, 0))
            found[names[0]] = clips + 1, right + judge.named(caption, names)
    return found


def unlike(labels: Sequence[Sequence[str]], rng: np.random.Generator) -> list[int]:
    """For each clip another one that shares no label with it, at random."""
    donors = []
    for i, names in enumerate(labels):
        others = [j for j, other in enumerate(labels) if j != i and not set(names) & set(other)]
        donors.append(int(rng.choice(others)))
    return donors


def rows_of(found: Mapping[str, np.ndarray], paths: Sequence[str]) -> list[np.ndarray]:
    return [found[path] for path in paths]
