# SPDX-License-Identifier: Apache-2.0
"""SqueezeNet: AlexNet's accuracy with fifty times fewer parameters."""

from typing import Any

from .. import nn, ops
from ..tensor import Tensor


class Fire(nn.Module):
    """The fire module: x (N, in_channels, H, W) is squeezed to few channels by 1 x 1 filters, then expanded by 1 x 1
    and 3 x 3 filters side by side to (N, 2 expand, H, W). Section 3.2 of the paper."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1, activation="relu")
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1, activation="relu")
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1, activation="relu")

    def forward(self, x: Any) -> Tensor:
        x = self.squeeze(x)
        return ops.concat([self.expand1x1(x), self.expand3x3(x)], axis=1)


class SqueezeNet(nn.Module):
    """What `squeezenet1_1` makes."""

    def __init__(self, num_classes: int, in_channels: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Conv2d(512, num_classes, 1), nn.ReLU(), nn.GlobalAvgPool2d()
        )

    def forward(self, x: Any) -> Tensor:
        return self.classifier(self.features(x)).flatten(1)


def squeezenet1_1(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> SqueezeNet:
    """SqueezeNet 1.1 for images (N, in_channels, H, W) of 17 pixels and more; returns logits (N, num_classes).

    F. N. Iandola, S. Han, M. W. Moskewicz, K. Ashraf, W. J. Dally, K. Keutzer, "SqueezeNet: AlexNet-level accuracy with
    50x fewer parameters and <0.5MB model size", arXiv:1602.07360, 2016, sections 3.2 and 3.3; version 1.1 of its
    authors' release has 64 filters of 3 x 3 in the first layer (the paper: 96 of 7 x 7) and pools earlier, which takes
    2.4 times less work. Keys are torchvision's. With its defaults it has 1,235,496 parameters and takes 349,151,936
    multiply-adds for an image of 224 x 224. The first convolution has no padding, pooling rounds its sizes up.

    | layer              | output at 224   | parameters |
    |--------------------|-----------------|------------|
    | Conv2d 3x3 s2      | 64 @ 111x111    | 1,792      |
    | MaxPool2d 3 s2     | 64 @ 55x55      |            |
    | Fire 16, 64 (two)  | 128 @ 55x55     | 23,840     |
    | MaxPool2d 3 s2     | 128 @ 27x27     |            |
    | Fire 32, 128 (two) | 256 @ 27x27     | 94,784     |
    | MaxPool2d 3 s2     | 256 @ 13x13     |            |
    | Fire 48, 192 (two) | 384 @ 13x13     | 215,904    |
    | Fire 64, 256 (two) | 512 @ 13x13     | 386,176    |
    | Conv2d 1x1, mean   | 1000            | 513,000    |
    """
    return SqueezeNet(num_classes, in_channels, dropout)
