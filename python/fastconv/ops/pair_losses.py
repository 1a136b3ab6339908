# SPDX-License-Identifier: Apache-2.0
"""Losses that compare x with a target element by element. Sum and mean come from the same native pass, in float64."""

import math
from typing import Any

import numpy as np

from .. import _core
from .._core import ProblemError
from ..arrays import is_native, namespace
from ..autograd import Context, Function, is_grad_enabled
from ..tensor import Tensor, as_tensor
from .activations import activation
from .arithmetic import clip, where
from .elementary import exp, log, log1p
from .loss import check_reduction
from .shape import sum

SYMMETRIC = ("mse", "l1", "huber", "smooth_l1")


class PairLoss(Function):
    """The losses of x and t, or their sum over `count`."""

    @staticmethod
    def forward(ctx: Context, x: Any, t: Any, *, kind: str, alpha: float, count: float | None) -> Any:
        ctx.save(0, 1)
        ctx.kind, ctx.alpha, ctx.count = kind, alpha, count
        if not is_native(x, t):
            loss = _formula(namespace(x), kind, x, t, alpha)
            return loss if count is None else loss.sum() / count
        if count is None:
            return _core.pair_loss_forward(kind, x, t, alpha)
        return np.asarray(_core.pair_loss_sum(kind, x, t, alpha) / count, x.dtype)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x, t), (needs_x, needs_t) = ctx.saved, ctx.needs_input_grad
        dy = dy if ctx.count in (None, 1.0) else dy / ctx.count
        symmetric = ctx.kind in SYMMETRIC
        if not is_grad_enabled() and is_native(x.data, t.data, dy.data):
            dx = None
            if needs_x or symmetric:
                dx = Tensor(_core.pair_loss_backward(ctx.kind, dy.data, x.data, t.data, ctx.alpha))
            if not needs_t:
                return dx, None
            return dx if needs_x else None, -dx if symmetric and dx is not None else dy * _slope_in_t(ctx.kind, x, t)
        slope = _slope(ctx.kind, x, t, ctx.alpha)
        return (
            dy * slope if needs_x else None,
            (-(dy * slope) if symmetric else dy * _slope_in_t(ctx.kind, x, t)) if needs_t else None,
        )


def _formula(xp: Any, kind: str, x: Any, t: Any, alpha: float) -> Any:
    """The losses in array operations; the native kernels are the fast form of this."""
    d = x - t
    if kind == "mse":
        return d * d
    if kind == "l1":
        return abs(d)
    if kind == "huber":
        return xp.where(abs(d) <= alpha, d * d / 2, alpha * (abs(d) - alpha / 2))
    if kind == "smooth_l1":
        return xp.where(abs(d) < alpha, d * d / (2 * alpha), abs(d) - alpha / 2)
    if kind == "bce":
        return (t - 1) * xp.maximum(xp.log1p(-x), -100) - t * xp.maximum(xp.log(x), -100)
    if kind == "bce_with_logits":
        return xp.maximum(x, 0) - x * t + xp.log1p(xp.exp(-abs(x)))
    if kind == "kl":
        return xp.where(t == 0, t, t * xp.log(xp.where(t == 0, t + 1, t))) - t * x
    return xp.exp(t) * (t - x)


def _slope(kind: str, x: Tensor, t: Tensor, alpha: float) -> Tensor:
    """d loss / dx in tensor operations."""
    if kind == "mse":
        return (x - t) * 2.0
    if kind == "l1":
        return Tensor(namespace(x.data).sign(x.data - t.data))
    if kind == "huber":
        return clip(x - t, -alpha, alpha)
    if kind == "smooth_l1":
        return clip((x - t) / alpha, -1.0, 1.0)
    if kind == "bce":
        return (x - t) / clip(x * (1.0 - x), 1e-12)
    if kind == "bce_with_logits":
        return x.sigmoid() - t
    return -t if kind == "kl" else -exp(t)


def _slope_in_t(kind: str, x: Tensor, t: Tensor) -> Tensor:
    """d loss / dt of the others."""
    if kind == "bce":
        with np.errstate(divide="ignore"):
            return clip(log1p(-x), -100.0) - clip(log(x), -100.0)
    if kind == "bce_with_logits":
        return -x
    if kind == "kl":
        positive = t.data > 0
        return log(where(positive, t, 1.0)) + 1.0 - x
    return exp(t) * (t - x + 1.0)


def _pair(caller: str, x: Any, target: Any) -> tuple[Tensor, Tensor]:
    x = as_tensor(x)
    target = as_tensor(target, x)
    if target.shape != x.shape:
        raise ProblemError(f"{caller}: target has shape {target.shape}, x {x.shape}; expected the same shape")
    if target.dtype != x.dtype:
        raise TypeError(f"{caller}: target has dtype {target.dtype}, x {x.dtype}; expected the same dtype: use .astype")
    return x, target


def _loss(
    caller: str, kind: str, x: Any, target: Any, reduction: str, weight: Any = None, alpha: float = 0.0
) -> Tensor:
    check_reduction(
        caller, reduction, ("mean", "sum", "none", "batchmean") if caller == "kl_div" else ("mean", "sum", "none")
    )
    x, target = _pair(caller, x, target)
    count = None if weight is not None else _divisor(reduction, x)
    y = PairLoss.apply(x, target, kind=kind, alpha=float(alpha), count=count)
    return y if weight is None else _reduced(y * as_tensor(weight, x), reduction, x.shape)


def _divisor(reduction: str, x: Tensor) -> float | None:
    if reduction == "batchmean":
        return float(x.shape[0] if x.ndim else 1) or math.nan
    return None if reduction == "none" else 1.0 if reduction == "sum" else float(x.size) or math.nan


def _reduced(loss: Tensor, reduction: str, shape: tuple[int, ...]) -> Tensor:
    if loss.shape != shape:
        raise ProblemError(f"weight makes {shape} into {loss.shape}; expected one that broadcasts to {shape}")
    divisor = _divisor(reduction, loss)
    return loss if divisor is None else sum(loss) / divisor


def mse_loss(x: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """(x - target)^2.

    Args:
        x, target: of one shape and dtype.
        reduction: "mean" or "sum" over all elements (in float64), or "none": one loss for each. The mean over nothing
            is NaN.
        weight: a factor for each element, which broadcasts to x.

    Raises:
        ProblemError, TypeError: another reduction; shapes or dtypes that differ.
    """
    return _loss("mse_loss", "mse", x, target, reduction, weight)


def l1_loss(x: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """|x - target|; its gradient where they are equal is 0. Arguments as for `mse_loss`."""
    return _loss("l1_loss", "l1", x, target, reduction, weight)


def huber_loss(x: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Tensor:
    """d^2 / 2 up to |d| = delta, then delta (|d| - delta / 2), d = x - target; delta > 0. Huber, 1964."""
    if not delta > 0:
        raise ProblemError(f"huber_loss: delta is {delta}; expected more than 0")
    return _loss("huber_loss", "huber", x, target, reduction, weight, delta)


def smooth_l1_loss(x: Any, target: Any, reduction: str = "mean", beta: float = 1.0, weight: Any = None) -> Tensor:
    """d^2 / (2 beta) below |d| = beta, then |d| - beta / 2, d = x - target; with beta 0 it is `l1_loss`."""
    if not beta >= 0:
        raise ProblemError(f"smooth_l1_loss: beta is {beta}; expected at least 0")
    return _loss("smooth_l1_loss", "smooth_l1" if beta else "l1", x, target, reduction, weight, beta)


def binary_cross_entropy(x: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """-(target log(x) + (1 - target) log(1 - x)) for probabilities x; the logarithms are at least -100.

    Raises:
        ProblemError: an x outside of 0 to 1; else as for `mse_loss`.
    """
    x = as_tensor(x)
    if x.size and not (x.data.min() >= 0 and x.data.max() <= 1):
        raise ProblemError(
            f"binary_cross_entropy: x goes from {x.data.min()} to {x.data.max()}; expected probabilities from 0 to 1 "
            "(for any number: binary_cross_entropy_with_logits)"
        )
    return _loss("binary_cross_entropy", "bce", x, target, reduction, weight)


def binary_cross_entropy_with_logits(
    x: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(x), exact for any x.

    Args:
        pos_weight: a factor for the term of target 1, which broadcasts to x, as one number per class. Else as for
            `mse_loss`.
    """
    caller = "binary_cross_entropy_with_logits"
    if pos_weight is None:
        return _loss(caller, "bce_with_logits", x, target, reduction, weight)
    check_reduction(caller, reduction)
    x, target = _pair(caller, x, target)
    loss = (1.0 - target) * x + ((as_tensor(pos_weight, x) - 1.0) * target + 1.0) * activation(-x, "softplus", 1.0)
    return _reduced(loss if weight is None else loss * as_tensor(weight, x), reduction, x.shape)


def kl_div(x: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target (log(target) - x) for log-probabilities x: the divergence of Kullback and Leibler, element by element.

    Args:
        reduction: as for `mse_loss`; and "batchmean", the sum over the length of the first axis, which is the
            divergence itself.
        log_target: whether target holds logarithms too.
    """
    return _loss("kl_div", "kl_log" if log_target else "kl", x, target, reduction)
