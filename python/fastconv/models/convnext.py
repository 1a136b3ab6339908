# SPDX-License-Identifier: Apache-2.0
"""ConvNeXt: a convolutional network with the proportions and habits of a vision transformer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import nn
from ..arrays import namespace
from ..nn import init
from ..tensor import Tensor
from .parts import initialize, scaled

_WIDTHS = (96, 192, 384, 768)
_CHANNELS_LAST, _CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


class Permute(nn.Module):
    """x with its axes in another order."""

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)
        self.layout = "channels_last" if self.axes == _CHANNELS_LAST else "channels_first"  # of the result

    def forward(self, x: Any) -> Tensor:
        return x.transpose(*self.axes)

    def extra_repr(self) -> str:
        return f"{self.axes}"


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation of x (N, C, H, W) over its channels, each pixel for itself."""

    layout = "channels_first"

    def forward(self, x: Any) -> Tensor:
        return super().forward(x.transpose(*_CHANNELS_LAST)).transpose(*_CHANNELS_FIRST)


class StochasticDepth(nn.Module):
    """In training, x (N, *) with each sample zero with probability p, else divided by 1 - p; G. Huang et al., "Deep
    Networks with Stochastic Depth", ECCV 2016."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.keep = nn.Dropout(p)

    def forward(self, x: Any) -> Tensor:
        if not self.training or not self.keep.p:
            return x
        ones = namespace(x.data).ones((x.shape[0],) + (1,) * (x.ndim - 1), x.dtype)
        return x * self.keep(Tensor(ones))


class Block(nn.Module):
    """x plus a branch: depthwise 7 x 7, layer norm, four times the channels and back per pixel, scaled per channel.

    Figure 4 of the paper; between the two Permutes the channels are last, so that 1 x 1 convolutions are dense layers.
    """

    def __init__(self, channels: int, layer_scale: float, drop: float) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            Permute(_CHANNELS_LAST),
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            Permute(_CHANNELS_FIRST),
        )
        self.layer_scale = nn.Parameter(np.full((channels, 1, 1), layer_scale, np.float32))
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, x: Any) -> Tensor:
        return x + self.stochastic_depth(self.block(x) * self.layer_scale)


def convnext_tiny(
    num_classes: int = 1000,
    in_channels: int = 3,
    stochastic_depth: float = 0.1,
    *,
    depths: Sequence[int] = (3, 3, 9, 3),
    layer_scale: float = 1e-6,
    width_mult: float = 1.0,
) -> nn.Sequential:
    """ConvNeXt-Tiny for images (N, in_channels, H, W) of 32 pixels and more, made for 224: logits (N, num_classes).

    Z. Liu, H. Mao, C.-Y. Wu, C. Feichtenhofer, T. Darrell, S. Xie, "A ConvNet for the 2020s", CVPR 2022 (arXiv
    2201.03545), section 2 and table 9. 28,589,128 parameters, 4,455,531,264 multiply-adds. Keys are torchvision's.

    Args:
        stochastic_depth: the probability with which training leaves out the last block; of earlier ones in proportion.
        depths: how many blocks each of the stages has.
        layer_scale: what the factor per channel of each block starts from.
        width_mult: a factor on all channel counts.

    | layer                            | output at 224 | parameters |
    |----------------------------------|---------------|------------|
    | Conv2d 4x4 s4, LayerNorm         | 96 @ 56x56    | 4,896      |
    | 3 blocks                         | 96 @ 56x56    | 237,888    |
    | LayerNorm, Conv2d 2x2 s2         | 192 @ 28x28   | 74,112     |
    | 3 blocks                         | 192 @ 28x28   | 918,144    |
    | LayerNorm, Conv2d 2x2 s2         | 384 @ 14x14   | 295,680    |
    | 9 blocks                         | 384 @ 14x14   | 10,817,280 |
    | LayerNorm, Conv2d 2x2 s2         | 768 @ 7x7     | 1,181,184  |
    | 3 blocks                         | 768 @ 7x7     | 14,289,408 |
    | mean, LayerNorm, Linear          | 1000          | 770,536    |
    """
    widths = [scaled(channels, width_mult) for channels in _WIDTHS]
    total = max(1, sum(depths) - 1)
    with init.skip():
        features = nn.Sequential(nn.Sequential(nn.Conv2d(in_channels, widths[0], 4, 4), LayerNorm2d(widths[0], 1e-6)))
        done = 0
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if stage:
                before = widths[stage - 1]
                features.append(nn.Sequential(LayerNorm2d(before, 1e-6), nn.Conv2d(before, width, 2, 2)))
            drops = [stochastic_depth * number / total for number in range(done, done + depth)]
            features.append(nn.Sequential(*(Block(width, layer_scale, drop) for drop in drops)))
            done += depth
        head = nn.Sequential(LayerNorm2d(widths[-1], 1e-6), nn.Flatten(), nn.Linear(widths[-1], num_classes))
        model = nn.Sequential({"features": features, "avgpool": nn.AdaptiveAvgPool2d(1), "classifier": head})
    initialize(model, conv=_narrow, linear=_narrow)
    return model


def _narrow(w: Tensor) -> Tensor:
    """Normal with standard deviation 0.02, as appendix A of the paper."""
    return init.normal(w, 0.0, 0.02)
