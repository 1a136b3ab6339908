# SPDX-License-Identifier: Apache-2.0
"""Softmax, its logarithm, and the cross-entropy of logits against class numbers."""

import math
from typing import Any

import numpy as np

from .. import _core
from .._core import ProblemError
from ..arrays import is_native, namespace
from ..autograd import Context, Function, is_grad_enabled
from ..tensor import Tensor, as_tensor, plain
from .elementary import exp
from .shape import mean, reshape, sum, transpose


class Softmax(Function):
    """Over the last axis of (N, K)."""

    @staticmethod
    def forward(ctx: Context, x: Any) -> Any:
        ctx.save(output=True)
        if is_native(x):
            return _core.softmax_forward(x)
        e = namespace(x).exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return y * (dy - sum(dy * y, -1, True))


class LogSoftmax(Function):
    """Over the last axis of (N, K)."""

    @staticmethod
    def forward(ctx: Context, x: Any) -> Any:
        ctx.save(output=True)
        xp = namespace(x)
        shifted = x - x.max(-1, keepdims=True)
        return shifted - xp.log(xp.exp(shifted).sum(-1, keepdims=True))

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return dy - exp(ctx.saved[0]) * sum(dy, -1, True)


class CrossEntropy(Function):
    """-log softmax(logits)[label] per row of (N, K); also gives the probabilities."""

    @staticmethod
    def forward(ctx: Context, logits: Any, *, labels: Any) -> tuple[Any, Any]:
        ctx.save(0)
        ctx.labels = labels
        if is_native(logits):
            loss, ctx.probabilities = _core.cross_entropy_forward(logits, labels)
            return loss, ctx.probabilities
        xp = namespace(logits)
        shifted = logits - logits.max(-1, keepdims=True)
        log_sum = xp.log(xp.exp(shifted).sum(-1, keepdims=True))
        ctx.probabilities = xp.exp(shifted - log_sum)
        return (log_sum - xp.take_along_axis(shifted, labels[:, None], -1))[:, 0], ctx.probabilities

    @staticmethod
    def backward(ctx: Context, dloss: Tensor) -> Tensor:
        (logits,) = ctx.saved
        if not is_grad_enabled() and is_native(dloss.data):
            return Tensor(_core.cross_entropy_backward(dloss.data, ctx.probabilities, ctx.labels))
        one_hot = namespace(logits.data).zeros(logits.shape, logits.dtype)
        one_hot[np.arange(len(ctx.labels)), ctx.labels] = 1
        return (Softmax.apply(logits) - Tensor(one_hot)) * reshape(dloss, -1, 1)


def _over_last_axis(function: type[Function], x: Tensor, axis: int, name: str) -> Tensor:
    if not -x.ndim <= axis < x.ndim:
        raise ProblemError(f"{name}: axis is {axis}; expected {-x.ndim} to {x.ndim - 1} for shape {x.shape}")
    order = [a for a in range(x.ndim) if a != axis % x.ndim] + [axis % x.ndim]
    moved = transpose(x, *order)
    y = reshape(function.apply(reshape(moved, math.prod(moved.shape[:-1]), moved.shape[-1])), moved.shape)
    return transpose(y, *(order.index(a) for a in range(x.ndim)))


def softmax(x: Any, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, without overflow."""
    return _over_last_axis(Softmax, as_tensor(x), axis, "softmax")


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """The logarithm of `softmax`, exact also where that underflows."""
    return _over_last_axis(LogSoftmax, as_tensor(x), axis, "log_softmax")


def cross_entropy(logits: Any, labels: Any, reduction: str = "mean") -> Tensor:
    """-log softmax(logits)[label].

    Args:
        logits: (N, K), or (N, K, *) with one prediction per position.
        labels: integers from 0 to K - 1, (N,) or (N, *).
        reduction: "mean" or "sum" over all predictions, or "none": one loss for each.

    Raises:
        ProblemError, TypeError: shapes that do not fit; labels out of range or not integers.
    """
    logits, labels = as_tensor(logits), plain(labels)
    labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if reduction not in ("mean", "sum", "none"):
        raise ProblemError(f'cross_entropy: reduction is {reduction!r}; expected "mean", "sum" or "none"')
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: labels have dtype {labels.dtype}; expected integers: use .astype(numpy.int64)")
    expected = (logits.shape[0], *logits.shape[2:]) if logits.ndim >= 2 else None
    if expected is None or labels.shape != expected:
        raise ProblemError(
            f"cross_entropy: logits have shape {logits.shape}, labels {labels.shape}; expected (N, K, *) and (N, *)"
        )
    classes = logits.shape[1]
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ProblemError(
            f"cross_entropy: labels go from {labels.min()} to {labels.max()}; expected 0 to {classes - 1} "
            f"for {classes} classes"
        )
    if logits.ndim > 2:
        logits = transpose(logits, 0, *range(2, logits.ndim), 1)
    rows = reshape(logits, labels.size, classes)
    loss, _ = CrossEntropy.apply(rows, labels=labels.reshape(-1).astype(np.int64))
    if reduction == "none":
        return reshape(loss, labels.shape)
    return mean(loss) if reduction == "mean" else sum(loss)
