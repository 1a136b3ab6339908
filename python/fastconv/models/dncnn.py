# SPDX-License-Identifier: Apache-2.0
"""DnCNN: a network that sees an image's noise, so that it can be subtracted."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import nn
from ..arrays import namespace
from ..autograd import no_grad
from ..nn import init
from ..tensor import Tensor
from .parts import initialize


def dncnn(depth: int = 20, channels: int = 1, width: int = 64) -> nn.Sequential:
    """DnCNN for images (N, channels, H, W) of any size: returns the noise that it sees, of the same shape.

    K. Zhang, W. Zuo, Y. Chen, D. Meng, L. Zhang, "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image
    Denoising", IEEE Transactions on Image Processing 26(7), 2017, section III-A. The clean image is the noisy one minus
    what the network returns: `denoise_image`. With its defaults this is the table of 59 layers that MATLAB's
    `denoisingNetwork('DnCNN')` shows, the first of which is the input and the last the loss (`denoising_loss`):
    20 convolutions, 18 of them with batch norm, 668,225 parameters, 1,661,760,000 multiply-adds for a patch of 50 x 50.
    Initial values are He et al.'s, as in the paper.

    Args:
        depth: how many convolutions, at least 2; the paper has 17 for one level of noise and 20 for all.
        channels: 1 for grey images, 3 for colour.
        width: the channels in between.

    Raises:
        ValueError: a depth of less than 2.

    | layer                         | output     | parameters |
    |-------------------------------|------------|------------|
    | Conv2d 3x3, ReLU              | 64 @ 50x50 | 640        |
    | 18 Conv2d 3x3, BatchNorm, ReLU| 64 @ 50x50 | 667,008    |
    | Conv2d 3x3                    | 1 @ 50x50  | 577        |
    """
    if depth < 2:
        raise ValueError(f"dncnn: depth is {depth}; expected at least 2")
    with init.skip():
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))
    initialize(model, conv=lambda w: init.kaiming_normal(w, nonlinearity="relu"))
    return model


def denoising_loss(head: str = "mse") -> nn.Module:
    """The last layer of DnCNN's table, between what the network returns and the true noise (noisy minus clean).

    Args:
        head: "mse", the mean of squares, which the table and the paper (equation 1) have; "mae", the mean of absolute
            values, which the lecture's text beside the table defines.

    Raises:
        ValueError: another head.
    """
    heads = {"mse": nn.MSELoss, "mae": nn.L1Loss}
    if head not in heads:
        raise ValueError(f"denoising_loss: head is {head!r}; expected one of {', '.join(heads)}")
    return heads[head]()


def denoise_image(model: nn.Module, image: npt.ArrayLike) -> npt.NDArray[Any]:
    """An image without the noise that a DnCNN sees in it: MATLAB's `denoiseImage`.

    Args:
        model: what `dncnn` makes, trained; its running statistics are used, whatever mode it is in.
        image: (H, W), or (C, H, W) as the model's channels, floating, in 0..1. Larger values are for models that were
            trained with them.

    Returns:
        the same shape and dtype, not clipped.

    Raises:
        ValueError: another number of axes, or integers.
    """
    noisy = np.asarray(image)
    if noisy.ndim not in (2, 3) or not np.issubdtype(noisy.dtype, np.floating):
        raise ValueError(
            f"denoise_image: image has shape {noisy.shape} and dtype {noisy.dtype}; "
            "expected (H, W) or (C, H, W) of floating numbers"
        )
    modes = [(module, module.training) for module in model.modules()]
    weight = next(model.parameters()).data
    x = noisy.reshape((1,) * (4 - noisy.ndim) + noisy.shape).astype(weight.dtype)
    try:
        model.eval()
        with no_grad():
            noise = model(Tensor(namespace(weight).asarray(x))).to("cpu")
    finally:
        for module, training in modes:
            module.training = training
    return noisy - noise.numpy().reshape(noisy.shape).astype(noisy.dtype)
