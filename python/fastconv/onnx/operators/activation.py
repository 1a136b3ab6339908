# SPDX-License-Identifier: Apache-2.0
"""Activations, element by element, and the softmax family."""

import math
from typing import Any

import numpy as np

from ... import ops
from ...ops.activation_formulas import SELU_ALPHA, SELU_SCALE
from ...tensor import Tensor
from ..node import Node, Value, axis_of, number


def relu(node: Node, x: Value) -> Value:
    return ops.relu(x) if isinstance(x, Tensor) else np.maximum(x, 0)


def leaky_relu(node: Node, x: Value, *, alpha: float = 0.01) -> Value:
    return ops.leaky_relu(x, alpha) if alpha >= 0 else ops.where(x.data < 0, x * alpha, x)


def prelu(node: Node, x: Value, slope: Value) -> Value:
    """A slope for each channel where its shape says that; until opset 6 any list is one of channels."""
    lengths = tuple(n for n in slope.shape if n != 1)
    channels = x.shape[1] if x.ndim > 1 else 1
    by_channel = slope.shape == (channels, *(1,) * (x.ndim - 2)) or (node.opset < 7 and slope.shape == (channels,))
    if not lengths or (by_channel and lengths == (channels,)):
        return ops.prelu(x, slope.reshape(-1))
    return ops.relu(x) - slope * ops.relu(-x)


def elu(node: Node, x: Value, *, alpha: float = 1.0) -> Value:
    return ops.elu(x, alpha)


def celu(node: Node, x: Value, *, alpha: float = 1.0) -> Value:
    return ops.celu(x, alpha)


def selu(node: Node, x: Value, *, alpha: float = 1.67326319217681884765625,
         gamma: float = 1.05070102214813232421875) -> Value:  # fmt: skip
    if math.isclose(alpha, SELU_ALPHA, rel_tol=1e-6) and math.isclose(gamma, SELU_SCALE, rel_tol=1e-6):
        return ops.selu(x)
    return ops.elu(x, alpha) * gamma


def sigmoid(node: Node, x: Value) -> Value:
    return ops.sigmoid(x)


def tanh(node: Node, x: Value) -> Value:
    return ops.tanh(x)


def hard_sigmoid(node: Node, x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    if beta == 0.5 and math.isclose(alpha, 1 / 6, rel_tol=1e-6):
        return ops.hard_sigmoid(x)
    return ops.clip(x * alpha + beta, 0.0, 1.0)


def hard_swish(node: Node, x: Value) -> Value:
    return ops.hard_swish(x)


def gelu(node: Node, x: Value, *, approximate: str = "none") -> Value:
    return ops.gelu(x, approximate)


def mish(node: Node, x: Value) -> Value:
    return ops.mish(x)


def swish(node: Node, x: Value, *, alpha: float = 1.0) -> Value:
    return ops.silu(x) if alpha == 1 else x * ops.sigmoid(x * alpha)


def softplus(node: Node, x: Value) -> Value:
    return ops.softplus(x)


def softsign(node: Node, x: Value) -> Value:
    return ops.softsign(x)


def thresholded_relu(node: Node, x: Value, *, alpha: float = 1.0) -> Value:
    return ops.where(x.data > alpha, x, Tensor(np.zeros((), x.dtype)))


def shrink(node: Node, x: Value, *, bias: float = 0.0, lambd: float = 0.5) -> Value:
    below, above = x < -lambd, x > lambd
    if not isinstance(x, Tensor):
        return np.where(below, x + bias, np.where(above, x - bias, 0)).astype(x.dtype)
    return ops.where(below, x + bias, ops.where(above, x - bias, Tensor(np.zeros((), x.dtype)))).astype(x.dtype)


def clip(node: Node, x: Value, min: Value = None, max: Value = None) -> Value:
    """Where the limits cross, the upper one counts."""
    low, high = (None if v is None else number(node, v, n) for v, n in ((min, "min"), (max, "max")))
    if low is None and high is None:
        return x
    if low is not None and high is not None and low > high:
        low = high
    if isinstance(x, Tensor) and low == 0 and high in (None, 6):  # sessions fuse these into a convolution
        return ops.relu(x) if high is None else ops.relu6(x)
    return ops.clip(x, low, high) if isinstance(x, Tensor) else np.clip(x, low, high).astype(x.dtype)


def _rows(node: Node, x: Value, axis: int | None) -> tuple[Value, int]:
    """(x, axis); until opset 12 all axes from `axis` (1) on make up one row."""
    if node.opset >= 13:
        return x, axis_of(node, -1 if axis is None else axis, x.ndim)
    axis = 1 if axis is None else axis
    axis = axis if axis == x.ndim else axis_of(node, axis, x.ndim)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), 1


def softmax(node: Node, x: Value, *, axis: int | None = None) -> Value:
    rows, along = _rows(node, x, axis)
    return ops.softmax(rows, along).reshape(x.shape)


def log_softmax(node: Node, x: Value, *, axis: int | None = None) -> Value:
    rows, along = _rows(node, x, axis)
    return ops.log_softmax(rows, along).reshape(x.shape)


def hardmax(node: Node, x: Value, *, axis: int | None = None) -> Value:
    """1 at the first largest element; it has no gradient."""
    rows, along = _rows(node, x, axis)
    y: Any = np.zeros(rows.shape, x.dtype)
    np.put_along_axis(y, ops.argmax(rows, along, True), 1, along)
    return Tensor(y.reshape(x.shape))
