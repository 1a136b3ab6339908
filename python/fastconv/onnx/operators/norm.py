# SPDX-License-Identifier: Apache-2.0
"""Normalisation, and Dropout: what differs between training and inference is here."""

import math
from typing import Any

import numpy as np

from ... import ops, response
from ...half import convert
from ...tensor import Tensor
from ..node import Node, Value, axes_of, axis_of, number


def batch_normalization(node: Node, x: Value, scale: Value, b: Value, mean: Value, var: Value, *,
                        epsilon: float = 1e-5, momentum: float = 0.9, training_mode: int = 0, spatial: int = 1,
                        is_test: int = 1) -> Any:  # fmt: skip
    """In training by the batch's statistics, towards which the running ones move; those of ONNX are biased."""
    if not spatial:
        raise node.unsupported("spatial=0, statistics for each pixel, left ONNX with opset 9")
    if training_mode:
        axes = (0, *range(2, x.ndim))
        column = (-1, *(1,) * (x.ndim - 2))
        centre = ops.mean(x, axes)
        variance = ops.var(x, axes, 0)
        y = (x - centre.reshape(column)) * ops.rsqrt(variance + epsilon).reshape(column)
        y = y.astype(x.dtype) * scale.astype(x.dtype).reshape(column) + b.astype(x.dtype).reshape(column)
        return (
            y.astype(x.dtype),
            (mean * momentum + centre.astype(mean.dtype) * (1 - momentum)).astype(mean.dtype),
            (var * momentum + variance.astype(var.dtype) * (1 - momentum)).astype(var.dtype),
        )
    scale, b, mean, var = (t.astype(x.dtype) for t in (scale, b, mean, var))
    return ops.batch_norm(x, mean.data, var.data, scale, b, node.training, 1 - momentum, epsilon)


def instance_normalization(node: Node, x: Value, scale: Value, b: Value, *, epsilon: float = 1e-5) -> Value:
    if x.ndim < 3:
        return ops.layer_norm(x.reshape(*x.shape, 1), 1, eps=epsilon).reshape(x.shape) * scale + b
    if math.prod(x.shape[2:]) == 1:  # one pixel is its own mean
        return ops.group_norm(x, x.shape[1], scale, b, epsilon)
    return ops.instance_norm(x, None, None, scale, b, True, 0.0, epsilon)


def group_normalization(node: Node, x: Value, scale: Value, b: Value, *, num_groups: int, epsilon: float = 1e-5,
                        stash_type: int = 1) -> Value:  # fmt: skip
    """Until opset 20 scale and bias are those of the groups, from 21 on those of the channels."""
    if node.opset < 21:
        per = x.shape[1] // num_groups
        scale, b = (
            ops.broadcast_to(t.reshape(num_groups, 1), num_groups, per).reshape(num_groups * per) for t in (scale, b)
        )
    return ops.group_norm(x, num_groups, scale, b, epsilon)


def layer_normalization(node: Node, x: Value, scale: Value, b: Value = None, *, axis: int = -1, epsilon: float = 1e-5,
                        stash_type: int = 1) -> Any:  # fmt: skip
    axis = axis_of(node, axis, x.ndim)
    last = x.shape[axis:]
    fits = scale.shape == last and (b is None or b.shape == last)
    y = ops.layer_norm(x, last, scale if fits else None, b if fits else None, epsilon)
    if not fits:
        y = y * scale if b is None else y * scale + b
    if not node.wants(1) and not node.wants(2):
        return y
    axes = tuple(range(axis, x.ndim))
    return y, ops.mean(x, axes, True), ops.rsqrt(ops.var(x, axes, 0, True) + epsilon)


def rms_normalization(node: Node, x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5,
                      stash_type: int = 1) -> Value:  # fmt: skip
    """Zhang and Sennrich, "Root mean square layer normalization", 2019."""
    axes = tuple(range(axis_of(node, axis, x.ndim), x.ndim))
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    return (wide * ops.rsqrt(ops.mean(wide * wide, axes, True) + epsilon)).astype(x.dtype) * scale


def lrn(node: Node, x: Value, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Value:
    return response.local_response_norm(x, size, alpha, beta, bias, extra="after")


def lp_normalization(node: Node, x: Value, *, axis: int = -1, p: int = 2) -> Value:
    """x over its norm; 0 where that is 0."""
    if p not in (1, 2):
        raise node.unsupported(f"p is {p}; ONNX has 1 and 2")
    axis = axis_of(node, axis, x.ndim)
    sums = ops.sum(ops.abs(x) if p == 1 else x * x, axis, True)
    still = sums.data == 0
    safe = ops.where(still, Tensor(np.ones_like(sums.data)), sums)
    return x / (safe if p == 1 else ops.sqrt(safe))


def mean_variance_normalization(node: Node, x: Value, *, axes: Any = (0, 2, 3)) -> Value:
    chosen = axes_of(node, axes, x.ndim)
    centred = x - ops.mean(x, chosen, True)
    return centred / (ops.sqrt(ops.mean(centred * centred, chosen, True)) + 1e-9)


def dropout(node: Node, x: Value, ratio: Value = 0.5, training_mode: Value = None, *, seed: int = 0,
            is_test: int = 0) -> Any:  # fmt: skip
    """Drops in training alone: where the model is in training mode, or the node says so itself.

    The mask comes from `fastconv.random`; `seed` would repeat it only in the library that wrote it.
    """
    p = 0.5 if ratio is None else float(number(node, ratio, "ratio"))
    trains = node.training or (training_mode is not None and bool(number(node, training_mode, "training_mode")))
    if not trains or is_test or p == 0:
        return (x, np.ones(x.shape, np.bool_)) if node.wants(1) else x
    if not node.wants(1):
        return ops.dropout(x, p)
    factors = ops.dropout(Tensor(np.ones(x.shape, np.float32)), p).data
    return x * Tensor(convert(factors, x.dtype)), factors != 0
