"""YAMNet: MobileNet v1 on log-mel patches, 521 AudioSet classes.

The architecture is that of `yamnet.py` in tensorflow/models (research/audioset/yamnet). Its batch norms are folded into
the convolutions, which therefore have biases; `fold_batch_norm` does this for weights from TensorFlow.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 521
PATCH_FRAMES, PATCH_HOP = 96, 48  # frames of 10 ms: 0.96 s, half overlapping
MEL_BINS = 64
BATCH_NORM_EPS = 1e-4
STEM_CHANNELS = 32
BLOCKS = (  # (stride of the depthwise convolution, channels after the pointwise one)
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    (1, 1024),
)


class YAMNet(nn.Module):
    """Log-mel to class logits, one row per patch of 96 frames."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(1, STEM_CHANNELS, stride=2)
        before = (STEM_CHANNELS, *(channels for _, channels in BLOCKS))
        self.blocks = nn.ModuleList(
            SeparableBlock(c_in, c_out, stride) for c_in, (stride, c_out) in zip(before, BLOCKS, strict=False)
        )
        self.classifier = nn.Linear(BLOCKS[-1][1], CLASSES)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits (B, W, 521) of log_mel (B, T, 64) as `yamnet_log_mel` makes it.

        W = (T - 96) // 48 + 1. The sigmoid of a logit is the score. Raises ValueError if T is less than 96.
        """
        maps = self.trunk(patches(log_mel))  # (B * W, 1024, 3, 2)
        return self.classify(maps).unflatten(0, (len(log_mel), -1))

    def trunk(self, maps: Tensor, start: int = 0, end: int | None = None) -> Tensor:
        """Runs the blocks from `start` up to `end`, and the stem first if `start` is 0.

        maps: (N, 1, 96, 64) patches, or the maps (N, C, H, F) that block `start` takes. Returns maps (N, C', H', F').
        """
        if start == 0:
            maps = F.relu_(self.stem(maps))
        for block in self.blocks[start:end]:
            maps = block(maps)
        return maps

    def classify(self, maps: Tensor) -> Tensor:
        """Logits (N, 521) of the last block's maps (N, 1024, 3, 2)."""
        return self.classifier(maps.mean(dim=(2, 3)))


class SeparableBlock(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolution, each with ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = SameConv(c_in, c_in, stride, groups=c_in)
        self.pointwise = nn.Conv2d(c_in, c_out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu_(self.pointwise(F.relu_(self.depthwise(maps))))


class SameConv(nn.Conv2d):
    """3x3 convolution with TensorFlow's SAME padding of maps of even sizes: with stride 2, only at the right and
    bottom."""

    def __init__(self, c_in: int, c_out: int, stride: int, groups: int = 1) -> None:
        super().__init__(c_in, c_out, 3, stride, padding=1 if stride == 1 else 0, groups=groups)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps if self.stride[0] == 1 else F.pad(maps, (0, 1, 0, 1)))


def patches(log_mel: Tensor) -> Tensor:
    """(B * W, 1, 96, 64), all patches of log_mel (B, T, 64). Raises ValueError if T is less than 96."""
    if log_mel.shape[1] < PATCH_FRAMES:
        raise ValueError(f"{log_mel.shape[1]} frames are less than one patch of {PATCH_FRAMES}")
    return log_mel.unfold(1, PATCH_FRAMES, PATCH_HOP).transpose(2, 3).flatten(0, 1).unsqueeze(1)


def fold_batch_norm(weight: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that includes a batch norm.

    weight: (C_out, C_in, k, k) of a convolution without bias; beta, mean, variance: (C_out,) of a batch norm without
    scale. Computed in float64.
    """
    scale = (variance.double() + BATCH_NORM_EPS).rsqrt()
    folded = weight.double() * scale[:, None, None, None]
    return folded.float(), (beta.double() - mean.double() * scale).float()
