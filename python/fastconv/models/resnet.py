# SPDX-License-Identifier: Apache-2.0
"""Residual networks for ImageNet, and the plain one of 34 layers that they were compared with.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385).
Keys and initial values are torchvision's.
"""

from typing import Any

from .. import nn
from ..nn import init
from .parts import initialize, kaiming_fan_out, scaled


class BasicBlock(nn.Module):
    """relu(x + F(x)), where F is two convolutions of 3 x 3 with batch norm: figure 5, left.

    x (N, in_channels, H, W) -> (N, channels, H / stride, W / stride). Where the shapes differ, x passes a convolution
    of 1 x 1 and batch norm (option B of section 3.3). shortcut=False gives relu(F(x)), the plain net's block.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = shortcut
        self.downsample = _downsample(in_channels, channels, stride) if shortcut else None

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.shortcut:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)


class Bottleneck(nn.Module):
    """relu(x + F(x)), where F is convolutions of 1 x 1, 3 x 3 and 1 x 1 with batch norm: figure 5, right.

    x (N, in_channels, H, W) -> (N, 4 channels, H / stride, W / stride). As in torchvision the convolution of 3 x 3 has
    the stride; in the paper the first of 1 x 1 has it.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU()
        self.downsample = _downsample(in_channels, 4 * channels, stride)

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def _downsample(in_channels: int, channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


def _resnet(
    block: Any,
    blocks: tuple[int, int, int, int],
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    zero_init_residual: bool = False,
    width_mult: float = 1.0,
    **block_options: Any,
) -> nn.Sequential:
    stem = scaled(64, width_mult)
    with init.skip():
        parts: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(in_channels, stem, 7, stride=2, padding=3, bias=False),
            "bn1": nn.BatchNorm2d(stem),
            "relu": nn.ReLU(),
            "maxpool": nn.MaxPool2d(3, 2, padding=1),
        }
        inputs = stem
        for number, count in enumerate(blocks):
            channels, layer = scaled(64 * 2**number, width_mult), nn.Sequential()
            for i in range(count):
                layer.append(block(inputs, channels, 2 if number and i == 0 else 1, **block_options))
                inputs = channels * block.expansion
            parts[f"layer{number + 1}"] = layer
        parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(inputs, num_classes)}
        model = nn.Sequential(parts)
    initialize(model, conv=kaiming_fan_out)
    if zero_init_residual:  # every block begins as the identity: Goyal et al. 2017 (arXiv 1706.02677), section 5.1
        for module in model.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                init.zeros(module.bn2.weight if isinstance(module, BasicBlock) else module.bn3.weight)
    return model


def plain34(num_classes: int = 1000, in_channels: int = 3, *, width_mult: float = 1.0) -> nn.Sequential:
    """`resnet34` without its shortcuts: figure 3, middle.

    21,623,848 parameters, 3,644,493,824 MACs ("3.6 billion").
    """
    return _resnet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, width_mult=width_mult, shortcut=False)


def resnet18(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """ResNet-18 for images (N, in_channels, 224, 224), from 32 x 32 on: logits (N, num_classes).

    He et al. 2016, table 1. 11,689,512 parameters, 1,814,073,344 MACs.

    Args:
        zero_init_residual: begin with blocks that are the identity, False.
        width_mult: a factor on all channel counts, 1.

    | layer            | output        | parameters |
    |------------------|---------------|------------|
    | Conv2d 7x7 s2    | 64 @ 112x112  | 9,536      |
    | MaxPool2d 3 s2   | 64 @ 56x56    |            |
    | 2 BasicBlock     | 64 @ 56x56    | 147,968    |
    | 2 BasicBlock     | 128 @ 28x28   | 525,568    |
    | 2 BasicBlock     | 256 @ 14x14   | 2,099,712  |
    | 2 BasicBlock     | 512 @ 7x7     | 8,393,728  |
    | mean, Linear     | 1000          | 513,000    |
    """
    return _resnet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, **options)


def resnet34(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """`resnet18` with 3, 4, 6 and 3 blocks. 21,797,672 parameters, 3,663,761,408 MACs."""
    return _resnet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, **options)


def resnet50(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """ResNet-50 for images (N, in_channels, 224, 224), from 32 x 32 on: logits (N, num_classes).

    He et al. 2016, table 1; options as for `resnet18`. 25,557,032 parameters, 4,089,184,256 MACs; the paper's 3.8
    billion have the strides in the convolutions of 1 x 1.

    | layer            | output        | parameters |
    |------------------|---------------|------------|
    | Conv2d 7x7 s2    | 64 @ 112x112  | 9,536      |
    | MaxPool2d 3 s2   | 64 @ 56x56    |            |
    | 3 Bottleneck     | 256 @ 56x56   | 215,808    |
    | 4 Bottleneck     | 512 @ 28x28   | 1,219,584  |
    | 6 Bottleneck     | 1024 @ 14x14  | 7,098,368  |
    | 3 Bottleneck     | 2048 @ 7x7    | 14,964,736 |
    | mean, Linear     | 1000          | 2,049,000  |
    """
    return _resnet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, **options)


def resnet101(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """`resnet50` with 3, 4, 23 and 3 blocks. 44,549,160 parameters, 7,801,405,440 MACs."""
    return _resnet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, **options)


def resnet152(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Sequential:
    """`resnet50` with 3, 8, 36 and 3 blocks. 60,192,808 parameters, 11,513,626,624 MACs."""
    return _resnet(Bottleneck, (3, 8, 36, 3), num_classes, in_channels, **options)
