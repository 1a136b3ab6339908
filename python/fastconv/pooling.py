# SPDX-License-Identifier: Apache-2.0
"""Max, min, average and Lp pooling over one to three axes, on arrays and tensors, with explicit gradients.

One definition serves all of them. Padding is no value: it never wins a maximum and adds nothing to a norm; an average
counts it only with count_include_pad. Any padding below the window's span is accepted, so that every window holds a
cell of x. Ceil mode also counts a last window that sticks out, unless it would start in the right padding. NaN passes
through. The gradients gather in a fixed order: the same bits for any number of threads.
"""

from typing import Any

import numpy as np

from . import ops
from ._core import ProblemError
from .arrays import as_native, is_torch, kind_of, native, same_kind, torch_bridge
from .geometry import expect_shape, split_shape
from .half import in_float32
from .options import current
from .pool_geometry import PoolGeometry, pool_geometry
from .tensor import Tensor

Array = Any


def checked(x: Any, name: str, caller: str) -> Any:
    """A tensor, or an array that the native module takes; errors as for `as_native`."""
    if isinstance(x, Tensor):
        as_native(x.data, name, caller)
        return x
    return as_native(x, name, caller)


@in_float32
def run(x: Any, g: PoolGeometry, norm: float = 1.0, return_indices: bool = False) -> Any:
    """y, or (y, indices), of a checked x."""
    y: Any
    indices: Any
    if isinstance(x, Tensor):
        y, indices = ops.pool(x, g, norm, return_indices)
    else:
        y, indices = native(x).pool_forward(g.problem, x.reshape(g.x_shape), norm, return_indices, current())
        if not g.batched:
            y, indices = y[0], None if indices is None else indices[0]
    return (y, indices) if return_indices else y


@in_float32
def run_backward(caller: str, dy: Any, g: PoolGeometry, x: Any = None, y: Any = None, norm: float = 1.0) -> Array:
    """dx of an average, or of a norm with its x and y."""
    dy = as_native(dy, "dy", caller)
    y_shape = g.y_shape if g.batched else g.y_shape[1:]
    expect_shape("dy", caller, dy.shape, y_shape)
    if y is not None:
        y = as_native(y, "y", caller, dy.dtype)
        expect_shape("y", caller, y.shape, y_shape)
        x, y = as_native(x, "x", caller, dy.dtype).reshape(g.x_shape), y.reshape(g.y_shape)
    dx = native(dy).pool_backward(g.problem, dy.reshape(g.y_shape), x, y, norm, current())
    return dx if g.batched else dx[0]


def as_indices(indices: Any, shape: tuple[int, ...], caller: str) -> Array:
    """The positions that a pooling gave, checked."""
    indices = indices.data if isinstance(indices, Tensor) else indices
    if kind_of(indices) not in ("numpy", "cupy") or indices.dtype != np.int64:
        got = getattr(indices, "dtype", type(indices).__name__)
        raise TypeError(f"{caller}: indices is {got}; expected the int64 array that return_indices=True gives")
    expect_shape("indices", caller, indices.shape, shape)
    return indices


@in_float32
def positions_backward(caller: str, rank: int, dy: Any, indices: Any, x_shape: Any, layout: str) -> Array:
    """dx of a max or min pooling: each dy is added to the position that won."""
    dy = as_native(dy, "dy", caller)
    indices = as_indices(indices, dy.shape, caller)
    same_kind(caller, dy=dy, indices=indices)
    full, batched, _, size = split_shape(tuple(x_shape), "x_shape", caller, rank, layout)
    if 0 in size or dy.ndim != len(x_shape):
        raise ProblemError(f"{caller}: x_shape is {tuple(x_shape)}, dy has shape {dy.shape}; expected as many axes of "
                           "length 1 or more")  # fmt: skip
    y_shape = dy.shape if batched else (1, *dy.shape)
    try:
        dx = native(dy).scatter_positions(dy.reshape(y_shape), indices.reshape(y_shape), full, layout, 0, current())
    except ProblemError as error:
        raise ProblemError(f"{caller}: {error}") from None
    return dx if batched else dx[0]


def _extreme(kind: str, rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
             ceil_mode: bool, return_indices: bool, layout: str) -> Any:  # fmt: skip
    caller = f"{kind}_pool{rank}d"
    if is_torch(x):
        return torch_bridge().pool(caller, kind, rank, x, kernel_size, stride, padding, dilation, bool(ceil_mode), True,
                                   None, bool(return_indices), layout)  # fmt: skip
    x = checked(x, "x", caller)
    g = pool_geometry(caller, kind, rank, x.shape, kernel_size, stride, padding, dilation, bool(ceil_mode), True, None,
                      layout)  # fmt: skip
    return run(x, g, 1.0, bool(return_indices))


def _avg(rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
         divisor_override: Any, dilation: Any, layout: str) -> Any:  # fmt: skip
    caller = f"avg_pool{rank}d"
    if is_torch(x):
        return torch_bridge().pool(caller, "average", rank, x, kernel_size, stride, padding, dilation, bool(ceil_mode),
                                   bool(count_include_pad), divisor_override, False, layout)  # fmt: skip
    x = checked(x, "x", caller)
    return run(x, _avg_geometry(caller, rank, x.shape, kernel_size, stride, padding, ceil_mode, count_include_pad,
                                divisor_override, dilation, layout))  # fmt: skip


def _avg_geometry(caller: str, rank: int, x_shape: Any, kernel_size: Any, stride: Any, padding: Any,
                  ceil_mode: bool, count_include_pad: bool, divisor_override: Any, dilation: Any,
                  layout: str) -> PoolGeometry:  # fmt: skip
    return pool_geometry(caller, "average", rank, tuple(x_shape), kernel_size, stride, padding, dilation,
                         bool(ceil_mode), bool(count_include_pad), divisor_override, layout)  # fmt: skip


def max_pool1d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.max_pool2d`, over one axis."""
    return _extreme("max", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def max_pool2d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """The largest value in each window.

    Args:
        x: (N, C, H, W), or (C, H, W); (N, H, W, C) with layout="channels_last". An array or a tensor.
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
    return _extreme("max", 2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def max_pool3d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.max_pool2d`, over three axes."""
    return _extreme("max", 3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def max_pool1d_backward(dy: Array, indices: Array, x_shape: Any, *, layout: str = "channels_first") -> Array:
    """As `fc.max_pool2d_backward`, over one axis."""
    return positions_backward("max_pool1d_backward", 1, dy, indices, x_shape, layout)


def max_pool2d_backward(dy: Array, indices: Array, x_shape: Any, *, layout: str = "channels_first") -> Array:
    """dx of `fc.max_pool2d`: each dy goes to the position that won.

    Args:
        dy: the gradient of y.
        indices: what the forward call gave with return_indices=True.
        x_shape: the shape of x.

    Raises:
        ProblemError: shapes that do not fit together, or an index outside of the plane.
    """
    return positions_backward("max_pool2d_backward", 2, dy, indices, x_shape, layout)


def max_pool3d_backward(dy: Array, indices: Array, x_shape: Any, *, layout: str = "channels_first") -> Array:
    """As `fc.max_pool2d_backward`, over three axes."""
    return positions_backward("max_pool3d_backward", 3, dy, indices, x_shape, layout)


def min_pool1d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.min_pool2d`, over one axis."""
    return _extreme("min", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def min_pool2d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """The smallest value in each window; arguments, result and errors as for `fc.max_pool2d`."""
    return _extreme("min", 2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def min_pool3d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False, *,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.min_pool2d`, over three axes."""
    return _extreme("min", 3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def min_pool1d_backward(dy: Array, indices: Array, x_shape: Any, *, layout: str = "channels_first") -> Array:
    """As `fc.max_pool2d_backward`, for `fc.min_pool1d`."""
    return positions_backward("min_pool1d_backward", 1, dy, indices, x_shape, layout)


def min_pool2d_backward(dy: Array, indices: Array, x_shape: Any, *, layout: str = "channels_first") -> Array:
    """As `fc.max_pool2d_backward`, for `fc.min_pool2d`."""
    return positions_backward("min_pool2d_backward", 2, dy, indices, x_shape, layout)


def min_pool3d_backward(dy: Array, indices: Array, x_shape: Any, *, layout: str = "channels_first") -> Array:
    """As `fc.max_pool2d_backward`, for `fc.min_pool3d`."""
    return positions_backward("min_pool3d_backward", 3, dy, indices, x_shape, layout)


def avg_pool1d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: Any = None, *, dilation: Any = 1,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.avg_pool2d`, over one axis."""
    return _avg(1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation, layout)


def avg_pool2d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: Any = None, *, dilation: Any = 1,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """The mean of each window. Arguments as for `fc.max_pool2d`.

    Args:
        count_include_pad: divide by the window's taps within the padded plane (never those that hang over its end in
            ceil mode); False: by those within x.
        divisor_override: divide by this number instead.
    """
    return _avg(2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation, layout)


def avg_pool3d(x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: Any = None, *, dilation: Any = 1,
               layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.avg_pool2d`, over three axes."""
    return _avg(3, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation, layout)


def avg_pool1d_backward(dy: Array, x_shape: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
                        ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: Any = None, *,
                        dilation: Any = 1, layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.avg_pool2d_backward`, over one axis."""
    name = "avg_pool1d_backward"
    return run_backward(name, dy, _avg_geometry(name, 1, x_shape, kernel_size, stride, padding, ceil_mode,
                                                count_include_pad, divisor_override, dilation, layout))  # fmt: skip


def avg_pool2d_backward(dy: Array, x_shape: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
                        ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: Any = None, *,
                        dilation: Any = 1, layout: str = "channels_first") -> Array:  # fmt: skip
    """dx of `fc.avg_pool2d`: each dy is spread evenly over its window. x_shape: the shape of x; the others as there."""
    name = "avg_pool2d_backward"
    return run_backward(name, dy, _avg_geometry(name, 2, x_shape, kernel_size, stride, padding, ceil_mode,
                                                count_include_pad, divisor_override, dilation, layout))  # fmt: skip


def avg_pool3d_backward(dy: Array, x_shape: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
                        ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: Any = None, *,
                        dilation: Any = 1, layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.avg_pool2d_backward`, over three axes."""
    name = "avg_pool3d_backward"
    return run_backward(name, dy, _avg_geometry(name, 3, x_shape, kernel_size, stride, padding, ceil_mode,
                                                count_include_pad, divisor_override, dilation, layout))  # fmt: skip
