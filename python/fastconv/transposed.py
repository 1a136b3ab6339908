# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution on plain arrays; with an `fc.Tensor` it records (ops/transposed.py).

It is computed as what it is, the backward-data pass of a convolution, with the bias and the activation in the same
kernel: a stride multiplies no work by zeros. (Dumoulin and Visin, A guide to convolution arithmetic, 2016, chapter 4.)
"""

from typing import Any

import numpy as np

from . import _core, ops
from .arrays import as_native, is_torch, native, torch_bridge
from .geometry import activation_words, expect_shape
from .options import Precision, chosen
from .primitives import checked_output
from .tensor import Tensor
from .transposed_geometry import transposed_geometry

Array = Any


def _forward(caller: str, rank: int, x: Array, w: Array, bias: Array, stride: Any, padding: Any, output_padding: Any,
             groups: int, dilation: Any, output_size: Any, activation: Any, layout: str,
             options: _core.Options, out: Array) -> Any:  # fmt: skip
    if any(isinstance(a, Tensor) for a in (x, w, bias)):
        if out is not None:
            raise TypeError(f"{caller}: out is for arrays; a Tensor's result is always new")
        return ops.conv_transpose(caller, rank, x, w, bias, stride, padding, output_padding, groups, dilation,
                                  output_size, activation, layout, options)  # fmt: skip
    if is_torch(x, w, bias):
        return torch_bridge().convolve_transposed(caller, rank, x, w, bias, stride, padding, output_padding, groups,
                                                  dilation, output_size, activation, layout, options,
                                                  out)  # fmt: skip
    x = as_native(x, "x", caller)
    w = as_native(w, "w", caller, x.dtype)
    t = transposed_geometry(caller, rank, x.shape, w.shape, stride, padding, output_padding, groups, dilation,
                            output_size, layout)  # fmt: skip
    g = t.forward
    if bias is not None:
        bias = as_native(bias, "bias", caller, x.dtype)
        expect_shape("bias", caller, bias.shape, (w.shape[1] * g.groups,))
    kind, alpha = activation_words(activation, caller)
    x = x if g.batched else x[None]
    if any(t.tail):
        x = np.pad(x, t.widths(layout))
    y_shape = g.x_shape if g.batched else g.x_shape[1:]
    y = native(x).conv_backward_data(x, w, g.x_shape, g.stride, g.pad_begin, g.pad_end, g.dilation, g.groups, "zeros",
                                 layout, options,
                                 checked_output(out, caller, y_shape, x.dtype, g.batched), bias, kind,
                                 alpha)  # fmt: skip
    if out is not None:
        return out
    return y if g.batched else y[0]


def conv_transpose1d(x: Array, w: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1, *, output_size: Any = None,
                     activation: Any = None, layout: str = "channels_first", algorithm: str | None = None,
                     precision: Precision = None,
                     out: Array | None = None) -> Any:  # fmt: skip
    """Transposed convolution over one axis: x (N, C, W), w (C, K/groups, S). Arguments as for `fc.conv_transpose2d`."""
    return _forward("conv_transpose1d", 1, x, w, bias, stride, padding, output_padding, groups, dilation, output_size,
                    activation, layout, chosen(algorithm, precision), out)  # fmt: skip


def conv_transpose2d(x: Array, w: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1, *, output_size: Any = None,
                     activation: Any = None, layout: str = "channels_first", algorithm: str | None = None,
                     precision: Precision = None,
                     out: Array | None = None) -> Any:  # fmt: skip
    """y = activation(conv_transpose(x, w) + bias): each pixel of x adds its multiple of the filter to y.

    The adjoint of `fc.conv2d` with the same stride, padding and dilation: <conv2d(y, w), x> = <y, conv_transpose2d(x,
    w)>. Its own gradients are therefore dx = conv2d(dy, w) and dw = conv2d_backward_filter(x, dy, w.shape).

    Args:
        x: (N, C, H, W), or (C, H, W) for one image; (N, H, W, C) with layout="channels_last". Dtypes as for
            `fc.conv2d`.
        w: (C, K/groups, R, S), in either layout.
        bias: (K,) or None.
        stride, dilation: an int, or one per axis.
        padding: what is cut off the result: an int; one per axis; ((top, bottom), (left, right)); "valid" (nothing);
            "same" (the result is stride times as large as x, the adjoint of "same" in `fc.conv2d`); "same_lower".
        output_padding: an int, or one per axis: rows and columns added at the bottom and right of the result, less
            than the stride or the dilation. They are computed, not filled with zeros.
        groups: the channels of x and y are split into this many independent groups.
        output_size: the spatial size of y (an int, one per axis, or a whole shape), instead of output_padding: several
            sizes of y, up to a stride apart, belong to one size of x.
        activation, layout, algorithm, precision, out: as for `fc.conv2d`.

    Returns:
        y, the kind of x: (N, K, P, Q) with P = (H - 1) * stride - top - bottom + (R - 1) * dilation + 1 +
        output_padding.

    Raises:
        TypeError, ProblemError, UnsupportedError, WorkspaceError: as `fc.conv2d`.

    Example:
        >>> y = fc.conv_transpose2d(x, w, bias, stride=2, padding="same", activation="relu")
    """
    return _forward("conv_transpose2d", 2, x, w, bias, stride, padding, output_padding, groups, dilation, output_size,
                    activation, layout, chosen(algorithm, precision), out)  # fmt: skip


def conv_transpose3d(x: Array, w: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1, *, output_size: Any = None,
                     activation: Any = None, layout: str = "channels_first", algorithm: str | None = None,
                     precision: Precision = None,
                     out: Array | None = None) -> Any:  # fmt: skip
    """Transposed convolution over three axes: x (N, C, D, H, W), w (C, K/groups, T, R, S). Arguments as for
    `fc.conv_transpose2d`."""
    return _forward("conv_transpose3d", 3, x, w, bias, stride, padding, output_padding, groups, dilation, output_size,
                    activation, layout, chosen(algorithm, precision), out)  # fmt: skip
