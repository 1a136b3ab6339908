# SPDX-License-Identifier: Apache-2.0
"""Resizing as sparse matrices, one per axis: each output is a weighted sum of neighbouring inputs.

The gradient multiplies by the transposed matrix, which is of the same kind: every input gathers from the outputs that
it went into, in a fixed order. So forward, gradient and the gradient's gradient are one operation.
"""

import functools
import math
from typing import Any

import numpy as np

from .. import _core
from ..arrays import is_native, namespace
from ..autograd import Context, Function
from ..tensor import Tensor


class Taps:
    """A sparse matrix (outputs, inputs): row j has weights[start[j] : start[j + 1]] from column first[j] on."""

    def __init__(self, inputs: int, first: Any, start: Any, weights: Any) -> None:
        self.inputs, self.outputs = inputs, len(first)
        self.first, self.start = np.asarray(first, np.int64), np.asarray(start, np.int64)
        self.weights = np.asarray(weights, np.float64)

    @classmethod
    def of_rows(cls, inputs: int, rows: list[tuple[int, list[float]]]) -> "Taps":
        """From (first column, weights) for each row."""
        start = np.cumsum([0, *(len(weights) for _, weights in rows)])
        return cls(inputs, [first for first, _ in rows], start, [w for _, weights in rows for w in weights])

    @functools.cached_property
    def transposed(self) -> "Taps":
        """The same matrix by columns; rows between a column's first and last that do not use it have weight 0."""
        rows = np.repeat(np.arange(self.outputs), np.diff(self.start))
        columns = self.first[rows] + np.arange(len(self.weights)) - self.start[rows]
        first, last = np.full(self.inputs, self.outputs), np.full(self.inputs, -1)
        np.minimum.at(first, columns, rows)
        np.maximum.at(last, columns, rows)
        used = last >= 0
        start = np.concatenate([[0], np.cumsum(np.where(used, last - first + 1, 0))])
        weights = np.zeros(start[-1])
        np.add.at(weights, start[columns] + rows - first[columns], self.weights)
        other = Taps(self.outputs, np.where(used, first, 0), start, weights)
        other.__dict__["transposed"] = self
        return other

    def apply(self, x: Any, axis: int) -> Any:
        """The matrix times x along an axis."""
        if is_native(x):
            return _core.resample(x, axis, self.first, self.start, self.weights)
        xp, counts = namespace(x), np.diff(self.start)
        shape = (-1, *(1,) * (x.ndim - axis - 1))
        y = xp.zeros((*x.shape[:axis], self.outputs, *x.shape[axis + 1 :]), x.dtype)
        for tap in range(max(counts, default=0)):
            there = counts > tap
            index = xp.asarray(np.where(there, self.first + tap, 0))
            weights = self.weights[np.where(there, self.start[:-1] + tap, 0)].astype(x.dtype)
            part = x.take(index, axis) * xp.asarray(weights).reshape(shape)
            y += xp.where(xp.asarray(there).reshape(shape), part, xp.zeros((), x.dtype))
        return y


class Resample(Function):
    """x with each of `axes` multiplied by its matrix."""

    @staticmethod
    def forward(ctx: Context, x: Any, *, axes: tuple[tuple[int, Taps], ...]) -> Any:
        ctx.axes = axes
        # The order that leaves the least to do: growing from the last axis on, shrinking from the first.
        grows = math.prod(t.outputs for _, t in axes) > math.prod(t.inputs for _, t in axes)
        for axis, taps in sorted(axes, key=lambda pair: pair[0], reverse=grows):
            x = taps.apply(x, axis)
        return x

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return Resample.apply(dy, axes=tuple((axis, taps.transposed) for axis, taps in ctx.axes))


@functools.lru_cache(maxsize=256)
def window_taps(length: int, before: int, after: int) -> Taps:
    """Sums over the cells i - before to i + after of an axis, as far as they exist."""
    rows = []
    for i in range(length):
        low, high = max(0, i - before), min(length, i + after + 1)
        rows.append((low, [1.0] * (high - low)))
    return Taps.of_rows(length, rows)
