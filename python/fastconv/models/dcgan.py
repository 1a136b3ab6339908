# SPDX-License-Identifier: Apache-2.0
"""DCGAN: a generator that makes images of noise, and a discriminator that tells them from real ones."""

from itertools import pairwise

from .. import nn
from ..nn import init
from ..tensor import Tensor
from .parts import initialize, scaled

_WIDTHS = (1024, 512, 256, 128)


def _narrow(w: Tensor) -> Tensor:
    """Normal with standard deviation 0.02: section 4 of the paper."""
    return init.normal(w, 0.0, 0.02)


def dcgan_generator(latent: int = 100, channels: int = 3, *, width_mult: float = 1.0) -> nn.Sequential:
    """DCGAN's generator: noise (N, latent, 1, 1), uniform in -1..1, to images (N, channels, 64, 64) in -1..1.

    A. Radford, L. Metz, S. Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks", ICLR 2016 (arXiv 1511.06434), section 3 and figure 1. The noise is projected to 4 x 4 by a
    transposed convolution, which is the paper's projection and reshape; then four fractionally-strided convolutions of
    5 x 5, batch norm and ReLU after all but the last, tanh after that. 18,855,043 parameters, 640,614,400
    multiply-adds.

    Args:
        width_mult: a factor on all channel counts in between.

    | layer                   | output       | parameters |
    |-------------------------|--------------|------------|
    | ConvTranspose2d 4x4     | 1024 @ 4x4   | 1,640,448  |
    | ConvTranspose2d 5x5 s2  | 512 @ 8x8    | 13,108,224 |
    | ConvTranspose2d 5x5 s2  | 256 @ 16x16  | 3,277,312  |
    | ConvTranspose2d 5x5 s2  | 128 @ 32x32  | 819,456    |
    | ConvTranspose2d 5x5 s2  | 3 @ 64x64    | 9,603      |
    """
    widths = [scaled(wanted, width_mult) for wanted in _WIDTHS]
    with init.skip():
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False)]
        for before, after in pairwise(widths):
            layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.ConvTranspose2d(before, after, 5, 2, 2, 1, bias=False)]
        last = nn.ConvTranspose2d(widths[-1], channels, 5, 2, 2, 1)
        model = nn.Sequential(*layers, nn.BatchNorm2d(widths[-1]), nn.ReLU(), last, nn.Tanh())
    for layer in model:
        if isinstance(layer, nn.ConvTranspose2d):
            _narrow(layer.weight)
    init.zeros(last.bias)
    return model


def dcgan_discriminator(in_channels: int = 3, *, width_mult: float = 1.0) -> nn.Sequential:
    """DCGAN's discriminator: images (N, in_channels, 64, 64) in -1..1 to logits (N, 1), above 0 for real ones.

    Radford, Metz, Chintala 2016, section 3: the generator the other way round, strided convolutions of 5 x 5, batch
    norm after all but the first and the last, leaky ReLU with slope 0.2. The sigmoid is left to
    `nn.BCEWithLogitsLoss`. 17,232,897 parameters, 638,992,384 multiply-adds.

    Args:
        width_mult: a factor on all channel counts in between.

    | layer               | output       | parameters |
    |---------------------|--------------|------------|
    | Conv2d 5x5 s2       | 128 @ 32x32  | 9,728      |
    | Conv2d 5x5 s2       | 256 @ 16x16  | 819,712    |
    | Conv2d 5x5 s2       | 512 @ 8x8    | 3,277,824  |
    | Conv2d 5x5 s2       | 1024 @ 4x4   | 13,109,248 |
    | Conv2d 4x4          | 1 @ 1x1      | 16,385     |
    """
    widths = [scaled(wanted, width_mult) for wanted in reversed(_WIDTHS)]
    with init.skip():
        layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 5, 2, 2), nn.LeakyReLU(0.2)]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 5, 2, 2, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        model = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4), nn.Flatten())
    initialize(model, conv=_narrow)
    return model
