"""The probability that audio and picture belong together, from the towers' aligned tokens.

The entropy of the attention does not show a mismatch: it depends on how cluttered the picture is. The cues computed
here compare the two modalities, and a logistic regression combines them:

    p = sigmoid(bias + sum_k weights_k * cue_k)

The matcher needs no labels: of the B x B pairs of a batch, those on the diagonal belong together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from evacap_cli.model.config import EncoderConfig, EvidenceConfig

MIN_CONTRAST = 0.03
"""Standard deviation of normalised pixels (about two levels of 255) below which a frame shows nothing."""
MIN_CORRELATION = 0.4
"""Correlation of neighbouring pixels below which a frame is noise; camera pictures have 0.8 or more."""
POOLS = 4


def shows_something(pixels: Tensor) -> Tensor:
    """pixels: (B, N, 3, S, S), normalised. Returns bool (B, N), True for frames that are neither uniform nor noise."""
    grey = pixels.float().mean(dim=2)
    spread = grey.std(dim=(-2, -1))
    x = (grey - grey.mean(dim=(-2, -1), keepdim=True)) / spread.clamp(min=1e-6)[..., None, None]
    across = (x[..., :, 1:] * x[..., :, :-1]).mean(dim=(-2, -1))
    down = (x[..., 1:, :] * x[..., :-1, :]).mean(dim=(-2, -1))
    return (spread > MIN_CONTRAST) & (torch.maximum(across, down) > MIN_CORRELATION)


def pooled_tags(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Tag logits of tokens (B, T, C) to those of clips (B, C): the log-mean-exp over the tokens that exist, so that a
    single token with a high logit suffices. mask: bool (B, T); for a clip without any token, over all."""
    logits = logits.float()
    if mask is None:
        return logits.logsumexp(dim=1) - math.log(logits.shape[1])
    mask = mask | ~mask.any(dim=1, keepdim=True)
    count = mask.sum(dim=1, keepdim=True)
    return logits.masked_fill(~mask[..., None], float("-inf")).logsumexp(dim=1) - count.log()


class _PooledEmbedding(nn.Module):
    """Pools the tokens of one modality to a unit vector: a few attention-weighted means, then a small MLP."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.look = nn.Linear(width, POOLS)
        self.mlp = nn.Sequential(nn.Linear(POOLS * width, size), nn.GELU(), nn.Linear(size, size))

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """tokens: (B, T, d), mask: bool (B, T) -> (B, size)."""
        tokens = self.norm(tokens.to(self.norm.weight.dtype))
        scores = self.look(tokens).float()
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], float("-inf"))
        pooled = scores.softmax(dim=1).transpose(1, 2) @ tokens.float()  # (B, POOLS, d)
        return normalize(self.mlp(pooled.flatten(1).to(tokens.dtype)).float(), dim=-1)


class Evidence(nn.Module):
    """The cues and the probability computed from them. `weights` and `bias` are fitted on held-out clips (`evacap
    weights calibrate`); before that, the probability depends only on the matcher."""

    weights: Tensor
    bias: Tensor

    def __init__(self, encoder: EncoderConfig, config: EvidenceConfig) -> None:
        super().__init__()
        self.hear, self.see = (
            _PooledEmbedding(encoder.width, config.width),
            _PooledEmbedding(encoder.width, config.width),
        )
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.offset = nn.Parameter(torch.tensor(-5.0))
        self.cues: tuple[str, ...] = ("cosine", "best", "matcher")
        if encoder.tag_classes:
            self.cues += ("tags",)
            self.tag_pairs = nn.Parameter(torch.eye(encoder.tag_classes))
            """How well each audio tag fits each picture tag."""
            self.tag_offset = nn.Parameter(torch.tensor(-1.0))
        self.register_buffer("weights", torch.tensor([float(name == "matcher") for name in self.cues]))
        self.register_buffer("bias", torch.zeros(()))

    def pairs(self, audio: Tensor, picture: Tensor, mask: Tensor | None,
              tags: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:  # fmt: skip
        """The learned cues: logits (B, B) of every sound with every picture.

        audio: (B, T_a, d), picture: (B, T_v, d), both aligned. mask: bool (B, T_v). tags: logits (B, C) of audio and
        picture.
        """
        heard, seen = self.hear(audio, None), self.see(picture, mask)
        found = {"matcher": heard @ seen.T * self.scale.exp() + self.offset}
        if tags is not None:
            sounds, things = (x.float().sigmoid() for x in tags)
            found["tags"] = sounds @ self.tag_pairs.float() @ things.T + self.tag_offset
        return found

    def loss(self, audio: Tensor, picture: Tensor, mask: Tensor | None,
             tags: tuple[Tensor, Tensor] | None) -> Tensor:  # fmt: skip
        """Binary cross-entropy over all pairs of the batch. Own pairs and other pairs have the same total weight."""
        own = torch.eye(len(audio), device=audio.device)
        counts = own * (len(audio) - 1) + (1 - own)
        if mask is not None:  # clips without a picture are in no pair
            counts = counts * mask.any(dim=1)
            mask = mask | ~mask.any(dim=1, keepdim=True)
        counts = counts / counts.sum().clamp(min=1)
        losses = [
            (binary_cross_entropy_with_logits(logits.float(), own, reduction="none") * counts).sum()
            for logits in self.pairs(audio, picture, mask, tags).values()
        ]
        return torch.stack(losses).mean()

    def forward(self, audio: Tensor, picture: Tensor, mask: Tensor | None,
                tags: tuple[Tensor, Tensor] | None) -> Tensor:  # fmt: skip
        """The cues (B, K) of each sound with its own picture, float32; see `pairs`."""
        with torch.autocast(audio.device.type, enabled=False):
            audio, picture = audio.float(), picture.float()
            learned = self._matched_pairs(audio, picture, mask, tags)
            a, v = normalize(audio, dim=-1), normalize(picture, dim=-1)
            if mask is None:
                mean, nearest = v.mean(dim=1), a @ v.transpose(1, 2)
            else:
                there = mask[..., None].float()
                mean = (v * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)
                nearest = (a @ v.transpose(1, 2)).masked_fill(~mask[:, None], -1.0)
            found = {
                "cosine": (normalize(a.mean(dim=1), dim=-1) * normalize(mean, dim=-1)).sum(dim=-1),
                "best": nearest.amax(dim=2).mean(dim=1),
                **learned,
            }
            return torch.stack([found[name] for name in self.cues], dim=1)

    def _matched_pairs(self, audio: Tensor, picture: Tensor, mask: Tensor | None,
             tags: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:  # fmt: skip
        """The diagonal of `pairs`, without computing the other pairs."""
        heard, seen = self.hear(audio, None), self.see(picture, mask)
        found = {"matcher": (heard * seen).sum(dim=1) * self.scale.exp() + self.offset}
        if tags is not None:
            sounds, things = (x.float().sigmoid() for x in tags)
            found["tags"] = (sounds @ self.tag_pairs.float() * things).sum(dim=1) + self.tag_offset
        return found

    def probability(self, cues: Tensor) -> Tensor:
        """Cues (..., K) to (...): the probability that audio and picture belong together, for a prior of 0.5."""
        return torch.sigmoid((cues * self.weights.to(cues.dtype)).sum(dim=-1) + self.bias.to(cues.dtype))
