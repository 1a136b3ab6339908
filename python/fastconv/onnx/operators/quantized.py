# SPDX-License-Identifier: Apache-2.0
"""Quantised networks: integers of eight bits that stand for scale (q - zero point).

Sums of products of such integers are computed in float64, where they are exact below 2^53. Integers have no gradient.
"""

from typing import Any

import numpy as np

from ... import ops
from ...arrays import is_float
from ...tensor import Tensor, plain
from ..node import Node, Value, axis_of
from ..package import dtype_of
from .convolution import conv


def _along(node: Node, parameter: Any, x: Any, axis: int, block_size: int) -> Any:
    """A scale or zero point, one number, one for each place along an axis or for each block, beside x."""
    if parameter.size == 1 and parameter.ndim <= 1:
        return parameter.reshape(())
    axis = axis_of(node, axis, x.ndim)
    if parameter.ndim == 1 and not block_size:
        return parameter.reshape(-1, *(1,) * (x.ndim - axis - 1))
    if block_size < 1:
        raise node.problem(f"block_size is {block_size} for parameters of shape {parameter.shape}; expected 1 or more")
    index = np.arange(x.shape[axis]) // block_size
    return parameter.take(index, axis)


def _saturated(values: Any, dtype: Any) -> Any:
    info = np.iinfo(dtype)
    return np.clip(values, info.min, info.max).astype(dtype)


def quantize_linear(node: Node, x: Value, y_scale: Value, y_zero_point: Value = None, *, axis: int = 1,
                    block_size: int = 0, output_dtype: int = 0, precision: int = 0,
                    saturate: int = 1) -> Value:  # fmt: skip
    dtype = np.dtype(np.uint8) if not output_dtype else dtype_of(output_dtype)
    dtype = y_zero_point.dtype if y_zero_point is not None else dtype
    if dtype is None or dtype.kind not in "iu":
        raise node.unsupported(f"the result would have dtype {dtype}; fastconv quantises to integers of NumPy")
    x, scale = plain(x), plain(y_scale)
    wide = np.float64 if x.dtype == np.float64 else np.float32
    levels = np.rint(x.astype(wide) / _along(node, scale, x, axis, block_size).astype(wide))
    zero = 0 if y_zero_point is None else _along(node, y_zero_point, x, axis, block_size).astype(np.float64)
    return _saturated(levels + zero, dtype)


def dequantize_linear(node: Node, x: Value, x_scale: Value, x_zero_point: Value = None, *, axis: int = 1,
                      block_size: int = 0, output_dtype: int = 0) -> Value:  # fmt: skip
    dtype = dtype_of(output_dtype) if output_dtype else x_scale.dtype
    if dtype is None or not is_float(dtype) or isinstance(x, Tensor):
        raise node.problem(f"x has dtype {x.dtype}, the result {dtype}; expected integers and a float")
    scale = _along(node, plain(x_scale), x, axis, block_size).astype(np.float32)
    zero = 0 if x_zero_point is None else _along(node, x_zero_point, x, axis, block_size).astype(np.int64)
    return Tensor(((x.astype(np.int64) - zero).astype(np.float32) * scale).astype(dtype))


def dynamic_quantize_linear(node: Node, x: Value) -> Any:
    """uint8 between the smallest and the largest value and 0."""
    x = plain(x)
    low, high = min(float(x.min(initial=0)), 0.0), max(float(x.max(initial=0)), 0.0)
    scale = np.float32((high - low) / 255)
    zero = _saturated(np.rint(np.float32(-low) / scale) if scale else 0, np.uint8)
    levels = np.rint(x / scale) if scale else np.zeros(x.shape)
    return _saturated(levels + float(zero), np.uint8), Tensor(np.array(scale)), np.asarray(zero)


def _centred(node: Node, q: Any, zero_point: Any, axis: int) -> Tensor:
    values = q.astype(np.float64)
    return Tensor(values if zero_point is None else values - _along(node, zero_point, q, axis, 0))


def conv_integer(node: Node, x: Value, w: Value, x_zero_point: Value = None, w_zero_point: Value = None,
                 *, auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1, kernel_shape: Any = None,
                 pads: Any = None, strides: Any = None) -> Value:  # fmt: skip
    first, second = _centred(node, x, x_zero_point, 1), _centred(node, w, w_zero_point, 0)
    sums = conv(node, first, second, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape,
                pads=pads, strides=strides)  # fmt: skip
    return sums.data.astype(np.int32)


def qlinear_conv(node: Node, x: Value, x_scale: Value, x_zero_point: Value, w: Value, w_scale: Value,
                 w_zero_point: Value, y_scale: Value, y_zero_point: Value, b: Value = None, *,
                 auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1, kernel_shape: Any = None,
                 pads: Any = None, strides: Any = None) -> Value:  # fmt: skip
    first, second = _centred(node, x, x_zero_point, 1), _centred(node, w, w_zero_point, 0)
    bias = None if b is None else Tensor(b.astype(np.float64))
    sums = conv(node, first, second, bias, auto_pad=auto_pad, dilations=dilations, group=group,
                kernel_shape=kernel_shape, pads=pads, strides=strides).data  # fmt: skip
    factor = _along(node, plain(w_scale), sums, 1, 0) * plain(x_scale) / plain(y_scale)
    return _saturated(np.rint(sums * factor) + float(y_zero_point), y_zero_point.dtype)


def matmul_integer(node: Node, a: Value, b: Value, a_zero_point: Value = None, b_zero_point: Value = None) -> Value:
    product = ops.matmul(_centred(node, a, a_zero_point, a.ndim - 2), _centred(node, b, b_zero_point, b.ndim - 1))
    return product.data.astype(np.int32)


def qlinear_matmul(node: Node, a: Value, a_scale: Value, a_zero_point: Value, b: Value, b_scale: Value,
                   b_zero_point: Value, y_scale: Value, y_zero_point: Value) -> Value:  # fmt: skip
    first = _centred(node, a, a_zero_point, a.ndim - 2) * Tensor(_wide(node, a_scale, a, a.ndim - 2))
    second = _centred(node, b, b_zero_point, b.ndim - 1) * Tensor(_wide(node, b_scale, b, b.ndim - 1))
    levels = np.rint(ops.matmul(first, second).data / plain(y_scale).astype(np.float64))
    return _saturated(levels + plain(y_zero_point).astype(np.float64), y_zero_point.dtype)


def _wide(node: Node, scale: Value, q: Any, axis: int) -> Any:
    return _along(node, plain(scale).astype(np.float64), q, axis, 0)
