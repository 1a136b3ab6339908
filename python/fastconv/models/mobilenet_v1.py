# SPDX-License-Identifier: Apache-2.0
"""MobileNet: convolutions taken apart into depthwise ones and ones of 1 x 1."""

from .. import nn
from ..nn import init
from .parts import conv_norm, divisible, initialize, kaiming_fan_out, small_normal

# (channels, stride) of the thirteen pairs.
_PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def mobilenet_v1(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.001, *, width_mult: float = 1.0
) -> nn.Sequential:
    """MobileNet for images (N, in_channels, 224, 224), from 32 x 32 on: logits (N, num_classes).

    A. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017 (arXiv
    1704.04861), table 1. 4,231,976 parameters, 568,740,352 MACs ("4.2 million, 569 million"). The last depthwise
    convolution has stride 1: the table's 2 does not give its 7 x 7. Keys as `mobilenet_v2` has them. The dropout is
    that of the authors' code.

    Args:
        width_mult: the paper's alpha, a factor on all channel counts, rounded to multiples of 8.

    | layer                         | output       | parameters |
    |-------------------------------|--------------|------------|
    | Conv2d 3x3 s2                 | 32 @ 112x112 | 928        |
    | depthwise and 1x1             | 64 @ 112x112 | 2,528      |
    | 2 x depthwise and 1x1, s2     | 128 @ 56x56  | 27,200     |
    | 2 x depthwise and 1x1, s2     | 256 @ 28x28  | 103,552    |
    | 6 x depthwise and 1x1, s2     | 512 @ 14x14  | 1,478,912  |
    | 2 x depthwise and 1x1, s2     | 1024 @ 7x7   | 1,593,856  |
    | mean, Linear                  | 1000         | 1,025,000  |
    """
    channels = divisible(32 * width_mult)
    with init.skip():
        features = nn.Sequential(conv_norm(in_channels, channels, 3, stride=2, activation=nn.ReLU))
        for wanted, stride in _PAIRS:
            wider = divisible(wanted * width_mult)
            features.append(
                nn.Sequential(
                    conv_norm(channels, channels, 3, stride, groups=channels, activation=nn.ReLU),
                    conv_norm(channels, wider, 1, activation=nn.ReLU),
                )
            )
            channels = wider
        model = nn.Sequential(
            {
                "features": features,
                "avgpool": nn.AdaptiveAvgPool2d(1),
                "flatten": nn.Flatten(),
                "classifier": nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, num_classes)),
            }
        )
    initialize(model, conv=kaiming_fan_out, linear=small_normal)
    return model
