# SPDX-License-Identifier: Apache-2.0
"""OverFeat: a classifier whose dense layers are convolutions, so that a larger image gives a map of answers."""

from .. import nn
from ..nn import init
from .parts import initialize, scaled, small_normal


def overfeat(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5, *, width_mult: float = 1.0
) -> nn.Sequential:
    """OverFeat's fast net for images (N, in_channels, H, W) from 231 x 231 on: logits (N, num_classes, P, Q).

    P. Sermanet, D. Eigen, X. Zhang, M. Mathieu, R. Fergus, Y. LeCun, "OverFeat: Integrated Recognition, Localization
    and Detection using Convolutional Networks", ICLR 2014 (arXiv 1312.6229), sections 3.2 and 3.5, table 1. An image of
    231 x 231 gives one answer; every 32 pixels more to the right or below give another, those of the window of 231 x
    231 there (but for what the padded convolutions see beyond its border), for the work of the new pixels alone.
    145,920,872 parameters ("145 million"), 2,801,403,904 multiply-adds for 231 x 231.

    Args:
        width_mult: a factor on all channel counts in between.

    | layer                          | output at 231 | parameters  |
    |--------------------------------|---------------|-------------|
    | Conv2d 11x11 s4, max pool 2    | 96 @ 28x28    | 34,944      |
    | Conv2d 5x5, max pool 2         | 256 @ 12x12   | 614,656     |
    | Conv2d 3x3                     | 512 @ 12x12   | 1,180,160   |
    | Conv2d 3x3                     | 1024 @ 12x12  | 4,719,616   |
    | Conv2d 3x3, max pool 2         | 1024 @ 6x6    | 9,438,208   |
    | Conv2d 6x6 (dense)             | 3072 @ 1x1    | 113,249,280 |
    | Conv2d 1x1 (dense)             | 4096 @ 1x1    | 12,587,008  |
    | Conv2d 1x1 (dense)             | 1000 @ 1x1    | 4,097,000   |
    """
    first, second, third, fourth, dense1, dense2 = (
        scaled(wanted, width_mult) for wanted in (96, 256, 512, 1024, 3072, 4096)
    )
    with init.skip():
        features = nn.Sequential(
            nn.Conv2d(in_channels, first, 11, 4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(third, fourth, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(fourth, fourth, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        classifier = nn.Sequential(
            nn.Conv2d(fourth, dense1, 6),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(dense1, dense2, 1),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(dense2, num_classes, 1),
        )
        model = nn.Sequential({"features": features, "classifier": classifier})
    initialize(model, conv=small_normal)
    return model
