# SPDX-License-Identifier: Apache-2.0
"""LeNet-5, the network that read the digits on bank cheques."""

from .. import nn


def lenet5(num_classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """LeNet-5 for images (N, in_channels, 32, 32); returns logits (N, num_classes).

    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE
    86(11), 1998, section II-B. With its defaults it has 61,706 parameters and 416,520 MACs. As most who rebuild it,
    this one differs from the paper: every map of the second convolution sees all six maps before it (the paper's table
    I connects only some), pooling is a plain mean without a trained gain and bias and without a squashing function,
    tanh is not scaled to 1.7159 tanh(2x/3), and the output is a linear layer for softmax and cross-entropy instead of
    Gaussian radial basis units. The third convolution, 120 filters of 5 x 5 on a 5 x 5 map, is written as the linear
    layer that it is.

    | layer     | output    | parameters |
    |-----------|-----------|------------|
    | Conv2d    | 6 @ 28x28 | 156        |
    | AvgPool2d | 6 @ 14x14 |            |
    | Conv2d    | 16 @ 10x10| 2,416      |
    | AvgPool2d | 16 @ 5x5  |            |
    | Linear    | 120       | 48,120     |
    | Linear    | 84        | 10,164     |
    | Linear    | 10        | 850        |
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, num_classes),
    )
