# SPDX-License-Identifier: Apache-2.0
"""VGG: convolutions of 3 x 3 one after the other, with and without batch norm."""

from typing import Any

from .. import nn
from ..nn import init
from .parts import initialize, kaiming_fan_out, scaled, small_normal

# How many convolutions each of the five blocks has; a block ends in max pooling by 2.
_BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)


def _vgg(
    depth: int,
    batch_norm: bool,
    num_classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 0.5,
    *,
    width_mult: float = 1.0,
) -> nn.Sequential:
    hidden = scaled(4096, width_mult)
    layers: list[nn.Module] = []
    channels = in_channels
    with init.skip():
        for convolutions, wanted in zip(_BLOCKS[depth], _CHANNELS, strict=True):
            for _ in range(convolutions):
                wider = scaled(wanted, width_mult)
                norm = [nn.BatchNorm2d(wider)] if batch_norm else []
                layers += [nn.Conv2d(channels, wider, 3, padding=1), *norm, nn.ReLU()]
                channels = wider
            layers.append(nn.MaxPool2d(2))
        model = nn.Sequential(
            {
                "features": nn.Sequential(*layers),
                "avgpool": nn.AdaptiveAvgPool2d(7),
                "flatten": nn.Flatten(),
                "classifier": nn.Sequential(
                    nn.Linear(channels * 7 * 7, hidden),
                    nn.ReLU(),
                    nn.Dropout(dropout),
                    nn.Linear(hidden, hidden),
                    nn.ReLU(),
                    nn.Dropout(dropout),
                    nn.Linear(hidden, num_classes),
                ),
            }
        )
    initialize(model, conv=kaiming_fan_out, linear=small_normal)
    return model


def vgg11(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """VGG-11 for images (N, in_channels, 224, 224), at least 32 x 32: logits (N, num_classes).

    K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014 (arXiv
    1409.1556), table 1, column A. 132,863,336 parameters, 7,609,090,048 MACs. Keys and initial values are those of
    torchvision.

    Args:
        dropout: the probability in both dropout layers, 0.5.
        width_mult: a factor on all channel counts, 1.

    | block                 | output        |
    |-----------------------|---------------|
    | Conv2d 3x3, MaxPool2d | 64 @ 112x112  |
    | Conv2d 3x3, MaxPool2d | 128 @ 56x56   |
    | 2 Conv2d, MaxPool2d   | 256 @ 28x28   |
    | 2 Conv2d, MaxPool2d   | 512 @ 14x14   |
    | 2 Conv2d, MaxPool2d   | 512 @ 7x7     |
    | Linear                | 4096          |
    | Linear                | 4096          |
    | Linear                | 1000          |
    """
    return _vgg(11, False, num_classes, in_channels, **options)


def vgg11_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """`vgg11` with batch norm behind every convolution: 132,868,840 parameters, 7,609,090,048 MACs."""
    return _vgg(11, True, num_classes, in_channels, **options)


def vgg13(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """VGG-13 for images (N, in_channels, 224, 224), at least 32 x 32: logits (N, num_classes).

    Simonyan and Zisserman 2014, table 1, column B: `vgg11` with 2, 2, 2, 2, 2 convolutions in its five blocks.
    133,047,848 parameters, 11,308,466,176 MACs.
    """
    return _vgg(13, False, num_classes, in_channels, **options)


def vgg13_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """`vgg13` with batch norm behind every convolution: 133,053,736 parameters, 11,308,466,176 MACs."""
    return _vgg(13, True, num_classes, in_channels, **options)


def vgg16(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """VGG-16 for images (N, in_channels, 224, 224), at least 32 x 32: logits (N, num_classes).

    Simonyan and Zisserman 2014, table 1, column D: `vgg11` with 2, 2, 3, 3, 3 convolutions in its five blocks.
    138,357,544 parameters, 15,470,264,320 MACs.
    """
    return _vgg(16, False, num_classes, in_channels, **options)


def vgg16_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """`vgg16` with batch norm behind every convolution: 138,365,992 parameters, 15,470,264,320 MACs."""
    return _vgg(16, True, num_classes, in_channels, **options)


def vgg19(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """VGG-19 for images (N, in_channels, 224, 224), at least 32 x 32: logits (N, num_classes).

    Simonyan and Zisserman 2014, table 1, column E: `vgg11` with 2, 2, 4, 4, 4 convolutions in its five blocks.
    143,667,240 parameters, 19,632,062,464 MACs.
    """
    return _vgg(19, False, num_classes, in_channels, **options)


def vgg19_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """`vgg19` with batch norm behind every convolution: 143,678,248 parameters, 19,632,062,464 MACs."""
    return _vgg(19, True, num_classes, in_channels, **options)
