# SPDX-License-Identifier: Apache-2.0
"""im2col and col2im: patches of an image as columns, and their sum back into an image. PyTorch's unfold and fold."""

import math
from typing import Any

from ._core import ProblemError
from .arrays import as_native
from .dlpack import takes_dlpack
from .geometry import ConvGeometry, conv_geometry, per_axis
from .ops.columns import Fold, Unfold, fold, unfold
from .ops.shape import reshape
from .tensor import Tensor

Array = Any


@takes_dlpack
def im2col(x: Array, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """The patches that a convolution's windows see, one per column: (N, C, *size) -> (N, C * taps, windows).

    Row c * taps + t of a column is channel c at filter tap t, taps and windows counted with the last axis fastest; so
    conv2d(x, w) is w.reshape(K, -1) @ im2col(x, w.shape[2:]), reshaped.

    Args:
        x: (N, C, H, W), or (C, H, W) for one image. float32 or float64.
        kernel_size: one number per spatial axis; as many as there are say whether x has one, two or three. An int
            means two.
        dilation, padding, stride: as for `fc.conv2d`, padding words and pairs included; what is outside of x is 0.

    Returns:
        (N, C * R * S, P * Q), the kind of x, without N if x had none.

    Raises:
        TypeError: not an array of floats. ProblemError: shapes or numbers that do not fit together.
    """
    rank = len(kernel_size) if isinstance(kernel_size, list | tuple) else 2
    as_native(x.data if isinstance(x, Tensor) else x, "x", "im2col")
    channels = x.shape[len(x.shape) - 1 - rank] if len(x.shape) > rank else 1
    g = _geometry("im2col", rank, tuple(x.shape), channels, kernel_size, dilation, padding, stride)
    if isinstance(x, Tensor):
        columns = Unfold.apply(reshape(x, g.x_shape), g=g)
        return columns if g.batched else reshape(columns, columns.shape[1:])
    columns = unfold(x.reshape(g.x_shape), g)
    return columns if g.batched else columns[0]


@takes_dlpack
def col2im(columns: Array, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
           stride: Any = 1) -> Any:  # fmt: skip
    """The adjoint of `fc.im2col`: every element is added to the pixel that im2col would have taken it from.

    col2im(im2col(x)) is x times how many windows see each pixel.

    Args:
        columns: (N, C * R * S, P * Q), or without N.
        output_size: the size of the image, one number per spatial axis: as many as there are say whether it has one,
            two or three. An int means two equal ones.
        kernel_size, dilation, padding, stride: as `fc.im2col` had them.

    Returns:
        (N, C, *output_size), the kind of columns, without N if they had none. Sums run over ascending taps.

    Raises:
        TypeError: not an array of floats. ProblemError: columns that do not belong to this geometry.
    """
    caller, shape = "col2im", tuple(columns.shape)
    as_native(columns.data if isinstance(columns, Tensor) else columns, "columns", caller)
    rank = len(output_size) if isinstance(output_size, list | tuple) else 2
    plane = per_axis(output_size, "output_size", caller, rank)
    taps = math.prod(per_axis(kernel_size, "kernel_size", caller, rank))
    if len(shape) not in (2, 3) or shape[-2] % taps or shape[-2] == 0:
        raise ProblemError(
            f"{caller}: columns has shape {shape}; expected (N, C * {taps}, windows), or (C * {taps}, windows)"
        )
    channels = shape[-2] // taps
    g = _geometry(caller, rank, (*shape[:-2], channels, *plane), channels, kernel_size, dilation, padding, stride)
    windows = math.prod(g.y_shape[2:])
    if shape[-1] != windows:
        raise ProblemError(f"{caller}: columns has {shape[-1]} windows; expected {windows}, the plane {g.y_shape[2:]}")
    full = (g.x_shape[0], *shape[-2:])
    if isinstance(columns, Tensor):
        x = Fold.apply(reshape(columns, full), g=g)
        return x if g.batched else reshape(x, x.shape[1:])
    image = fold(columns.reshape(full), g)
    return image if g.batched else image[0]


def _geometry(caller: str, rank: int, x_shape: tuple[int, ...], channels: int, kernel_size: Any, dilation: Any,
              padding: Any, stride: Any) -> ConvGeometry:  # fmt: skip
    """That of the depthwise convolution with the same windows."""
    filter = per_axis(kernel_size, "kernel_size", caller, rank)
    channels = max(channels, 1)
    return conv_geometry(caller, rank, x_shape, (channels, 1, *filter), stride, padding, dilation, channels,
                         "channels_first")  # fmt: skip
