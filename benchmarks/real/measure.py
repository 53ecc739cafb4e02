"""Evaluates captioners on real recordings, photographs and videos, with the cached network outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from captions import Vocabulary
from naming import Judge, has_speech, speaks_of_speech
from torch import Tensor

from evacap_cli.model import Checkpoint, Generation
from evacap_cli.model.tag_encoder import frame_tags, heard_tags

BATCH = 32


@dataclass
class CaptionedClips:
    """Captions of N clips and scores of the model, float (N,). NaN if the model has no such score."""

    captions: list[str]
    score: np.ndarray
    evidence: np.ndarray
    gate: np.ndarray
    entropy: np.ndarray


def sound_tags(checkpoint: Checkpoint, logits: np.ndarray) -> Tensor:
    """Tags (1, heard, 2 + windows) of patch logits (P, C)."""
    encoder = checkpoint.model.tag_encoder.config
    return heard_tags(torch.from_numpy(logits).float()[None], encoder.heard, encoder.windows)


def picture_tags(checkpoint: Checkpoint, logits: np.ndarray) -> Tensor:
    """Tags (1, N * seen, 3) of frame logits (N, C)."""
    return frame_tags(torch.from_numpy(logits).float()[None], checkpoint.model.tag_encoder.config.seen)


@torch.inference_mode()
def caption_clips(checkpoint: Checkpoint, sounds: Sequence[np.ndarray], pictures: Sequence[np.ndarray | None],
             beam: int = 4) -> CaptionedClips:  # fmt: skip
    """Captions each sound with its picture (None: no picture). Logits are in the format of `listen`."""
    model = checkpoint.model.eval()
    captions = [""] * len(sounds)
    numbers = np.full((4, len(sounds)), np.nan)
    frames = [0 if picture is None or not model.has_picture else len(picture) for picture in pictures]
    for count in sorted(set(frames)):
        alike = [i for i, number in enumerate(frames) if number == count]
        for start in range(0, len(alike), BATCH):
            rows = alike[start : start + BATCH]
            heard = torch.cat([sound_tags(checkpoint, sounds[i]) for i in rows])
            shown = [picture for i in rows if count and (picture := pictures[i]) is not None]
            seen = torch.cat([picture_tags(checkpoint, picture) for picture in shown]) if shown else None
            out: Generation = model.generate(heard, seen, beam=beam, towers=True)
            for i, tokens in zip(rows, out.tokens.tolist(), strict=True):
                captions[i] = checkpoint.tokenizer.decode(tokens)
            for row, values in zip(numbers, (out.score, out.evidence, out.gate, out.entropy), strict=True):
                if values is not None:
                    row[rows] = values.numpy()
    return CaptionedClips(captions, *numbers)


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The probability that a value of `positive` exceeds one of `negative`. Ties count as one half."""
    a, b = np.asarray(positive)[:, None], np.asarray(negative)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def naming(captioned: CaptionedClips, labels: Sequence[Sequence[str]], judge: Judge) -> dict[str, float]:
    """Shares of captions that name the sound, name absent speech, or repeat themselves."""
    vocabulary = Vocabulary()
    silent = [i for i, names in enumerate(labels) if not has_speech(names)]
    return {
        "clips": len(labels),
        "named": float(np.mean([judge.named(c, n) for c, n in zip(captioned.captions, labels, strict=True)])),
        "speech invented": float(np.mean([speaks_of_speech(captioned.captions[i]) for i in silent]))
        if silent
        else 0.0,
        "repeats": float(np.mean([vocabulary.repeats_a_sound(caption) for caption in captioned.captions])),
    }


def by_label(
    captioned: CaptionedClips, labels: Sequence[Sequence[str]], judge: Judge
) -> dict[str, tuple[int, int]]:
    """By first label, the number of clips and the number of clips whose sound is named."""
    found: dict[str, tuple[int, int]] = {}
    for caption, names in zip(captioned.captions, labels, strict=True):
        if names:
            clips, right = found.get(names[0], (0, 0))
            found[names[0]] = clips + 1, right + judge.named(caption, names)
    return found


def unlike(labels: Sequence[Sequence[str]], rng: np.random.Generator) -> list[int]:
    """For each clip, a random clip without a common label."""
    donors = []
    for i, names in enumerate(labels):
        others = [j for j, other in enumerate(labels) if j != i and not set(names) & set(other)]
        donors.append(int(rng.choice(others)))
    return donors


def rows_of(found: Mapping[str, np.ndarray], paths: Sequence[str]) -> list[np.ndarray]:
    return [found[path] for path in paths]
