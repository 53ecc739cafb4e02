"""EfficientNet-lite0, 1,000 ImageNet classes.

The architecture and the names of the tensors are those of timm's `efficientnet_lite0`. timm is not used for this
network because its import takes as long as importing torch: it also imports torchvision and PyTorch's compiler.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
STAGES = (  # (blocks, kernel, stride of the first block, expansion of the channels, channels)
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """Normalised pixels (B, 3, S, S) to class logits (B, classes)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, STEM_CHANNELS, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.blocks, channels = nn.Sequential(), STEM_CHANNELS
        for count, kernel, stride, expansion, c_out in STAGES:
            stage = nn.Sequential()
            for number in range(count):
                stage.append(_block(channels, c_out, kernel, 1 if number else stride, expansion))
                channels = c_out
            self.blocks.append(stage)
        self.conv_head = nn.Conv2d(channels, HEAD_CHANNELS, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(HEAD_CHANNELS)
        self.classifier = nn.Linear(HEAD_CHANNELS, classes)
        self._initialise()

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.blocks(_relu6(self.bn1(self.conv_stem(pixels))))
        maps = _relu6(self.bn2(self.conv_head(maps)))
        return self.classifier(maps.mean(dim=(2, 3)))

    def _initialise(self) -> None:
        """As timm does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                height, width = module.kernel_size
                fan_out = height * width * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        bound = 1 / math.sqrt(self.classifier.out_features)
        nn.init.uniform_(self.classifier.weight, -bound, bound)
        nn.init.zeros_(self.classifier.bias)


class SeparableBlock(nn.Module):
    """Depthwise convolution, then a pointwise one without an activation."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(c_in, c_in, kernel, stride, kernel // 2, groups=c_in, bias=False)
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv_pw = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.adds_input = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        maps = self.bn2(self.conv_pw(_relu6(self.bn1(self.conv_dw(x)))))
        return maps + x if self.adds_input else maps


class InvertedResidual(nn.Module):
    """Pointwise convolution to more channels, depthwise convolution, pointwise convolution without an activation."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = c_in * expansion
        self.conv_pw = nn.Conv2d(c_in, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv_dw = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv_pwl = nn.Conv2d(wide, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.adds_input = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        maps = _relu6(self.bn1(self.conv_pw(x)))
        maps = _relu6(self.bn2(self.conv_dw(maps)))
        maps = self.bn3(self.conv_pwl(maps))
        return maps + x if self.adds_input else maps


def _block(c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> nn.Module:
    if expansion == 1:
        return SeparableBlock(c_in, c_out, kernel, stride)
    return InvertedResidual(c_in, c_out, kernel, stride, expansion)


def _relu6(maps: Tensor) -> Tensor:
    return F.relu6(maps, inplace=True)
