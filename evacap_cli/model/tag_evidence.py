"""The probability that audio and picture belong together, from their tags.

`ties` (C_a, C_v) contains how well a picture class shows the source of an audio class, in [0, 1]. `affinity` is
initialised with it and learned from pairs. With w the shares of the heard classes in the sound and q the probabilities
of the seen classes:

    support = sum_i w_i sum_j ties_ij q_j
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from evacap_cli.model.config import EvidenceConfig, TagEncoderConfig

TagPair = tuple[Tensor, Tensor]
"""Tags of sound and picture, (B, T_a, 2 + windows) and (B, T_v, 3); see `tag_encoder`."""
TEMPERATURE = 1.5
"""The temperature of the softmax that converts the logits of the heard classes to shares."""
FLOOR = 0.02
"""Added to the support before the logarithm: smaller differences do not count."""


class TagEvidence(nn.Module):
    """The cues and the probability computed from them, with the interface of `evidence.Evidence`."""

    weights: Tensor
    bias: Tensor
    ties: Tensor

    def __init__(self, encoder: TagEncoderConfig) -> None:
        super().__init__()
        shape = (encoder.audio_classes, encoder.picture_classes)
        self.affinity = nn.Parameter(torch.zeros(shape))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.offset = nn.Parameter(torch.tensor(0.0))
        self.cues: tuple[str, ...] = ("matcher", "support", "lift", "foreign", "silent")
        self.register_buffer("ties", torch.zeros(shape))
        self.register_buffer("weights", torch.tensor([float(name == "matcher") for name in self.cues]))
        self.register_buffer("bias", torch.zeros(()))

    def start_from(self, ties: Tensor) -> None:
        """Sets `ties` and the initial value of `affinity` to a table (C_a, C_v)."""
        self.ties.copy_(ties)
        self.affinity.data.copy_(ties)

    def pairs(self, tags: TagPair) -> Tensor:
        """Logits (B, B) of the matcher, every sound with every picture."""
        heard, seen = tags
        with torch.autocast(heard.device.type, enabled=False):
            rows = self.affinity.float()[heard[..., 0].long()]  # (B, T_a, C_v)
            expected = (shares(heard)[..., None] * rows).sum(dim=1)  # (B, C_v)
            q = heard.new_zeros(len(seen), rows.shape[2])
            q.scatter_add_(1, seen[..., 0].long(), seen[..., 2])
            return self._matcher(expected @ q.T)

    def _matcher(self, support: Tensor) -> Tensor:
        floor = torch.full_like(support, FLOOR)
        log = torch.where(support > 0, (support.clamp(min=0) + FLOOR).log(), floor.log() + support / FLOOR)
        return self.scale * log + self.offset  # linear below 0, so that the gradient does not vanish

    def loss(self, audio: Tensor, picture: Tensor, mask: Tensor | None, tags: TagPair) -> Tensor:
        """Binary cross-entropy over all pairs of the batch. Own pairs and other pairs have the same total weight.

        mask: bool (B, T_v); clips without a picture are in no pair. `audio` and `picture`, the tokens, are not used.
        """
        own = torch.eye(len(tags[0]), device=tags[0].device)
        counts = own * (len(own) - 1) + (1 - own)
        if mask is not None:
            counts = counts * mask.any(dim=1)
        counts = counts / counts.sum().clamp(min=1)
        logits = self.pairs(tags)
        return (binary_cross_entropy_with_logits(logits, own, reduction="none") * counts).sum()

    def forward(self, audio: Tensor, picture: Tensor, mask: Tensor | None, tags: TagPair) -> Tensor:
        """The cues (B, K) of each sound with its own picture, float32.

        matcher: the learned logit. support: the logarithm of the support. lift: the logarithm of its ratio to the
        support of a uniform mixture of all sounds. foreign: the probability of picture classes that are tied to other
        sounds. silent: that of picture classes that are tied to no sound.
        """
        heard, seen = tags
        with torch.autocast(heard.device.type, enabled=False):
            i, j = heard[..., 0].long(), seen[..., 0].long()
            w, q = shares(heard), seen[..., 2]
            learned = self._support(self.affinity.float(), i, j, w, q)
            ties = self.ties.float()
            support = self._support(ties, i, j, w, q)
            tied = ties.amax(dim=0)[j]  # (B, T_v)
            usual = (ties.mean(dim=0)[j] * q).sum(dim=1)
            strongest = (self._pairs(ties, i, j) * q[:, None]).sum(dim=2).amax(dim=1)
            return torch.stack(
                [
                    self._matcher(learned),
                    (support + FLOOR).log(),
                    (support + FLOOR / 4).log() - (usual + FLOOR / 4).log(),
                    (tied * q).sum(dim=1) - strongest,
                    1 - (tied * q).sum(dim=1),
                ],
                dim=1,
            )

    def _pairs(self, table: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """The values (B, T_a, T_v) of a table (C_a, C_v) at the classes i (B, T_a) and j (B, T_v)."""
        return table[i[:, :, None], j[:, None, :]]

    def _support(self, table: Tensor, i: Tensor, j: Tensor, w: Tensor, q: Tensor) -> Tensor:
        """(B,)."""
        return (self._pairs(table, i, j) * w[:, :, None] * q[:, None]).sum(dim=(1, 2))

    def shown(self, tags: TagPair) -> Tensor:
        """The share of the picture that shows the source of each heard class, (B, T_a)."""
        heard, seen = tags
        pairs = self._pairs(self.ties.float(), heard[..., 0].long(), seen[..., 0].long())
        return (pairs * seen[:, None, :, 2]).sum(dim=2)

    def confirm(self, tags: TagPair, config: EvidenceConfig) -> Tensor:
        """Raises the logits of the heard classes whose source the picture shows, in proportion to how much of the
        picture shows it and to how likely the picture matches. Returns tags of the sound, (B, T_a, 2 + windows).

        Below the threshold of the switch, and without a picture, tags stay as they are.
        """
        cues = self(*tags, None, tags)
        certainty = (self.probability(cues) - config.threshold) / max(1 - config.threshold, FLOOR)  # (B,)
        lift = config.confirmation * self.shown(tags) * certainty.nan_to_num().clamp(min=0)[:, None]
        heard = tags[0]
        raised = (heard[..., 1:] + lift[..., None]).clamp(max=config.confirmed_logit)
        return torch.cat((heard[..., :1], torch.maximum(heard[..., 1:], raised)), dim=-1)

    def probability(self, cues: Tensor) -> Tensor:
        """Cues (..., K) to (...): the probability that audio and picture belong together, for a prior of 0.5."""
        return torch.sigmoid((cues * self.weights.to(cues.dtype)).sum(dim=-1) + self.bias.to(cues.dtype))


def shares(heard: Tensor) -> Tensor:
    """Tags of sounds (B, T_a, ...) to the share of each class in the sound, (B, T_a), with a sum of 1."""
    return (heard[..., 1].float() / TEMPERATURE).softmax(dim=1)
