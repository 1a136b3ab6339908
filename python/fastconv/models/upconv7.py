# SPDX-License-Identifier: Apache-2.0
"""waifu2x's upconv_7: an image of twice the size, from six convolutions and a transposed one."""

from .. import nn

_CHANNELS = (16, 32, 64, 128, 128, 256)
EDGE = 7  # how many pixels of border the valid convolutions take away


def upconv_7(channels: int = 3) -> nn.Sequential:
    """upconv_7 for images (N, channels, H + 14, W + 14) in 0..1, of which 7 on each side are border: (N, channels, 2 H,
    2 W).

    The model of that name of nagadomi's waifu2x (https://github.com/nagadomi/waifu2x, lib/srcnn.lua), which descends
    from C. Dong et al., "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016. Six convolutions
    without padding, leaky ReLU with slope 0.1 after each, then a transposed convolution with stride 2; its padding of
    3 cuts away what no whole window made. The border is the image's edge repeated: `fc.models.card("upconv_7")`.
    552,483 parameters, 9,521,953,536 multiply-adds for an image of 128 x 128.

    | layer                              | output               | parameters |
    |------------------------------------|----------------------|------------|
    | Conv2d 3x3, LeakyReLU              | 16 @ H+12xW+12       | 448        |
    | Conv2d 3x3, LeakyReLU              | 32 @ H+10xW+10       | 4,640      |
    | Conv2d 3x3, LeakyReLU              | 64 @ H+8xW+8         | 18,496     |
    | Conv2d 3x3, LeakyReLU              | 128 @ H+6xW+6        | 73,856     |
    | Conv2d 3x3, LeakyReLU              | 128 @ H+4xW+4        | 147,584    |
    | Conv2d 3x3, LeakyReLU              | 256 @ H+2xW+2        | 295,168    |
    | ConvTranspose2d 4x4 s2, padding 3  | 3 @ 2Hx2W            | 12,291     |
    """
    layers: list[nn.Module] = []
    before = channels
    for after in _CHANNELS:
        layers += [nn.Conv2d(before, after, 3), nn.LeakyReLU(0.1)]
        before = after
    return nn.Sequential(*layers, nn.ConvTranspose2d(before, channels, 4, stride=2, padding=3))
