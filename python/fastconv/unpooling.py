# SPDX-License-Identifier: Apache-2.0
"""Max unpooling: values put back to the positions that max pooling returned, zeros elsewhere.

Windows that overlap may name one position several times. The last of them, in the order of the windows, is the one
that counts, and the others have no part in the gradient (PyTorch leaves open which it is).
"""

from typing import Any

from . import ops
from ._core import ProblemError
from .arrays import as_native, native
from .dlpack import takes_dlpack
from .geometry import split_shape
from .half import in_float32
from .ops.pool import last_positions
from .options import current
from .pool_geometry import unpool_shape
from .pooling import Array, as_indices, checked
from .tensor import Tensor


def _last(caller: str, indices: Any, full: Any, x_shape: Any, layout: str) -> Array:
    try:
        return last_positions(ops.reshape(indices, full), x_shape, layout).data
    except ProblemError as error:
        raise ProblemError(f"{caller}: {error}") from None


@in_float32
def _unpool(rank: int, x: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any,
            layout: str) -> Any:  # fmt: skip
    caller = f"max_unpool{rank}d"
    x = checked(x, "x", caller)
    indices = as_indices(indices, x.shape, caller)
    full, y_shape, batched = unpool_shape(caller, rank, x.shape, kernel_size, stride, padding, output_size, layout)
    last = _last(caller, indices, full, y_shape, layout)
    y: Any
    if isinstance(x, Tensor):
        y = ops.scatter_positions(x.reshape(full), last, y_shape, layout)
        return y if batched else y.reshape(y_shape[1:])
    y = native(x).scatter_positions(x.reshape(full), last, y_shape, layout, -1, current())
    return y if batched else y[0]


@in_float32
def _unpool_backward(rank: int, dy: Any, indices: Any, layout: str) -> Array:
    caller = f"max_unpool{rank}d_backward"
    dy = as_native(dy, "dy", caller)
    y_shape, batched, _, _ = split_shape(dy.shape, "dy", caller, rank, layout)
    indices = as_indices(indices, getattr(indices, "shape", ()), caller)
    full = indices.shape if batched else (1, *indices.shape)
    axis = -1 if layout == "channels_last" else 1
    if len(full) != rank + 2 or full[0] != y_shape[0] or full[axis] != y_shape[axis]:
        raise ProblemError(
            f"{caller}: indices has shape {indices.shape}, dy {dy.shape}; expected the same batch and channels, and "
            f"{rank} spatial axes"
        )
    last = _last(caller, indices, full, y_shape, layout)
    dx = native(dy).gather_positions(dy.reshape(y_shape), last, layout, -1, current())
    return dx if batched else dx[0]


@takes_dlpack
def max_unpool1d(x: Array, indices: Array, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 output_size: Any = None, *, layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.max_unpool2d`, over one axis."""
    return _unpool(1, x, indices, kernel_size, stride, padding, output_size, layout)


@takes_dlpack
def max_unpool2d(x: Array, indices: Array, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 output_size: Any = None, *, layout: str = "channels_first") -> Any:  # fmt: skip
    """A plane of zeros with the values of x at the positions that `fc.max_pool2d` gave.

    Args:
        x: (N, C, P, Q), or (C, P, Q); (N, P, Q, C) with layout="channels_last". An array or a tensor.
        indices: int64 positions in the plane of y, of the shape of x.
        kernel_size, stride, padding: those of the pooling; the plane of y is (P - 1) * stride - padding + kernel_size.
        output_size: the plane of y, or the whole shape of the x that was pooled, where several have this P.

    Returns:
        y (N, C, H, W). Of several values for one position the last one counts.

    Raises:
        ProblemError, TypeError: shapes that do not fit together, an index outside of the plane.
    """
    return _unpool(2, x, indices, kernel_size, stride, padding, output_size, layout)


@takes_dlpack
def max_unpool3d(x: Array, indices: Array, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 output_size: Any = None, *, layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.max_unpool2d`, over three axes."""
    return _unpool(3, x, indices, kernel_size, stride, padding, output_size, layout)


@takes_dlpack
def max_unpool1d_backward(dy: Array, indices: Array, *, layout: str = "channels_first") -> Array:
    """As `fc.max_unpool2d_backward`, over one axis."""
    return _unpool_backward(1, dy, indices, layout)


@takes_dlpack
def max_unpool2d_backward(dy: Array, indices: Array, *, layout: str = "channels_first") -> Array:
    """dx of `fc.max_unpool2d`: dy at each position, 0 for a value that a later one replaced."""
    return _unpool_backward(2, dy, indices, layout)


@takes_dlpack
def max_unpool3d_backward(dy: Array, indices: Array, *, layout: str = "channels_first") -> Array:
    """As `fc.max_unpool2d_backward`, over three axes."""
    return _unpool_backward(3, dy, indices, layout)
