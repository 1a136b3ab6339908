# SPDX-License-Identifier: Apache-2.0
"""Softmax and its logarithm, along any axis."""

import math
from typing import Any

from .._core import ProblemError
from ..arrays import kernels, namespace
from ..autograd import Context, Function, is_grad_enabled
from ..tensor import Tensor, as_tensor
from .elementary import exp
from .shape import reshape, sum, transpose


class Softmax(Function):
    """Over the last axis of (N, K), or the logarithm of that."""

    device_takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, log: bool = False) -> Any:
        ctx.log = log
        ctx.save(output=True)
        if (native := kernels(x)) is not None:
            return native.softmax_forward(x, log)
        xp = namespace(x)
        shifted = x - x.max(-1, keepdims=True)
        total = xp.exp(shifted).sum(-1, keepdims=True)
        return shifted - xp.log(total) if log else xp.exp(shifted) / total

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        if not is_grad_enabled() and (native := kernels(dy.data, y.data)) is not None:
            return Tensor(native.softmax_backward(dy.data, y.data, ctx.log))
        if ctx.log:
            return dy - exp(y) * sum(dy, -1, True)
        return y * (dy - sum(dy * y, -1, True))


def _over_last_axis(x: Tensor, axis: int, name: str, log: bool) -> Tensor:
    if not -x.ndim <= axis < x.ndim:
        raise ProblemError(f"{name}: axis is {axis}; expected {-x.ndim} to {x.ndim - 1} for shape {x.shape}")
    if axis % x.ndim == x.ndim - 1:  # the usual case needs no detour
        if x.ndim == 2:
            return Softmax.apply(x, log=log)
        rows = reshape(x, math.prod(x.shape[:-1]), x.shape[-1])
        return reshape(Softmax.apply(rows, log=log), x.shape)
    order = [a for a in range(x.ndim) if a != axis % x.ndim] + [axis % x.ndim]
    moved = transpose(x, *order)
    rows = reshape(moved, math.prod(moved.shape[:-1]), moved.shape[-1])
    y = reshape(Softmax.apply(rows, log=log), moved.shape)
    return transpose(y, *(order.index(a) for a in range(x.ndim)))


def softmax(x: Any, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, without overflow."""
    return _over_last_axis(as_tensor(x), axis, "softmax", log=False)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """The logarithm of `softmax`, exact also where that underflows."""
    return _over_last_axis(as_tensor(x), axis, "log_softmax", log=True)
