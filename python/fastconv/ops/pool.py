# SPDX-License-Identifier: Apache-2.0
"""Pooling on the tape.

Max and min pooling are linear once the positions of the winners are known: ScatterPositions adds to them,
GatherPositions reads from them, and each is the other's gradient; unpooling is a scatter too. Between forward and
backward a position is the number of its tap, one byte, where windows have one size and at most 256 taps. Averages and
their gradient are each other's gradient likewise. A norm's gradient depends on x and y: it has a native kernel too,
whose own gradient is a formula in tensor operations.
"""

from typing import Any

import numpy as np

from .. import _core
from ..arrays import native
from ..autograd import Context, Function
from ..options import current
from ..pool_geometry import PoolGeometry
from ..tensor import Tensor
from .arithmetic import power
from .shape import reshape


class ExtremePool(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, g: PoolGeometry, return_indices: bool) -> tuple[Any, Any]:
        needed, ctx.offsets = ctx.needs_input_grad[0], None
        if needed and g.problem.has_offsets:
            y, ctx.offsets = native(x).pool_forward_offsets(g.problem, x, current())
            ctx.g = g
            return y, native(ctx.offsets).offset_positions(
                g.problem, ctx.offsets, current()
            ) if return_indices else None
        y, indices = native(x).pool_forward(g.problem, x, 1.0, return_indices or needed, current())
        ctx.static = {"indices": indices, "x_shape": g.x_shape, "layout": g.layout, "least": 0}
        return y, indices

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        if ctx.offsets is not None:
            return ExtremePoolBackward.apply(dy, g=ctx.g, offsets=ctx.offsets)
        return ScatterPositions.apply(dy, **ctx.static)


class ExtremePoolBackward(Function):
    @staticmethod
    def forward(ctx: Context, dy: Any, *, g: PoolGeometry, offsets: Any) -> Any:
        ctx.g, ctx.offsets = g, offsets
        return native(dy).pool_backward_offsets(g.problem, dy, offsets, current())

    @staticmethod
    def backward(ctx: Context, gdx: Tensor) -> Tensor:
        indices = native(ctx.offsets).offset_positions(ctx.g.problem, ctx.offsets, current())
        return GatherPositions.apply(gdx, indices=indices, x_shape=ctx.g.x_shape, layout=ctx.g.layout, least=0)


class ScatterPositions(Function):
    @staticmethod
    def forward(ctx: Context, values: Any, *, indices: Any, x_shape: Any, layout: str, least: int) -> Any:
        ctx.static = {"indices": indices, "x_shape": x_shape, "layout": layout, "least": least}
        return native(values).scatter_positions(values, indices, x_shape, layout, least, current())

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return GatherPositions.apply(dy, **ctx.static)


class LastPositions(Function):
    """Of indices (N, C, *) that name a position more than once all but the last as -1. Nothing has a gradient."""

    @staticmethod
    def forward(ctx: Context, indices: Any, *, x_shape: Any, layout: str) -> Any:
        return native(indices).last_positions(indices, x_shape, layout, current())


class GatherPositions(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, indices: Any, x_shape: Any, layout: str, least: int) -> Any:
        ctx.static = {"indices": indices, "x_shape": x_shape, "layout": layout, "least": least}
        return native(x).gather_positions(x, indices, layout, least, current())

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return ScatterPositions.apply(dy, **ctx.static)


class AvgPool(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, problem: _core.PoolProblem) -> Any:
        ctx.problem = problem
        return native(x).pool_forward(problem, x, 1.0, False, current())[0]

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return AvgPoolBackward.apply(dy, problem=ctx.problem)


class AvgPoolBackward(Function):
    @staticmethod
    def forward(ctx: Context, dy: Any, *, problem: _core.PoolProblem) -> Any:
        ctx.problem = problem
        return native(dy).pool_backward(problem, dy, None, None, 1.0, current())

    @staticmethod
    def backward(ctx: Context, gdx: Tensor) -> Tensor:
        return AvgPool.apply(gdx, problem=ctx.problem)


class LpPool(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, g: PoolGeometry, norm: float) -> Any:
        ctx.save(0, output=True)
        ctx.g, ctx.norm = g, norm
        return native(x).pool_forward(g.problem, x, norm, False, current())[0]

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        x, y = ctx.saved
        return LpPoolBackward.apply(dy, x, y, g=ctx.g, norm=ctx.norm)


class LpPoolBackward(Function):
    """dx = f(x) * sum over the windows of dy h(y), f(x) = sign(x) |x|^(p - 1) or x^(p - 1) with its sign, h(y) =
    |y|^(1 - p). Its own gradient is written in tensor operations and float64, with x and y scaled by the largest |x|.
    """

    @staticmethod
    def forward(ctx: Context, dy: Any, x: Any, y: Any, *, g: PoolGeometry, norm: float) -> Any:
        ctx.save(0, 1, 2)
        ctx.g, ctx.norm = g, norm
        return native(dy).pool_backward(g.problem, dy, x, y, norm, current())

    @staticmethod
    def backward(ctx: Context, gdx: Tensor) -> tuple[Tensor | None, ...]:
        dtype, p, g = gdx.dtype, ctx.norm, ctx.g
        is_signed = g.problem.kind == "signed_lp"
        dy, x, y = (t.astype(np.float64) for t in ctx.saved)
        v = gdx.astype(np.float64)
        if p == 1:
            v = v if is_signed else v * Tensor(np.sign(x.data))
            return AvgPool.apply(v, problem=g.sums).astype(dtype), None, None
        largest = float(np.max(np.abs(x.data), initial=0.0))
        scale = 1 / largest if np.finfo(np.float64).tiny <= largest < np.inf else 1.0
        f, f_slope = _powers_of_cells(x * scale, p, is_signed)
        h, h_slope = _powers_of_norms(y * scale, p)
        sums = AvgPool.apply(v * f, problem=g.sums)
        to_x = v * f_slope * scale * AvgPoolBackward.apply(dy * h, problem=g.sums)
        to_y = dy * sums * h_slope * scale
        return (sums * h).astype(dtype), to_x.astype(dtype), to_y.astype(dtype)


def _powers_of_cells(x: Tensor, p: float, is_signed: bool) -> tuple[Tensor, Any]:
    """f(x) and its derivative, which counts as 0 where it is infinite: at 0, for p below 2."""
    if p == 2:
        return x, 1.0
    if is_signed:
        return power(x, p - 1), power(x, p - 2) * (p - 1)
    sign = np.sign(x.data)
    with np.errstate(divide="ignore", over="ignore"):
        keep = (sign != 0) & np.isfinite(np.abs(x.data) ** (p - 2))
    magnitude = x * Tensor(sign * keep) + Tensor(1.0 - keep)
    return power(magnitude, p - 1) * Tensor(sign * keep), power(magnitude, p - 2) * Tensor((p - 1) * keep)


def _powers_of_norms(y: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """h(y) and its derivative; both count as 0 where they pass every float."""
    sign = np.sign(y.data)
    with np.errstate(divide="ignore", over="ignore"):
        keep = np.isfinite(np.abs(y.data) ** -p)
    magnitude = y * Tensor(sign * keep) + Tensor(1.0 - keep)
    return power(magnitude, 1 - p) * Tensor(1.0 * keep), power(magnitude, -p) * Tensor((1 - p) * sign * keep)


def pool(x: Tensor, g: PoolGeometry, norm: float = 1.0, return_indices: bool = False) -> tuple[Tensor, Tensor | None]:
    """(y, indices or None) of a pooling whose geometry and dtype were checked."""
    x = reshape(x, g.x_shape)
    indices = None
    if g.problem.kind in ("max", "min"):
        y, indices = ExtremePool.apply(x, g=g, return_indices=return_indices)
    elif g.problem.kind == "average":
        y = AvgPool.apply(x, problem=g.problem)
    else:
        y = LpPool.apply(x, g=g, norm=norm)
    if not g.batched:
        y = reshape(y, g.y_shape[1:])
        indices = None if indices is None else reshape(indices, g.y_shape[1:])
    return y, indices


def last_positions(indices: Tensor, x_shape: tuple[int, ...], layout: str) -> Tensor:
    """The indices with -1 for each that a later one repeats."""
    return LastPositions.apply(indices, x_shape=x_shape, layout=layout)


def scatter_positions(values: Tensor, indices: Any, x_shape: tuple[int, ...], layout: str) -> Tensor:
    """A plane of zeros with the values added at the positions; -1 is nowhere."""
    return ScatterPositions.apply(values, indices=indices, x_shape=x_shape, layout=layout, least=-1)
