# SPDX-License-Identifier: Apache-2.0
"""What several networks share: scaled channel counts, convolutions with batch norm, initial values."""

from collections.abc import Callable
from typing import Any

from .. import nn
from ..nn import init
from ..tensor import Tensor


def scaled(channels: int, width_mult: float) -> int:
    """`channels` times a factor, rounded to an even number (two groups divide it) of at least 2."""
    return max(2, 2 * round(channels * width_mult / 2))


def divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` next to `channels`, at least `divisor` and at least nine tenths of `channels`.

    How the MobileNets round. Sandler et al., "MobileNetV2", 2018, and the code that its authors published.
    """
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * channels else nearest + divisor


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] = nn.ReLU6,
) -> nn.Sequential:
    """A convolution without bias that keeps the size (up to its stride), batch norm, and an activation."""
    padding = (kernel_size - 1) // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        activation(),
    )


def initialize(
    model: nn.Module,
    conv: Callable[[Tensor], Any],
    linear: Callable[[Tensor], Any] | None = None,
) -> None:
    """Draw the weights of all convolutions by `conv` and make their biases zero.

    linear: the same for dense layers; None draws the default of `nn.Linear`.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw = conv if isinstance(module, nn.Conv2d) else linear
            if draw is None:
                module.reset_parameters()
                continue
            draw(module.weight)
            if module.bias is not None:
                init.zeros(module.bias)


def kaiming_fan_out(w: Tensor) -> Tensor:
    """Normal with variance 2 / fan_out: He et al. 2015, for what comes back through a ReLU."""
    return init.kaiming_normal(w, mode="fan_out", nonlinearity="relu")


def small_normal(w: Tensor) -> Tensor:
    """Normal with standard deviation 0.01."""
    return init.normal(w, 0.0, 0.01)
