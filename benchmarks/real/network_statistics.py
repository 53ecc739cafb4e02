"""Measures statistics of the network outputs on real recordings and photographs for `simulate.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from simulate import WINDOWS, Statistics
from torch import Tensor
from torch.nn.functional import normalize

from evacap_cli.model.lexicon import audioset_classes
from evacap_cli.model.tag_encoder import heard_tags
from evacap_cli.model.yamnet import YAMNet

ABSENT = -2.0
"""A class with a clip logit below this counts as absent, unless the labels name it."""
MIN_RECORDINGS = 12
"""Minimum number of recordings with a class on top to measure its relatives from them alone."""


def window_logits(patches: np.ndarray) -> Tensor:
    """Window logits (WINDOWS, C) of patch logits (P, C), as in `heard_tags`."""
    p = torch.from_numpy(patches).float().sigmoid()
    return torch.stack([part.mean(dim=0) for part in p.tensor_split(WINDOWS)]).clamp(1e-6, 1 - 1e-6).logit()


def measure(
    heard: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[str]], ear: YAMNet, eye_classifier: Tensor,
    ties: Tensor, people: Tensor,
) -> Statistics:  # fmt: skip
    """Measures the statistics. heard: logits (P, C_a) by path. labels: class names by path, may be empty.
    eye_classifier: (C_v, d)."""
    place = {name: i for i, name in enumerate(audioset_classes())}
    windows = torch.stack([window_logits(x) for x in heard.values()])  # (R, W, C)
    clips = heard_tags(windows, windows.shape[2], WINDOWS)
    level = torch.empty_like(clips[..., 1]).scatter_(1, clips[..., 0].long(), clips[..., 1])  # (R, C)
    named = torch.zeros_like(level, dtype=torch.bool)
    for row, path in enumerate(heard):
        named[row, [place[name] for name in labels.get(path, ()) if name in place]] = True
    absent = (level < ABSENT) & ~named
    background, spread = _background(level, absent)
    relatives = _relatives(level, background, spread, ear)
    levels = _levels(level, named)
    top = level.topk(12, dim=1).indices
    among = torch.zeros_like(level).scatter_(1, top, 1.0).bool()
    labelled = named.any(dim=1, keepdim=True)
    kin_of_named = (named.float() @ (relatives > 0.25).float()) > 0
    spurious = (among & ~named & ~kin_of_named & labelled).float().sum(dim=0) + 0.5
    return Statistics(
        background,
        spread,
        relatives,
        levels,
        spurious / spurious.sum(),
        _cosines(eye_classifier, 0.15),
        ties,
        people,
    )


def _background(level: Tensor, absent: Tensor) -> tuple[Tensor, Tensor]:
    """Median and robust standard deviation (1.48 MAD) of each logit over the recordings without the class."""
    values = torch.where(absent, level, torch.nan)
    median = values.nanmedian(dim=0).values
    median = torch.where(median.isnan(), level.median(dim=0).values, median)
    spread = 1.48 * (values - median).abs().nanmedian(dim=0).values
    return median, spread.nan_to_num(1.5).clamp(0.7, 2.5)


def _cosines(rows: Tensor, least: float) -> Tensor:
    """Cosine similarities of a classifier's centred rows. Values below `least` become 0."""
    rows = normalize(rows - rows.mean(dim=0), dim=1)
    cosine = (rows @ rows.T).clamp(min=0)
    return torch.where(cosine > least, cosine, 0.0).fill_diagonal_(1.0)


def _relatives(level: Tensor, background: Tensor, spread: Tensor, ear: YAMNet) -> Tensor:
    """How much other logits rise with a present class: measured if the class is on top in enough recordings, otherwise
    estimated by the cosine similarity of classifier rows, scaled to the measured values."""
    rise = level - background  # (R, C)
    first = level.argmax(dim=1)
    cosine = _cosines(ear.classifier.weight.detach(), 0.1)
    measured, known = torch.zeros_like(cosine), torch.zeros(len(cosine), dtype=torch.bool)
    for c in range(len(cosine)):
        rows = (level[:, c] > level.amax(dim=1) - 1.0) | (first == c)
        rows &= level[:, c] > ABSENT
        if int(rows.sum()) >= MIN_RECORDINGS:
            share = (rise[rows] - 0.5 * spread) / rise[rows][:, c : c + 1]
            measured[c] = share.median(dim=0).values.clamp(0, 1)
            known[c] = True
    both = known[:, None] & (cosine > 0.1) & (cosine < 0.999)
    scale = (
        float((measured[both] * cosine[both]).sum() / cosine[both].square().sum())
        if bool(both.any())
        else 0.8
    )
    guessed = (cosine * scale).clamp(0, 1)
    found = torch.where(known[:, None], 0.7 * measured + 0.3 * guessed, guessed)
    return found.fill_diagonal_(1.0)


def _levels(level: Tensor, named: Tensor) -> Tensor:
    """Quantiles of the highest logit among the labels of each labelled recording."""
    best = torch.where(named, level, -torch.inf).amax(dim=1)
    best = best[best > -torch.inf]
    return torch.quantile(best, torch.linspace(0.02, 0.98, 25))


def compare(
    heard: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[str]], simulated: Tensor
) -> dict[str, float]:
    """Compares simulated tags (B, T_a, 2 + W) with real ones: numbers of tags above some logits, and the top logit."""
    real = torch.stack(
        [heard_tags(window_logits(x)[None], simulated.shape[1], WINDOWS)[0] for x in heard.values()]
    )
    report = {}
    for name, tags in (("real", real), ("simulated", simulated)):
        report[f"{name}: best"] = float(tags[:, 0, 1].median())
        report[f"{name}: 4th"] = float(tags[:, 3, 1].median())
        report[f"{name}: 12th"] = float(tags[:, -1, 1].median())
        report[f"{name}: above -4"] = float((tags[..., 1] > -4).sum(dim=1).float().mean())
        report[f"{name}: window spread"] = float(tags[:, :4, 2:].std(dim=2).median())
    return report


def write(path: Path, statistics: Statistics) -> None:
    aside = path.with_name(path.name + ".tmp.npz")
    statistics.save(aside)
    aside.replace(path)
