# SPDX-License-Identifier: Apache-2.0
"""Pooling on the tape.

Max and min pooling are linear once the positions of the winners are known: ScatterPositions adds to them,
GatherPositions reads from them, and each is the other's gradient; unpooling is a scatter too. Averages and their
gradient are each other's gradient likewise. A norm's gradient depends on x and y: its native kernel serves the first
derivative, and a formula in tensor operations all higher ones.
"""

from typing import Any

import numpy as np

from .. import _core
from ..autograd import Context, Function, is_grad_enabled
from ..options import current
from ..pool_geometry import PoolGeometry
from ..tensor import Tensor
from .arithmetic import power
from .shape import reshape


class ExtremePool(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, g: PoolGeometry, return_indices: bool) -> tuple[Any, Any]:
        wanted = return_indices or ctx.needs_input_grad[0]
        y, indices = _core.pool_forward(g.problem, x, 1.0, wanted, current())
        ctx.static = {"indices": indices, "x_shape": g.x_shape, "layout": g.layout, "least": 0}
        return y, indices

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return ScatterPositions.apply(dy, **ctx.static)


class ScatterPositions(Function):
    @staticmethod
    def forward(ctx: Context, values: Any, *, indices: Any, x_shape: Any, layout: str, least: int) -> Any:
        ctx.static = {"indices": indices, "x_shape": x_shape, "layout": layout, "least": least}
        return _core.scatter_positions(values, indices, x_shape, layout, least, current())

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return GatherPositions.apply(dy, **ctx.static)


class GatherPositions(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, indices: Any, x_shape: Any, layout: str, least: int) -> Any:
        ctx.static = {"indices": indices, "x_shape": x_shape, "layout": layout, "least": least}
        return _core.gather_positions(x, indices, layout, least, current())

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return ScatterPositions.apply(dy, **ctx.static)


class AvgPool(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, problem: _core.PoolProblem) -> Any:
        ctx.problem = problem
        return _core.pool_forward(problem, x, 1.0, False, current())[0]

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return AvgPoolBackward.apply(dy, problem=ctx.problem)


class AvgPoolBackward(Function):
    @staticmethod
    def forward(ctx: Context, dy: Any, *, problem: _core.PoolProblem) -> Any:
        ctx.problem = problem
        return _core.pool_backward(problem, dy, None, None, 1.0, current())

    @staticmethod
    def backward(ctx: Context, gdx: Tensor) -> Tensor:
        return AvgPool.apply(gdx, problem=ctx.problem)


class LpPool(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, g: PoolGeometry, norm: float) -> Any:
        ctx.save(0, output=True)
        ctx.g, ctx.norm = g, norm
        return _core.pool_forward(g.problem, x, norm, False, current())[0]

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        x, y = ctx.saved
        if is_grad_enabled():
            return _lp_gradient(dy, x, y, ctx.g, ctx.norm)
        return Tensor(_core.pool_backward(ctx.g.problem, dy.data, x.data, y.data, ctx.norm, current()))


def _lp_gradient(dy: Tensor, x: Tensor, y: Tensor, g: PoolGeometry, p: float) -> Tensor:
    """f(x) * (the sum over the windows of dy / |y|^(p - 1)), f(x) = sign(x) |x|^(p - 1), or x^(p - 1) with signs.

    Both powers are of numbers scaled by the largest |x|. Where a power of y passes every float it counts as 0.
    """
    is_signed = g.problem.kind == "signed_lp"
    sign = np.sign(x.data)
    largest = float(np.max(np.abs(x.data), initial=0.0))
    scale = 1 / largest if 0 < largest < np.inf else 1.0
    if p > 1:
        norm = np.abs(y.data) * scale
        with np.errstate(divide="ignore", over="ignore"):
            keep = np.isfinite(norm ** (1 - p)).astype(x.dtype)
        base = y * Tensor(np.sign(y.data) * keep * x.dtype.type(scale)) + Tensor(1 - keep)
        dy = dy * power(base, 1 - p) * Tensor(keep)
    shares = AvgPoolBackward.apply(dy, problem=g.sums)
    if p == 1:
        return shares if is_signed else shares * Tensor(sign)
    if p == 2:
        return shares * (x * scale)
    if is_signed:
        return shares * power(x * scale, p - 1)
    magnitude = x * Tensor(sign * x.dtype.type(scale)) + Tensor((sign == 0).astype(x.dtype))
    return shares * (power(magnitude, p - 1) * Tensor(sign))


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


def scatter_positions(values: Tensor, indices: Any, x_shape: tuple[int, ...], layout: str) -> Tensor:
    """A plane of zeros with the values added at the positions; -1 is nowhere."""
    return ScatterPositions.apply(values, indices=indices, x_shape=x_shape, layout=layout, least=-1)
