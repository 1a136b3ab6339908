# SPDX-License-Identifier: Apache-2.0
"""Lp pooling: the p-norm of each window, on arrays and tensors, with explicit gradients.

    y = (sum of x^p)^(1/p)

For an even p this is the norm. For an odd p the powers keep the sign of x, as in PyTorch, and so does the root (where
PyTorch has NaN); p = 1 is the sum. For other p, and for all with signed=False (ONNX's LpPool), x stands for |x|. p =
infinity is the largest |x|. The window's sum is scaled by its largest |x|: nothing overflows that fits in the end.
The gradient is 0 where y is 0. In ceil mode a last window that sticks out is the norm of the cells it has; PyTorch
scales it up to a whole window.
"""

import math
from typing import Any

import numpy as np

from ._core import ProblemError
from .dlpack import takes_dlpack
from .pool_geometry import PoolGeometry, pool_geometry
from .pooling import Array, checked, run, run_backward
from .tensor import Tensor


def norm_kind(norm_type: Any, signed: bool, caller: str) -> tuple[str, float]:
    """(the native name of the pooling, p) of a finite norm_type."""
    if isinstance(norm_type, bool) or not isinstance(norm_type, int | float | np.integer | np.floating):
        raise TypeError(f"{caller}: norm_type is {norm_type!r}; expected a number")
    p = float(norm_type)
    if not 1 <= p < math.inf:
        raise ProblemError(f"{caller}: norm_type is {norm_type}; expected a number of at least 1, or infinity")
    return "signed_lp" if signed and p % 2 == 1 else "lp", p


def absolute(x: Any) -> Any:
    """|x|, of an array or a tensor."""
    return x * Tensor(np.sign(x.data)) if isinstance(x, Tensor) else np.abs(x)


def _geometry(caller: str, kind: str, rank: int, x_shape: Any, kernel_size: Any, stride: Any, ceil_mode: bool,
              padding: Any, dilation: Any, layout: str) -> PoolGeometry:  # fmt: skip
    return pool_geometry(caller, kind, rank, tuple(x_shape), kernel_size, stride, padding, dilation, bool(ceil_mode),
                         True, None, layout)  # fmt: skip


def _lp(rank: int, x: Any, norm_type: Any, kernel_size: Any, stride: Any, ceil_mode: bool, padding: Any, dilation: Any,
        signed: bool, layout: str) -> Any:  # fmt: skip
    caller = f"lp_pool{rank}d"
    x = checked(x, "x", caller)
    places = (rank, x.shape, kernel_size, stride, ceil_mode, padding, dilation, layout)
    if norm_type == math.inf:
        return run(absolute(x), _geometry(caller, "max", *places))
    kind, p = norm_kind(norm_type, signed, caller)
    return run(x, _geometry(caller, kind, *places), p)


def _lp_backward(rank: int, dy: Any, x: Any, y: Any, norm_type: Any, kernel_size: Any, stride: Any, ceil_mode: bool,
                 padding: Any, dilation: Any, signed: bool, layout: str) -> Array:  # fmt: skip
    caller = f"lp_pool{rank}d_backward"
    x = checked(x, "x", caller)
    kind, p = norm_kind(norm_type, signed, caller)
    g = _geometry(caller, kind, rank, x.shape, kernel_size, stride, ceil_mode, padding, dilation, layout)
    return run_backward(caller, dy, g, x, y, p)


@takes_dlpack
def lp_pool1d(x: Array, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *,
              padding: Any = 0, dilation: Any = 1, signed: bool = True,
              layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.lp_pool2d`, over one axis."""
    return _lp(1, x, norm_type, kernel_size, stride, ceil_mode, padding, dilation, signed, layout)


@takes_dlpack
def lp_pool2d(x: Array, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *,
              padding: Any = 0, dilation: Any = 1, signed: bool = True,
              layout: str = "channels_first") -> Any:  # fmt: skip
    """The p-norm of each window; the text of this module says what that is for each p.

    Args:
        x: (N, C, H, W), or (C, H, W); (N, H, W, C) with layout="channels_last". An array or a tensor.
        norm_type: p, a number of at least 1, or infinity.
        kernel_size, stride, padding, dilation, ceil_mode: as for `fc.max_pool2d`.
        signed: let odd powers keep the sign of x, as PyTorch does; False: norms of |x|, as ONNX has them.

    Returns:
        y (N, C, P, Q). NaN passes through.

    Raises:
        ProblemError, TypeError: shapes or numbers that do not fit together; not a float array.
    """
    return _lp(2, x, norm_type, kernel_size, stride, ceil_mode, padding, dilation, signed, layout)


@takes_dlpack
def lp_pool3d(x: Array, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *,
              padding: Any = 0, dilation: Any = 1, signed: bool = True,
              layout: str = "channels_first") -> Any:  # fmt: skip
    """As `fc.lp_pool2d`, over three axes."""
    return _lp(3, x, norm_type, kernel_size, stride, ceil_mode, padding, dilation, signed, layout)


@takes_dlpack
def lp_pool1d_backward(dy: Array, x: Array, y: Array, norm_type: Any, kernel_size: Any, stride: Any = None,
                       ceil_mode: bool = False, *, padding: Any = 0, dilation: Any = 1, signed: bool = True,
                       layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.lp_pool2d_backward`, over one axis."""
    return _lp_backward(1, dy, x, y, norm_type, kernel_size, stride, ceil_mode, padding, dilation, signed, layout)


@takes_dlpack
def lp_pool2d_backward(dy: Array, x: Array, y: Array, norm_type: Any, kernel_size: Any, stride: Any = None,
                       ceil_mode: bool = False, *, padding: Any = 0, dilation: Any = 1, signed: bool = True,
                       layout: str = "channels_first") -> Array:  # fmt: skip
    """dx of `fc.lp_pool2d`: the sum over the windows of dy * sign(x) (|x| / y)^(p - 1), 0 where y is 0.

    Args:
        dy: the gradient of y. x, y: input and result of the forward call. The others: as there, norm_type finite.
    """
    return _lp_backward(2, dy, x, y, norm_type, kernel_size, stride, ceil_mode, padding, dilation, signed, layout)


@takes_dlpack
def lp_pool3d_backward(dy: Array, x: Array, y: Array, norm_type: Any, kernel_size: Any, stride: Any = None,
                       ceil_mode: bool = False, *, padding: Any = 0, dilation: Any = 1, signed: bool = True,
                       layout: str = "channels_first") -> Array:  # fmt: skip
    """As `fc.lp_pool2d_backward`, over three axes."""
    return _lp_backward(3, dy, x, y, norm_type, kernel_size, stride, ceil_mode, padding, dilation, signed, layout)
