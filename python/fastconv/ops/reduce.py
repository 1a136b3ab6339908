# SPDX-License-Identifier: Apache-2.0
"""Largest and smallest elements, means, variances and running sums along axes."""

import math
from typing import Any

from .._core import ProblemError
from ..arrays import namespace
from ..autograd import Context, Function, is_grad_enabled
from ..tensor import Tensor, as_tensor
from .arithmetic import Where, neg
from .elementary import exp, log, sqrt
from .index import TakeAlong
from .shape import Shape, axes_of, broadcast_to, mean, reshape, sum, transpose


class Extreme(Function):
    """The largest (or smallest) elements over axes, which are kept; equal ones share the gradient. NaN passes."""

    @staticmethod
    def forward(ctx: Context, x: Any, *, axes: Shape, smallest: bool) -> Any:
        y = x.min(axes, keepdims=True) if smallest else x.max(axes, keepdims=True)
        if ctx.needs_input_grad[0]:
            equal = (x == y) | (x != x)
            ctx.shape, ctx.shares = x.shape, x.dtype.type(1) * equal / equal.sum(axes, keepdims=True).astype(x.dtype)
        return y

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return broadcast_to(dy, ctx.shape) * Tensor(ctx.shares)


class CumSum(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, axis: int) -> Any:
        ctx.axis = axis
        return x.cumsum(axis, dtype=x.dtype)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        back = (slice(None),) * ctx.axis + (slice(None, None, -1),)
        return CumSum.apply(dy[back], axis=ctx.axis)[back]


def _filled(x: Tensor, axis: Any, caller: str) -> Shape:
    """The axes, none of which is empty."""
    axes = axes_of(axis, x.ndim, caller)
    if 0 in (x.shape[a] for a in axes):
        raise ProblemError(
            f"{caller}: x has shape {x.shape} and axis is {axis}; expected at least one element to choose"
        )
    return axes


def _without(x: Tensor, axes: Shape) -> Tensor:
    return reshape(x, tuple(n for a, n in enumerate(x.shape) if a not in axes))


def _first(x: Any, axis: Any, keepdims: bool, caller: str) -> Tensor:
    x = as_tensor(x)
    axes = _filled(x, axis, caller)
    if not is_grad_enabled():  # without a gradient it does not matter which of equal ones it is
        y = Extreme.apply(x, axes=axes, smallest=caller == "min")
        return y if keepdims else _without(y, axes)
    method = "argmin" if caller == "min" else "argmax"
    if len(axes) == 1:
        indices = getattr(x.data, method)(axes[0], keepdims=True)
        y = TakeAlong.apply(x, indices=indices, axis=axes[0], unique=True)
        return y if keepdims else _without(y, axes)
    others = tuple(a for a in range(x.ndim) if a not in axes)
    rows = reshape(transpose(x, *others, *axes), (*(x.shape[a] for a in others), -1)) if x.ndim else reshape(x, (1,))
    y = TakeAlong.apply(rows, indices=getattr(rows.data, method)(-1, keepdims=True), axis=rows.ndim - 1, unique=True)
    y = reshape(y, tuple(x.shape[a] for a in others))
    return reshape(y, tuple(1 if a in axes else n for a, n in enumerate(x.shape))) if keepdims else y


def max(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest element over the given axes, all by default; the gradient goes to the first of equal ones."""
    return _first(x, axis, keepdims, "max")


def min(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The smallest element over the given axes, all by default; the gradient goes to the first of equal ones."""
    return _first(x, axis, keepdims, "min")


def amax(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """As `max`, but equal elements share the gradient."""
    x = as_tensor(x)
    axes = _filled(x, axis, "amax")
    y = Extreme.apply(x, axes=axes, smallest=False)
    return y if keepdims else _without(y, axes)


def amin(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """As `min`, but equal elements share the gradient."""
    x = as_tensor(x)
    axes = _filled(x, axis, "amin")
    y = Extreme.apply(x, axes=axes, smallest=True)
    return y if keepdims else _without(y, axes)


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Where the first largest element is, as a plain array of int64: along an axis, or in the flattened array."""
    x = as_tensor(x)
    _filled(x, axis, "argmax")
    return namespace(x.data).asarray(x.data.argmax(axis, keepdims=keepdims))


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Where the first smallest element is; as `argmax`."""
    x = as_tensor(x)
    _filled(x, axis, "argmin")
    return namespace(x.data).asarray(x.data.argmin(axis, keepdims=keepdims))


def var(x: Any, axis: Any = None, correction: float = 1, keepdims: bool = False) -> Tensor:
    """The variance over the given axes: the sum of squared distances from the mean over (their number - correction).

    correction 1, the default as in PyTorch, is the unbiased estimate; 0 is NumPy's default. NaN where nothing is left
    to divide by.
    """
    x = as_tensor(x)
    axes = axes_of(axis, x.ndim, "var")
    left = math.prod(x.shape[a] for a in axes) - correction
    distance = x - mean(x, axes, keepdims=True)
    return sum(distance * distance, axes, keepdims) * (1.0 / left if left > 0 else math.nan)


def std(x: Any, axis: Any = None, correction: float = 1, keepdims: bool = False) -> Tensor:
    """The root of `var`; where it is 0 the gradient is 0."""
    variance = var(x, axis, correction, keepdims)
    still = variance.data == 0
    one = Tensor(namespace(still).ones_like(variance.data))
    return Where.apply(one * 0.0, sqrt(Where.apply(one, variance, condition=still)), condition=still)


def logsumexp(x: Any, axis: Any, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) over the given axes, without overflow."""
    x = as_tensor(x)
    axes = _filled(x, axis, "logsumexp")
    top = x.data.max(axes, keepdims=True)
    xp = namespace(top)
    top = Tensor(xp.where(abs(top) < math.inf, top, xp.zeros_like(top)))
    y = log(sum(exp(x + neg(top)), axes, keepdims=True)) + top
    return y if keepdims else _without(y, axes)


def cumsum(x: Any, axis: int) -> Tensor:
    """Running sums along an axis."""
    x = as_tensor(x)
    (axis,) = axes_of(axis, x.ndim, "cumsum")
    return CumSum.apply(x, axis=axis)
