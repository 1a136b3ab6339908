# SPDX-License-Identifier: Apache-2.0
"""Patches as columns and back, on arrays and on the tape. Each is the other's adjoint, and so its gradient.

Both go tap by tap: the cells of x that one filter tap meets are a strided slice, so padding is never written out.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

from ..arrays import namespace
from ..autograd import Context, Function
from ..geometry import ConvGeometry
from ..half import in_float32
from ..tensor import Tensor


def tap_slices(g: ConvGeometry) -> Iterator[tuple[Any, Any]]:
    """For each filter tap: where its values stand in columns (N, C, *filter, *output), and in x (N, C, *size)."""
    axes = []
    for n, f, o, s, d, b in zip(g.x_shape[2:], g.w_shape[2:], g.y_shape[2:], g.stride, g.dilation, g.pad_begin,
                                strict=True):  # fmt: skip
        slices = []
        for tap in range(f):
            shift = tap * d - b
            first, last = max(0, -(shift // s)), min(o, (n - 1 - shift) // s + 1)
            start = first * s + shift
            inside = slice(start, start + (last - first - 1) * s + 1, s) if first < last else slice(0, 0)
            slices.append((tap, slice(first, max(first, last)), inside))
        axes.append(slices)
    for taps in product(*axes):
        yield (..., *(t for t, _, _ in taps), *(o for _, o, _ in taps)), (..., *(x for _, _, x in taps))


def unfold(x: Any, g: ConvGeometry) -> Any:
    """x (N, C, *size) -> (N, C * taps, outputs)."""
    xp = namespace(x)
    filter, plane = g.w_shape[2:], g.y_shape[2:]
    padded = any(g.pad_begin) or any(g.pad_end)
    columns = (xp.zeros if padded else xp.empty)((*g.x_shape[:2], *filter, *plane), x.dtype)
    for column, cells in tap_slices(g):
        columns[column] = x[cells]
    return columns.reshape(g.x_shape[0], g.x_shape[1] * math.prod(filter), math.prod(plane))


@in_float32
def fold(columns: Any, g: ConvGeometry) -> Any:
    """(N, C * taps, outputs) -> x (N, C, *size): the sum of what every cell was copied to, taps in ascending order."""
    x = namespace(columns).zeros(g.x_shape, columns.dtype)
    columns = columns.reshape(*g.x_shape[:2], *g.w_shape[2:], *g.y_shape[2:])
    for column, cells in tap_slices(g):
        x[cells] += columns[column]
    return x


class Unfold(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, g: ConvGeometry) -> Any:
        ctx.g = g
        return unfold(x, g)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return Fold.apply(dy, g=ctx.g)


class Fold(Function):
    @staticmethod
    def forward(ctx: Context, columns: Any, *, g: ConvGeometry) -> Any:
        ctx.g = g
        return fold(columns, g)

    @staticmethod
    def backward(ctx: Context, dx: Tensor) -> Tensor:
        return Unfold.apply(dx, g=ctx.g)
