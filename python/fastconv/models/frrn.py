# SPDX-License-Identifier: Apache-2.0
"""FRRN: segmentation by two streams, one that keeps the image's resolution and one that sees the whole."""

from typing import Any

from .. import nn, ops
from ..nn import init
from ..tensor import Tensor
from .parts import initialize, scaled

# (channels, units, factor between the image and the pooled stream) of the way down and of the way up.
_UNITS = ((96, 3, 2), (192, 4, 4), (384, 2, 8), (384, 2, 16), (192, 2, 8), (192, 2, 4), (96, 2, 2))


def _conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Sequential:
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


class ResidualUnit(nn.Module):
    """x plus two convolutions of it: figure 2b's block at full resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv_norm_relu(channels, channels)
        self.conv2 = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Any) -> Tensor:
        return x + self.conv2(self.conv1(x))


class FullResolutionResidualUnit(nn.Module):
    """Section 3.2, figure 2c: the pooled stream sees the residual one through max pooling, and adds to it enlarged.

    pooled (N, in_channels, H / factor, W / factor), residual (N, residual_channels, H, W) -> the same two, with
    `channels` in the pooled one.
    """

    def __init__(self, in_channels: int, channels: int, residual_channels: int, factor: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(factor)
        self.conv1 = _conv_norm_relu(in_channels + residual_channels, channels)
        self.conv2 = _conv_norm_relu(channels, channels)
        self.back = nn.Conv2d(channels, residual_channels, 1)
        self.unpool = nn.Upsample(scale_factor=factor)

    def forward(self, pooled: Any, residual: Any) -> tuple[Tensor, Tensor]:
        pooled = self.conv2(self.conv1(ops.concat([pooled, self.pool(residual)], axis=1)))
        return pooled, residual + self.unpool(self.back(pooled))


class FRRN(nn.Module):
    """What `frrn_a` makes."""

    def __init__(self, num_classes: int, in_channels: int, width_mult: float) -> None:
        super().__init__()
        base, residual = scaled(48, width_mult), scaled(32, width_mult)
        self.first = _conv_norm_relu(in_channels, base, 5)
        self.before = nn.Sequential(*(ResidualUnit(base) for _ in range(3)))
        self.split = nn.Conv2d(base, residual, 1)
        self.groups = nn.ModuleList()
        self.factors = [factor for _, _, factor in _UNITS]
        channels = base
        for wanted, count, factor in _UNITS:
            group = nn.ModuleList()
            for _ in range(count):
                wider = scaled(wanted, width_mult)
                group.append(FullResolutionResidualUnit(channels, wider, residual, factor))
                channels = wider
            self.groups.append(group)
        self.pool, self.unpool = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.join = _conv_norm_relu(channels + residual, base, 1)
        self.after = nn.Sequential(*(ResidualUnit(base) for _ in range(3)))
        self.last = nn.Conv2d(base, num_classes, 1)

    def forward(self, x: Any) -> Tensor:
        pooled = self.before(self.first(x))
        residual, factor_before = self.split(pooled), 1
        for group, factor in zip(self.groups, self.factors, strict=True):
            pooled = self.pool(pooled) if factor > factor_before else self.unpool(pooled)
            factor_before = factor
            for unit in group:
                pooled, residual = unit(pooled, residual)
        joined = self.join(ops.concat([self.unpool(pooled), residual], axis=1))
        return self.last(self.after(joined))


def frrn_a(num_classes: int = 19, in_channels: int = 3, *, width_mult: float = 1.0) -> FRRN:
    """FRRN-A for images (N, in_channels, H, W) with sides that 16 divides: logits (N, num_classes, H, W).

    T. Pohlen, A. Hermans, M. Mathias, B. Leibe, "Full-Resolution Residual Networks for Semantic Segmentation in Street
    Scenes", CVPR 2017 (arXiv 1611.08323), section 3 and table 1a. Of what the table leaves open: the streams are joined
    by a 1 x 1 convolution with batch norm and ReLU to 48 channels, the last batch norm of a residual unit has no ReLU
    behind it, unpooling repeats pixels. 17,712,307 parameters ("17.7 million"), 118,568,779,776 multiply-adds for an
    image of 256 x 512.

    Args:
        width_mult: a factor on all channel counts.

    | layer                          | pooled stream     | residual stream |
    |--------------------------------|-------------------|-----------------|
    | Conv2d 5x5, 3 residual units   | 48 @ HxW          |                 |
    | split, max pool                | 48 @ H/2xW/2      | 32 @ HxW        |
    | 3 FRRUs, max pool              | 96 @ H/4xW/4      | 32 @ HxW        |
    | 4 FRRUs, max pool              | 192 @ H/8xW/8     | 32 @ HxW        |
    | 2 FRRUs, max pool              | 384 @ H/16xW/16   | 32 @ HxW        |
    | 2 FRRUs, unpool                | 384 @ H/8xW/8     | 32 @ HxW        |
    | 2 FRRUs, unpool                | 192 @ H/4xW/4     | 32 @ HxW        |
    | 2 FRRUs, unpool                | 192 @ H/2xW/2     | 32 @ HxW        |
    | 2 FRRUs, unpool                | 96 @ HxW          | 32 @ HxW        |
    | join, 3 residual units         | 48 @ HxW          |                 |
    | Conv2d 1x1                     | num_classes @ HxW |                 |
    """
    with init.skip():
        model = FRRN(num_classes, in_channels, width_mult)
    initialize(model, conv=lambda w: init.kaiming_normal(w, nonlinearity="relu"))
    return model
