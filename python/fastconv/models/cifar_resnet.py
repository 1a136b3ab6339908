# SPDX-License-Identifier: Apache-2.0
"""The small residual networks for CIFAR-10, whose shortcuts have no parameters.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385), section 4.2.
"""

from typing import Any

from .. import nn, ops
from ..nn import init
from .parts import initialize, kaiming_fan_out


class CifarBlock(nn.Module):
    """relu(s(x) + F(x)), where F is two convolutions of 3 x 3 with batch norm.

    x (N, in_channels, H, W) -> (N, channels, H / stride, W / stride). s is the identity; where the shapes differ, it
    takes every `stride`-th cell and adds channels of zeros (option A of section 3.3).
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.new_channels = stride, channels - in_channels

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1 or self.new_channels:
            x = x[:, :, :: self.stride, :: self.stride]
            x = ops.pad(x, ((0, 0), (0, self.new_channels), (0, 0), (0, 0)))
        return self.relu(y + x)


def _cifar_resnet(blocks: int, num_classes: int, in_channels: int) -> nn.Sequential:
    with init.skip():
        parts: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
            "bn1": nn.BatchNorm2d(16),
            "relu": nn.ReLU(),
        }
        inputs = 16
        for number, channels in enumerate((16, 32, 64)):
            layer = nn.Sequential()
            for i in range(blocks):
                layer.append(CifarBlock(inputs, channels, 2 if number and i == 0 else 1))
                inputs = channels
            parts[f"layer{number + 1}"] = layer
        parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(64, num_classes)}
        model = nn.Sequential(parts)
    initialize(model, conv=kaiming_fan_out)
    return model


def cifar_resnet20(num_classes: int = 10, in_channels: int = 3) -> nn.Sequential:
    """ResNet-20 for images (N, in_channels, 32, 32): logits (N, num_classes).

    6n + 2 layers with n = 3. 269,722 parameters (the paper's 0.27 million), 40,551,040 MACs.

    | layer          | output     | parameters |
    |----------------|------------|------------|
    | Conv2d 3x3     | 16 @ 32x32 | 464        |
    | 3 CifarBlock   | 16 @ 32x32 | 14,016     |
    | 3 CifarBlock   | 32 @ 16x16 | 51,072     |
    | 3 CifarBlock   | 64 @ 8x8   | 203,520    |
    | mean, Linear   | 10         | 650        |
    """
    return _cifar_resnet(3, num_classes, in_channels)


def cifar_resnet56(num_classes: int = 10, in_channels: int = 3) -> nn.Sequential:
    """`cifar_resnet20` with 9 blocks of each width. 853,018 parameters (the paper's 0.85 million), 125,485,696 MACs."""
    return _cifar_resnet(9, num_classes, in_channels)
