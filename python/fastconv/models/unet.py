# SPDX-License-Identifier: Apache-2.0
"""U-Net: a class for every pixel, from a path down to what is there and a path up to where it is."""

from typing import Any

from .. import nn, ops
from ..nn import init
from ..tensor import Tensor
from .parts import initialize, scaled


def _two_convolutions(in_channels: int, out_channels: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=padding),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=padding),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """What `unet` makes: `down` has the five pairs of convolutions of the way down, `expand` and `up` the four
    up-convolutions and pairs of the way up, `last` the 1 x 1 convolution."""

    def __init__(self, num_classes: int, in_channels: int, width: int, padding: int, dropout: float) -> None:
        super().__init__()
        widths = [width << level for level in range(5)]
        self.down = nn.ModuleList(
            _two_convolutions(before, after, padding)
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.expand = nn.ModuleList(nn.ConvTranspose2d(2 * wide, wide, 2, stride=2) for wide in widths[-2::-1])
        self.up = nn.ModuleList(_two_convolutions(2 * wide, wide, padding) for wide in widths[-2::-1])
        self.last = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Any) -> Tensor:
        maps = []
        for level, pair in enumerate(self.down):
            x = pair(self.pool(x) if level else x)
            maps.append(x)
        x = self.dropout(maps.pop())
        for expand, pair in zip(self.expand, self.up, strict=True):
            x = expand(x)
            x = pair(ops.concat([_middle(maps.pop(), x.shape[2:]), x], axis=1))
        return self.last(x)


def _middle(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """The middle of x (N, C, H, W): valid convolutions have taken the borders from what it is joined with."""
    top, left = ((n - wanted) // 2 for n, wanted in zip(x.shape[2:], size, strict=True))
    return x[:, :, top : top + size[0], left : left + size[1]]


def unet(
    num_classes: int = 2, in_channels: int = 1, dropout: float = 0.5, *, width_mult: float = 1.0, padding: str = "valid"
) -> UNet:
    """U-Net for images (N, in_channels, H, W): logits (N, num_classes, P, Q) for the pixels in the middle.

    O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015
    (arXiv 1505.04597), section 2 and figure 1. 31,030,658 parameters, 150,428,424,448 multiply-adds for the paper's
    image of 572 x 572, whose answer is 388 x 388. Initial values are He et al.'s, as in section 3.

    Args:
        dropout: at the end of the way down (section 3.1).
        width_mult: a factor on the 64 channels of the first level; every level has twice those of the one above.
        padding: "valid" as in the paper, or "same": the answer has the image's size then, whose sides must be multiples
            of 16.

    Raises:
        ValueError: another padding.

    | level                       | output at 572    | parameters |
    |-----------------------------|------------------|------------|
    | two Conv2d 3x3              | 64 @ 568x568     | 37,568     |
    | pool, two Conv2d 3x3        | 128 @ 280x280    | 221,440    |
    | pool, two Conv2d 3x3        | 256 @ 136x136    | 885,248    |
    | pool, two Conv2d 3x3        | 512 @ 64x64      | 3,539,968  |
    | pool, two Conv2d 3x3        | 1024 @ 28x28     | 14,157,824 |
    | up, join, two Conv2d 3x3    | 512 @ 52x52      | 9,176,576  |
    | up, join, two Conv2d 3x3    | 256 @ 100x100    | 2,294,528  |
    | up, join, two Conv2d 3x3    | 128 @ 196x196    | 573,824    |
    | up, join, two Conv2d 3x3    | 64 @ 388x388     | 143,552    |
    | Conv2d 1x1                  | 2 @ 388x388      | 130        |
    """
    if padding not in ("valid", "same"):
        raise ValueError(f"unet: padding is {padding!r}; expected 'valid' or 'same'")
    with init.skip():
        model = UNet(num_classes, in_channels, scaled(64, width_mult), int(padding == "same"), dropout)
    initialize(model, conv=lambda w: init.kaiming_normal(w, nonlinearity="relu"))
    for expand in model.expand:
        expand.reset_parameters()
    return model
