# SPDX-License-Identifier: Apache-2.0
"""MobileNet v2: blocks that widen, filter each channel by itself, and narrow again."""

from typing import Any

from .. import nn
from ..nn import init
from .parts import conv_norm, divisible, initialize, kaiming_fan_out, small_normal

# (factor by which a block widens, its channels, how many, the stride of the first)
_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """x (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), plus x where the shapes are equal.

    1 x 1 to `expand` times the channels (unless that is 1), depthwise 3 x 3, both with batch norm and ReLU6, and 1 x 1
    with batch norm alone: figure 4d.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = in_channels * expand
        widen = [conv_norm(in_channels, hidden, 1)] if expand != 1 else []
        self.conv = nn.Sequential(
            *widen,
            conv_norm(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Any) -> Any:
        return x + self.conv(x) if self.adds else self.conv(x)


def mobilenet_v2(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2, *, width_mult: float = 1.0
) -> nn.Sequential:
    """MobileNet v2 for images (N, in_channels, 224, 224), from 32 x 32 on: logits (N, num_classes).

    M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    CVPR 2018 (arXiv 1801.04381), table 2. 3,504,872 parameters, 300,774,272 MACs ("3.4 million, 300 million"). Keys
    and initial values are torchvision's.

    Args:
        width_mult: a factor on all channel counts, rounded to multiples of 8; the last convolution never gets narrower.

    | layer                   | output       | parameters |
    |-------------------------|--------------|------------|
    | Conv2d 3x3 s2           | 32 @ 112x112 | 928        |
    | 1 InvertedResidual      | 16 @ 112x112 | 896        |
    | 2 InvertedResidual, s2  | 24 @ 56x56   | 13,968     |
    | 3 InvertedResidual, s2  | 32 @ 28x28   | 39,696     |
    | 4 InvertedResidual, s2  | 64 @ 14x14   | 183,872    |
    | 3 InvertedResidual      | 96 @ 14x14   | 303,168    |
    | 3 InvertedResidual, s2  | 160 @ 7x7    | 795,264    |
    | 1 InvertedResidual      | 320 @ 7x7    | 473,920    |
    | Conv2d 1x1              | 1280 @ 7x7   | 412,160    |
    | mean, Linear            | 1000         | 1,281,000  |
    """
    channels, last = divisible(32 * width_mult), divisible(1280 * max(1.0, width_mult))
    with init.skip():
        features = nn.Sequential(conv_norm(in_channels, channels, 3, stride=2))
        for expand, wanted, count, stride in _BLOCKS:
            wider = divisible(wanted * width_mult)
            for i in range(count):
                features.append(InvertedResidual(channels, wider, stride if i == 0 else 1, expand))
                channels = wider
        features.append(conv_norm(channels, last, 1))
        model = nn.Sequential(
            {
                "features": features,
                "avgpool": nn.AdaptiveAvgPool2d(1),
                "flatten": nn.Flatten(),
                "classifier": nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes)),
            }
        )
    initialize(model, conv=kaiming_fan_out, linear=small_normal)
    return model
