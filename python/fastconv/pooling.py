# SPDX-License-Identifier: Apache-2.0
"""Max and average pooling over one to three axes on plain arrays, with their explicit gradients.

Padding never wins a maximum and, with count_include_pad=False, never counts in a mean. Any padding below the window's
span is accepted. Ceil mode also counts a last window that sticks out, unless it would start in the right padding.
"""

from typing import Any

import numpy as np

from . import _core, ops
from .arrays import as_native
from .geometry import expect_shape, pool_geometry
from .options import current
from .tensor import Tensor

Array = Any


def _max_pool(caller: str, rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
              ceil_mode: bool, return_indices: bool, layout: str) -> Any:  # fmt: skip
    if isinstance(x, Tensor):
        return ops.max_pool(caller, rank, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)
    x = as_native(x, "x", caller)
    g = pool_geometry(caller, rank, x.shape, kernel_size, stride, padding, dilation, bool(ceil_mode), layout)
    y, indices = _core.max_pool_forward(x.reshape(g.x_shape), g.window, g.stride, g.pad_begin, g.pad_end, g.dilation,
                                        bool(ceil_mode), layout, return_indices, current())  # fmt: skip
    if not g.batched:
        y, indices = y[0], None if indices is None else indices[0]
    return (y, indices) if return_indices else y


def _max_pool_backward(caller: str, rank: int, dy: Array, indices: Array, x_shape: Any, kernel_size: Any, stride: Any,
                       padding: Any, dilation: Any, ceil_mode: bool, layout: str) -> Array:  # fmt: skip
    dy = as_native(dy, "dy", caller)
    g = pool_geometry(caller, rank, tuple(x_shape), kernel_size, stride, padding, dilation, bool(ceil_mode), layout)
    expect_shape("dy", caller, dy.shape, g.y_shape if g.batched else g.y_shape[1:])
    if not isinstance(indices, np.ndarray) or indices.dtype != np.int64:
        got = getattr(indices, "dtype", type(indices).__name__)
        raise TypeError(f"{caller}: indices is {got}; expected the int64 array that return_indices=True gives")
    expect_shape("indices", caller, indices.shape, dy.shape)
    dx = _core.max_pool_backward(dy.reshape(g.y_shape), indices.reshape(g.y_shape), g.x_shape, g.window, g.stride,
                                 g.pad_begin, g.pad_end, g.dilation, bool(ceil_mode), layout, current())  # fmt: skip
    return dx if g.batched else dx[0]


def _avg_pool(caller: str, rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
              count_include_pad: bool, layout: str) -> Any:  # fmt: skip
    if isinstance(x, Tensor):
        return ops.avg_pool(caller, rank, x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout)
    x = as_native(x, "x", caller)
    g = pool_geometry(caller, rank, x.shape, kernel_size, stride, padding, 1, bool(ceil_mode), layout)
    y = _core.avg_pool_forward(x.reshape(g.x_shape), g.window, g.stride, g.pad_begin, g.pad_end, bool(ceil_mode),
                               bool(count_include_pad), layout, current())  # fmt: skip
    return y if g.batched else y[0]


def _avg_pool_backward(caller: str, rank: int, dy: Array, x_shape: Any, kernel_size: Any, stride: Any, padding: Any,
                       ceil_mode: bool, count_include_pad: bool, layout: str) -> Array:  # fmt: skip
    dy = as_native(dy, "dy", caller)
    g = pool_geometry(caller, rank, tuple(x_shape), kernel_size, stride, padding, 1, bool(ceil_mode), layout)
    expect_shape("dy", caller, dy.shape, g.y_shape if g.batched else g.y_shape[1:])
    dx = _core.avg_pool_backward(dy.reshape(g.y_shape), g.x_shape, g.window, g.stride, g.pad_begin, g.pad_end,
                                 bool(ceil_mode), bool(count_include_pad), layout, current())  # fmt: skip
    return dx if g.batched else dx[0]


def max_pool1d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.max_pool2d`, over one axis."""
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def max_pool1d_backward(dy: Array, indices: Array, x_shape: Any, kernel_size: Any, stride: Any = None,
                        padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, *,
                        layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.max_pool2d_backward`, over one axis."""
    return _max_pool_backward("max_pool1d_backward", 1, dy, indices, x_shape, kernel_size, stride, padding,
                              dilation, ceil_mode, layout)  # fmt: skip


def avg_pool1d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.avg_pool2d`, over one axis."""
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout)


def avg_pool1d_backward(dy: Array, x_shape: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
                        ceil_mode: bool = False, count_include_pad: bool = True, *,
                        layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.avg_pool2d_backward`, over one axis."""
    return _avg_pool_backward("avg_pool1d_backward", 1, dy, x_shape, kernel_size, stride, padding, ceil_mode,
                              count_include_pad, layout)  # fmt: skip


def max_pool2d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """The largest value in each window.

    Args:
        x: (N, C, H, W), or (C, H, W); (N, H, W, C) with layout="channels_last".
        kernel_size: the window, an int or one per axis.
        stride: None means kernel_size.
        padding: as for `fc.conv2d`, but less than the window's span.
        dilation: distance between the taps of a window.
        ceil_mode: also count a last window that sticks out (never one that starts in the right padding).
        return_indices: also return int64 positions in the plane of x, the first maximum of each window.

    Returns:
        y (N, C, P, Q), or (y, indices). NaN passes through.

    Raises:
        ProblemError, TypeError: shapes or numbers that do not fit together; not a float array.
    """
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def max_pool2d_backward(dy: Array, indices: Array, x_shape: Any, kernel_size: Any, stride: Any = None,
                        padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, *,
                        layout: str = "channels_first") -> Array:  # fmt: skip
    """dx of `fc.max_pool2d`: each dy goes to the position that won.

    Args:
        dy: the gradient of y.
        indices: what the forward call gave with return_indices=True.
        x_shape: the shape of x. The others: as in the forward call.
    """
    return _max_pool_backward("max_pool2d_backward", 2, dy, indices, x_shape, kernel_size, stride, padding,
                              dilation, ceil_mode, layout)  # fmt: skip


def avg_pool2d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """The mean of each window. Arguments as for `fc.max_pool2d`, without dilation.

    Args:
        count_include_pad: divide by the window's size within the padded plane; False: by the pixels of x in it.
    """
    return _avg_pool("avg_pool2d", 2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout)


def avg_pool2d_backward(dy: Array, x_shape: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
                        ceil_mode: bool = False, count_include_pad: bool = True, *,
                        layout: str = "channels_first") -> Array:  # fmt: skip
    """dx of `fc.avg_pool2d`: each dy is spread evenly over its window."""
    return _avg_pool_backward("avg_pool2d_backward", 2, dy, x_shape, kernel_size, stride, padding, ceil_mode,
                              count_include_pad, layout)  # fmt: skip


def max_pool3d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.max_pool2d`, over three axes."""
    return _max_pool("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def max_pool3d_backward(dy: Array, indices: Array, x_shape: Any, kernel_size: Any, stride: Any = None,
                        padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, *,
                        layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.max_pool2d_backward`, over three axes."""
    return _max_pool_backward("max_pool3d_backward", 3, dy, indices, x_shape, kernel_size, stride, padding,
                              dilation, ceil_mode, layout)  # fmt: skip


def avg_pool3d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.avg_pool2d`, over three axes."""
    return _avg_pool("avg_pool3d", 3, x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout)


def avg_pool3d_backward(dy: Array, x_shape: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
                        ceil_mode: bool = False, count_include_pad: bool = True, *,
                        layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.avg_pool2d_backward`, over three axes."""
    return _avg_pool_backward("avg_pool3d_backward", 3, dy, x_shape, kernel_size, stride, padding, ceil_mode,
                              count_include_pad, layout)  # fmt: skip
