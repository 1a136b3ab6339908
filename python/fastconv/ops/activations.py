# SPDX-License-Identifier: Apache-2.0
"""The activations, element by element.

An activation's gradient is a Function of its own, ActivationBackward(dy, saved) = dy * f'(saved), where `saved` is
the output y where f' follows from it and the input x otherwise. Its derivative needs f'' alone, which is written in
tensor operations; so gradients of any order exist, and the first runs in one native kernel.
"""

import importlib
import math
from typing import Any

import numpy as np

from .. import _core
from ..arrays import is_native, namespace
from ..autograd import Context, Function
from ..tensor import Tensor
from .elementary import exp

SAVES_INPUT = ("silu", "gelu", "hard_swish")


class Activation(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, kind: str, alpha: float) -> Any:
        ctx.kind, ctx.alpha = kind, alpha
        ctx.save(0) if kind in SAVES_INPUT else ctx.save(output=True)
        return _core.activation_forward(kind, x, alpha) if is_native(x) else activation_formula(kind, x, alpha)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return ActivationBackward.apply(dy, ctx.saved[0], kind=ctx.kind, alpha=ctx.alpha)


class ActivationBackward(Function):
    """dy * f', where f' is a function of `saved`."""

    @staticmethod
    def forward(ctx: Context, dy: Any, saved: Any, *, kind: str, alpha: float) -> Any:
        ctx.kind, ctx.alpha = kind, alpha
        ctx.save(0, 1)
        if is_native(dy, saved):
            return _core.activation_backward(kind, dy, saved, alpha)
        return dy * slope_formula(kind, saved, alpha)

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> tuple[Tensor | None, ...]:
        (dy, saved), kind, alpha = ctx.saved, ctx.kind, ctx.alpha
        needs_dy, needs_saved = ctx.needs_input_grad
        curvature = _slope_derivative(kind, saved, alpha) if needs_saved else None
        return (
            ActivationBackward.apply(g, saved, kind=kind, alpha=alpha) if needs_dy else None,
            None if curvature is None else g * dy * curvature,
        )


def activation_formula(kind: str, x: Any, alpha: float) -> Any:
    """f(x) in the namespace of x; the native kernels are the fast form of this."""
    xp = namespace(x)
    if kind == "relu":
        return xp.where(x > 0, x, x * 0)  # x * 0 keeps NaN
    if kind == "leaky_relu":
        return xp.where(x > 0, x, x * alpha)
    if kind == "relu6":
        return xp.clip(x, 0, 6)
    if kind == "elu":
        return xp.where(x > 0, x, xp.expm1(xp.minimum(x, 0)) * alpha)
    if kind == "sigmoid":
        return _sigmoid(x)
    if kind == "tanh":
        return xp.tanh(x)
    if kind == "silu":
        return x * _sigmoid(x)
    if kind == "gelu":
        return x * _normal_cdf(x)
    return x * xp.clip(x + 3, 0, 6) / 6  # hard_swish


def slope_formula(kind: str, saved: Any, alpha: float) -> Any:
    """f' in the namespace of `saved`, which is y, or x for the kinds in SAVES_INPUT."""
    xp, v = namespace(saved), saved
    one = xp.ones_like(v)
    if kind == "relu":
        return one * (v > 0)
    if kind == "leaky_relu":
        return xp.where(v > 0, one, one * alpha)
    if kind == "relu6":
        return one * ((v > 0) & (v < 6))
    if kind == "elu":
        return xp.where(v > 0, one, v + alpha)
    if kind == "sigmoid":
        return v * (1 - v)
    if kind == "tanh":
        return 1 - v * v
    if kind == "silu":
        s = _sigmoid(v)
        return s * (1 + v * (1 - s))
    if kind == "gelu":
        return _normal_cdf(v) + v * xp.exp(v * v * -0.5) / math.sqrt(2 * math.pi)
    return xp.where(v <= -3, one * 0, xp.where(v >= 3, one, v / 3 + 0.5))  # hard_swish


def _slope_derivative(kind: str, v: Tensor, alpha: float) -> Tensor | None:
    """d f' / d saved, in tensor operations; None where it is zero everywhere."""
    if kind in ("relu", "leaky_relu", "relu6"):
        return None
    one = namespace(v.data).ones_like(v.data)
    if kind == "elu":
        return Tensor(one * (v <= 0))
    if kind == "sigmoid":
        return 1.0 - v * 2.0
    if kind == "tanh":
        return v * -2.0
    if kind == "silu":
        s = sigmoid(v)
        return s * (1.0 - s) * (v * (1.0 - s * 2.0) + 2.0)
    if kind == "gelu":
        return exp(v * v * -0.5) * (2.0 - v * v) * (1 / math.sqrt(2 * math.pi))
    return Tensor(one * ((v > -3) & (v < 3)) / 3)  # hard_swish


def _sigmoid(x: Any) -> Any:
    xp = namespace(x)
    e = xp.exp(-abs(x))  # of a non-positive number: no overflow
    return xp.where(x < 0, e, xp.ones_like(e)) / (1 + e)


def _normal_cdf(x: Any) -> Any:
    if namespace(x) is np:
        erf: Any = np.vectorize(math.erf, otypes=[x.dtype])
    else:
        erf = importlib.import_module("cupyx.scipy.special").erf
    return (1 + erf(x / math.sqrt(2))) / 2


def activation(x: Tensor, kind: str, alpha: float) -> Tensor:
    """The activation `kind`, with its parameter."""
    return Activation.apply(x, kind=kind, alpha=float(alpha))


def relu(x: Tensor) -> Tensor:
    """max(x, 0); its gradient at 0 is 0."""
    return activation(x, "relu", 0.0)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where positive, else negative_slope * x; the slope is at least 0."""
    if negative_slope < 0:
        raise _core.ProblemError(f"leaky_relu: negative_slope is {negative_slope}; expected at least 0")
    return activation(x, "leaky_relu", negative_slope)


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return activation(x, "relu6", 0.0)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where positive, else alpha * (exp(x) - 1)."""
    return activation(x, "elu", alpha)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return activation(x, "sigmoid", 0.0)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return activation(x, "tanh", 0.0)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return activation(x, "silu", 0.0)


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution's cdf at x (the exact form)."""
    return activation(x, "gelu", 0.0)


def hard_swish(x: Tensor) -> Tensor:
    """x * relu6(x + 3) / 6."""
    return activation(x, "hard_swish", 0.0)
