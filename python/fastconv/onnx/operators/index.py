# SPDX-License-Identifier: Apache-2.0
"""Elements by their places: slices, gathers, splits, the largest few."""

from typing import Any

import numpy as np

from ... import ops
from ...tensor import Tensor, as_tensor, plain
from ..node import Node, Value, as_value, axes_of, axis_of, ints, like, number


def slice_(node: Node, x: Value, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Value:
    first, last = ints(node, starts, "starts"), ints(node, ends, "ends")
    chosen = tuple(range(len(first))) if axes is None else ints(node, axes, "axes")
    step = (1,) * len(first) if steps is None else ints(node, steps, "steps")
    cut = [slice(None)] * x.ndim
    for axis, begin, end, by in zip(axes_of(node, chosen, x.ndim), first, last, step, strict=True):
        if by == 0:
            raise node.problem("a step is 0; expected another number")
        cut[axis] = _clamped(x.shape[axis], begin, end, by)
    return like(ops.getitem(as_tensor(x), tuple(cut)), x)


def _clamped(n: int, begin: int, end: int, step: int) -> slice:
    """ONNX's begin and end (negative ones count from the end once, then are clamped) as Python's."""
    begin, end = (v + n if v < 0 else v for v in (begin, end))
    if n == 0:
        return slice(0, 0)
    if step > 0:
        return slice(min(max(begin, 0), n), min(max(end, 0), n), step)
    begin, end = min(max(begin, 0), n - 1), min(max(end, -1), n - 1)
    return slice(begin, None if end < 0 else end, step)


def gather(node: Node, x: Value, indices: Value, *, axis: int = 0) -> Value:
    axis = axis_of(node, axis, x.ndim)
    node.allow((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype.itemsize)
    # A single index is a number: a view, and no axis is left.
    at = int(indices) if indices.ndim == 0 else np.asarray(indices)
    return like(ops.getitem(as_tensor(x), (*(slice(None),) * axis, at)), x)


def gather_elements(node: Node, x: Value, indices: Value, *, axis: int = 0) -> Value:
    axis = axis_of(node, axis, x.ndim)
    return like(ops.gather(x, axis, indices), x)


def gather_nd(node: Node, x: Value, indices: Value, *, batch_dims: int = 0) -> Value:
    """x[i] for every tuple i along the last axis of the indices; the first `batch_dims` axes go side by side."""
    if not 0 <= batch_dims < indices.ndim or indices.shape[-1] > x.ndim - batch_dims:
        raise node.problem(f"indices have shape {indices.shape}, x {x.shape}, batch_dims is {batch_dims}")
    tuples = tuple(np.moveaxis(np.asarray(indices), -1, 0))
    batches = tuple(
        np.arange(n).reshape(-1, *(1,) * (indices.ndim - 2 - axis)) for axis, n in enumerate(x.shape[:batch_dims])
    )
    node.allow((*indices.shape[:-1], *x.shape[batch_dims + indices.shape[-1] :]), x.dtype.itemsize)
    return like(ops.getitem(as_tensor(x), (*batches, *tuples)), x)


def split(node: Node, x: Value, split: Any = None, *, axis: int = 0, num_outputs: int | None = None) -> Any:
    """Parts of these lengths, or as many equal ones as there are results, the last possibly shorter."""
    axis = axis_of(node, axis, x.ndim)
    count = len(node.outputs) if num_outputs is None else num_outputs
    if split is None:
        size = -(-x.shape[axis] // count)
        lengths: tuple[int, ...] = (*(size,) * (count - 1), x.shape[axis] - size * (count - 1))
    else:
        lengths = ints(node, split, "split")
    return tuple(like(part, x) for part in ops.split(x, lengths, axis))


def top_k(node: Node, x: Value, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    """(values, indices): of equal ones the first comes first."""
    axis, count = axis_of(node, axis, x.ndim), int(number(node, k, "k"))
    if not 0 <= count <= x.shape[axis]:
        raise node.problem(f"k is {count}; expected 0 to {x.shape[axis]}")
    values = plain(x)
    if largest:  # a stable order from the largest down: that of the reversed axis from the smallest up, reversed
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(values, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(values, axis, kind="stable")
    indices = order.take(np.arange(count), axis).astype(np.int64)
    return like(ops.take_along_axis(x, indices, axis), x), indices


def compress(node: Node, x: Value, condition: Value, *, axis: int | None = None) -> Value:
    """What the condition keeps, along an axis or of the flattened x."""
    x = as_tensor(x) if axis is not None else ops.reshape(x, -1)
    axis = 0 if axis is None else axis_of(node, axis, x.ndim)
    kept = np.flatnonzero(plain(condition))
    return as_value_of(ops.index_select(x, axis, kept))


def as_value_of(x: Tensor) -> Value:
    """A tensor, or its array where that is one of integers."""
    value = as_value(x.data)
    return x if isinstance(value, Tensor) else value


def non_zero(node: Node, x: Value) -> Value:
    return np.array(np.nonzero(plain(x)), np.int64)
