# SPDX-License-Identifier: Apache-2.0
"""Sums, means, extremes and their like over axes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ...tensor import Tensor, plain
from ..node import Node, Operator, Value, as_value, axes_of, axis_of, ints, number


def _reduction(on_tensors: Callable[..., Any], on_arrays: Callable[..., Any], of_nothing: float | None = 0.0,
               pointwise: Callable[[Tensor], Tensor] | None = None) -> Operator:  # fmt: skip
    """An operator that reduces over axes, which are an attribute or an input.

    of_nothing: the result over no element; None: what the function says. pointwise: what it does to single elements,
    where there are no axes and `noop_with_empty_axes` is set.
    """

    def operator(node: Node, x: Value, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
        listed = () if axes is None else ints(node, axes, "axes")
        if not listed and noop_with_empty_axes:
            return x if pointwise is None else pointwise(x) if isinstance(x, Tensor) else on_arrays(x, (), True)
        chosen = axes_of(node, listed, x.ndim) or tuple(range(x.ndim))
        if any(x.shape[a] == 0 for a in chosen) and of_nothing is not None:
            return _nothing(x, chosen, bool(keepdims), of_nothing)
        if isinstance(x, Tensor):
            return on_tensors(x, chosen, bool(keepdims))
        return np.asarray(on_arrays(x, chosen, bool(keepdims))).astype(x.dtype)

    return operator


def _nothing(x: Value, axes: tuple[int, ...], keepdims: bool, result: float) -> Value:
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a not in axes)
    if x.dtype.kind == "b":
        return np.full(shape, result > 0)
    if x.dtype.kind in "iu" and not np.isfinite(result):
        info = np.iinfo(x.dtype)
        return np.full(shape, info.min if result < 0 else info.max, x.dtype)
    return as_value(np.full(shape, result, x.dtype))


def _product(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    """Halves of the elements multiplied by each other until one is left: a gradient also where some are 0."""
    others = tuple(a for a in range(x.ndim) if a not in axes)
    rows = ops.reshape(ops.transpose(x, *others, *axes), (*(x.shape[a] for a in others), -1)) if x.ndim else x
    while rows.ndim and rows.shape[-1] > 1:
        half, odd = divmod(rows.shape[-1], 2)
        y = rows[..., :half] * rows[..., half : 2 * half]
        rows = ops.concat([y, rows[..., 2 * half :]], -1) if odd else y
    return ops.reshape(rows, tuple(1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a not in axes))


def _sum_of_squares(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return ops.sum(x * x, axes, keepdims)


reduce_sum = _reduction(ops.sum, lambda x, a, k: np.sum(x, a, keepdims=k))
reduce_mean = _reduction(ops.mean, lambda x, a, k: np.mean(x, a, keepdims=k), None)
reduce_max = _reduction(ops.amax, lambda x, a, k: np.max(x, a, keepdims=k), -np.inf)
reduce_min = _reduction(ops.amin, lambda x, a, k: np.min(x, a, keepdims=k), np.inf)
reduce_prod = _reduction(_product, lambda x, a, k: np.prod(x, a, keepdims=k), 1.0)
reduce_l1 = _reduction(
    lambda x, a, k: ops.sum(ops.abs(x), a, k), lambda x, a, k: np.sum(np.abs(x), a, keepdims=k), 0.0, ops.abs
)
reduce_l2 = _reduction(
    lambda x, a, k: ops.sqrt(_sum_of_squares(x, a, k)),
    lambda x, a, k: np.sqrt(np.sum(np.square(x, dtype=np.float64), a, keepdims=k)),
    0.0,
    ops.abs,
)
reduce_sum_square = _reduction(
    _sum_of_squares, lambda x, a, k: np.sum(x * x, a, keepdims=k), 0.0, lambda x: x * x
)  # fmt: skip
reduce_log_sum = _reduction(
    lambda x, a, k: ops.log(ops.sum(x, a, k)), lambda x, a, k: np.log(np.sum(x, a, keepdims=k)), -np.inf, ops.log
)
reduce_log_sum_exp = _reduction(
    ops.logsumexp, lambda x, a, k: np.log(np.sum(np.exp(x), a, keepdims=k)), -np.inf, lambda x: x
)


def arg_max(node: Node, x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Value:
    return _place(node, x, axis, keepdims, select_last_index, "argmax")


def arg_min(node: Node, x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Value:
    return _place(node, x, axis, keepdims, select_last_index, "argmin")


def _place(node: Node, x: Value, axis: int, keepdims: int, select_last_index: int, name: str) -> Value:
    axis, values = axis_of(node, axis, x.ndim), plain(x)
    if select_last_index:
        values = np.flip(values, axis)
    found = getattr(values, name)(axis, keepdims=bool(keepdims))
    return np.asarray(x.shape[axis] - 1 - found if select_last_index else found, np.int64)


def cum_sum(node: Node, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Value:
    along = axis_of(node, int(number(node, axis, "axis")), x.ndim)
    if not isinstance(x, Tensor):
        values = np.flip(x, along) if reverse else x
        sums = np.cumsum(values, along, dtype=x.dtype) - (values if exclusive else 0)
        return np.asarray(np.flip(sums, along) if reverse else sums).astype(x.dtype)
    values = ops.flip(x, along) if reverse else x
    sums = ops.cumsum(values, along)
    sums = sums - values if exclusive else sums
    return ops.flip(sums, along) if reverse else sums
