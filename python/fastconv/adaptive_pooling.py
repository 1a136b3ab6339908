# SPDX-License-Identifier: Apache-2.0
"""Adaptive and global pooling over one to three axes, on arrays and tensors.

Adaptive pooling has as many windows as the caller wants: output o of an axis of n cells sees the cells from
floor(o n / size) up to, but without, ceil((o + 1) n / size) (PyTorch's rule). Neighbouring windows may share a cell,
and more outputs than cells repeat cells. Global pooling is adaptive pooling to one output, with the axes kept as ONNX's
GlobalAveragePool keeps them: (N, C, 1, 1).
"""

import math
from typing import Any

from .arrays import as_native
from .dlpack import takes_dlpack
from .geometry import split_shape
from .lp_pooling import absolute, norm_kind
from .pool_geometry import adaptive_geometry
from .pooling import Array, checked, positions_backward, run, run_backward


def _adaptive(caller: str, kind: str, rank: int, x: Any, output_size: Any, return_indices: bool, layout: str) -> Any:
    x = checked(x, "x", caller)
    return run(x, adaptive_geometry(caller, kind, rank, x.shape, output_size, layout), 1.0, bool(return_indices))


def _adaptive_avg_backward(rank: int, dy: Any, x_shape: Any, layout: str) -> Array:
    caller = f"adaptive_avg_pool{rank}d_backward"
    dy = as_native(dy, "dy", caller)
    *_, plane = split_shape(dy.shape, "dy", caller, rank, layout)
    return run_backward(caller, dy, adaptive_geometry(caller, "average", rank, tuple(x_shape), plane, layout))


def _global_lp(rank: int, x: Any, norm_type: Any, layout: str) -> Any:
    caller = f"global_lp_pool{rank}d"
    x = checked(x, "x", caller)
    if norm_type == math.inf:
        return run(absolute(x), adaptive_geometry(caller, "max", rank, x.shape, 1, layout))
    kind, p = norm_kind(norm_type, False, caller)
    return run(x, adaptive_geometry(caller, kind, rank, x.shape, 1, layout), p)


@takes_dlpack
def adaptive_avg_pool1d(x: Array, output_size: Any, *, layout: str = "channels_first") -> Any:
    """As `fc.adaptive_avg_pool2d`, over one axis."""
    return _adaptive("adaptive_avg_pool1d", "average", 1, x, output_size, False, layout)


@takes_dlpack
def adaptive_avg_pool2d(x: Array, output_size: Any, *, layout: str = "channels_first") -> Any:
    """The mean of each of the windows that cover x.

    Args:
        x: (N, C, H, W), or (C, H, W); (N, H, W, C) with layout="channels_last". An array or a tensor.
        output_size: the plane of y: an int, or one entry per axis, where None keeps the axis as it is.

    Returns:
        y (N, C, *output_size). NaN passes through.

    Raises:
        ProblemError, TypeError: shapes or numbers that do not fit together; not a float array.
    """
    return _adaptive("adaptive_avg_pool2d", "average", 2, x, output_size, False, layout)


@takes_dlpack
def adaptive_avg_pool3d(x: Array, output_size: Any, *, layout: str = "channels_first") -> Any:
    """As `fc.adaptive_avg_pool2d`, over three axes."""
    return _adaptive("adaptive_avg_pool3d", "average", 3, x, output_size, False, layout)


@takes_dlpack
def adaptive_avg_pool1d_backward(dy: Array, x_shape: Any, *, layout: str = "channels_first") -> Array:
    """As `fc.adaptive_avg_pool2d_backward`, over one axis."""
    return _adaptive_avg_backward(1, dy, x_shape, layout)


@takes_dlpack
def adaptive_avg_pool2d_backward(dy: Array, x_shape: Any, *, layout: str = "channels_first") -> Array:
    """dx of `fc.adaptive_avg_pool2d`, of shape x_shape; of `fc.global_avg_pool2d` likewise."""
    return _adaptive_avg_backward(2, dy, x_shape, layout)


@takes_dlpack
def adaptive_avg_pool3d_backward(dy: Array, x_shape: Any, *, layout: str = "channels_first") -> Array:
    """As `fc.adaptive_avg_pool2d_backward`, over three axes."""
    return _adaptive_avg_backward(3, dy, x_shape, layout)


@takes_dlpack
def adaptive_max_pool1d(x: Array, output_size: Any, return_indices: bool = False, *,
                        layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.adaptive_max_pool2d`, over one axis."""
    return _adaptive("adaptive_max_pool1d", "max", 1, x, output_size, return_indices, layout)


@takes_dlpack
def adaptive_max_pool2d(x: Array, output_size: Any, return_indices: bool = False, *,
                        layout: str = "channels_first") -> Any:  # fmt: skip
    """The largest value of each of the windows that cover x.

    Args:
        return_indices: also return int64 positions in the plane of x, the first maximum of each window.
        x, output_size: as for `fc.adaptive_avg_pool2d`; so are the errors.

    Returns:
        y (N, C, *output_size), or (y, indices).
    """
    return _adaptive("adaptive_max_pool2d", "max", 2, x, output_size, return_indices, layout)


@takes_dlpack
def adaptive_max_pool3d(x: Array, output_size: Any, return_indices: bool = False, *,
                        layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.adaptive_max_pool2d`, over three axes."""
    return _adaptive("adaptive_max_pool3d", "max", 3, x, output_size, return_indices, layout)


@takes_dlpack
def adaptive_max_pool1d_backward(dy: Array, indices: Array, x_shape: Any, *,
                                 layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.max_pool2d_backward`, for `fc.adaptive_max_pool1d`."""
    return positions_backward("adaptive_max_pool1d_backward", 1, dy, indices, x_shape, layout)


@takes_dlpack
def adaptive_max_pool2d_backward(dy: Array, indices: Array, x_shape: Any, *,
                                 layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.max_pool2d_backward`, for `fc.adaptive_max_pool2d` and `fc.global_max_pool2d`."""
    return positions_backward("adaptive_max_pool2d_backward", 2, dy, indices, x_shape, layout)


@takes_dlpack
def adaptive_max_pool3d_backward(dy: Array, indices: Array, x_shape: Any, *,
                                 layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.max_pool2d_backward`, for `fc.adaptive_max_pool3d`."""
    return positions_backward("adaptive_max_pool3d_backward", 3, dy, indices, x_shape, layout)


@takes_dlpack
def global_avg_pool1d(x: Array, *, layout: str = "channels_first") -> Any:
    """The mean of each plane: (N, C, W) -> (N, C, 1)."""
    return _adaptive("global_avg_pool1d", "average", 1, x, 1, False, layout)


@takes_dlpack
def global_avg_pool2d(x: Array, *, layout: str = "channels_first") -> Any:
    """The mean of each plane: (N, C, H, W) -> (N, C, 1, 1)."""
    return _adaptive("global_avg_pool2d", "average", 2, x, 1, False, layout)


@takes_dlpack
def global_avg_pool3d(x: Array, *, layout: str = "channels_first") -> Any:
    """The mean of each plane: (N, C, D, H, W) -> (N, C, 1, 1, 1)."""
    return _adaptive("global_avg_pool3d", "average", 3, x, 1, False, layout)


@takes_dlpack
def global_max_pool1d(x: Array, return_indices: bool = False, *, layout: str = "channels_first") -> Any:
    """The largest value of each plane, (N, C, W) -> (N, C, 1); indices as in `fc.adaptive_max_pool1d`."""
    return _adaptive("global_max_pool1d", "max", 1, x, 1, return_indices, layout)


@takes_dlpack
def global_max_pool2d(x: Array, return_indices: bool = False, *, layout: str = "channels_first") -> Any:
    """The largest value of each plane, (N, C, H, W) -> (N, C, 1, 1); indices as in `fc.adaptive_max_pool2d`."""
    return _adaptive("global_max_pool2d", "max", 2, x, 1, return_indices, layout)


@takes_dlpack
def global_max_pool3d(x: Array, return_indices: bool = False, *, layout: str = "channels_first") -> Any:
    """The largest value of each plane, (N, C, D, H, W) -> (N, C, 1, 1, 1); indices as in `fc.adaptive_max_pool3d`."""
    return _adaptive("global_max_pool3d", "max", 3, x, 1, return_indices, layout)


@takes_dlpack
def global_min_pool1d(x: Array, return_indices: bool = False, *, layout: str = "channels_first") -> Any:
    """The smallest value of each plane, (N, C, W) -> (N, C, 1); indices as in `fc.adaptive_max_pool1d`."""
    return _adaptive("global_min_pool1d", "min", 1, x, 1, return_indices, layout)


@takes_dlpack
def global_min_pool2d(x: Array, return_indices: bool = False, *, layout: str = "channels_first") -> Any:
    """The smallest value of each plane, (N, C, H, W) -> (N, C, 1, 1); indices as in `fc.adaptive_max_pool2d`."""
    return _adaptive("global_min_pool2d", "min", 2, x, 1, return_indices, layout)


@takes_dlpack
def global_min_pool3d(x: Array, return_indices: bool = False, *, layout: str = "channels_first") -> Any:
    """The smallest value of each plane, (N, C, D, H, W) -> (N, C, 1, 1, 1); indices as in `fc.adaptive_max_pool3d`."""
    return _adaptive("global_min_pool3d", "min", 3, x, 1, return_indices, layout)


@takes_dlpack
def global_lp_pool1d(x: Array, norm_type: Any = 2, *, layout: str = "channels_first") -> Any:
    """The norm (sum of |x|^p)^(1/p) of each plane, p = norm_type at least 1, axes kept: ONNX's GlobalLpPool."""
    return _global_lp(1, x, norm_type, layout)


@takes_dlpack
def global_lp_pool2d(x: Array, norm_type: Any = 2, *, layout: str = "channels_first") -> Any:
    """The norm (sum of |x|^p)^(1/p) of each plane, p = norm_type at least 1, axes kept: ONNX's GlobalLpPool."""
    return _global_lp(2, x, norm_type, layout)


@takes_dlpack
def global_lp_pool3d(x: Array, norm_type: Any = 2, *, layout: str = "channels_first") -> Any:
    """The norm (sum of |x|^p)^(1/p) of each plane, p = norm_type at least 1, axes kept: ONNX's GlobalLpPool."""
    return _global_lp(3, x, norm_type, layout)
