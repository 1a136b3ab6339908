# SPDX-License-Identifier: Apache-2.0
"""The activations, element by element.

An activation's gradient is a Function of its own, ActivationBackward(dy, saved) = dy * f'(saved), where `saved` is
the output y where f' follows from it and the input x otherwise. Its derivative needs f'' alone, which is written in
tensor operations (activation_formulas.py); so gradients of any order exist, and the first runs in one native kernel.
"""

from typing import Any

from .._core import ProblemError
from ..arrays import kernels, namespace
from ..autograd import Context, Function, is_grad_enabled
from ..tensor import Tensor, as_tensor
from .activation_formulas import activation_formula, saves_input, slope_derivative, slope_formula
from .arithmetic import clip, where
from .reduce import max
from .shape import reshape, sum_to

# A slope that is computed from y, not from y rounded to a half: there y is computed again, from x.
SLOPES_NEED_ALL_BITS = ("elu", "sigmoid", "tanh", "selu", "celu")


class Activation(Function):
    device_takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, kind: str, alpha: float) -> Any:
        ctx.kind, ctx.alpha = kind, alpha
        from_x = saves_input(kind, alpha)
        ctx.again = ctx.in_float32 and kind in SLOPES_NEED_ALL_BITS and not from_x
        ctx.on_halves = ctx.on_halves and not ctx.again
        ctx.save(0) if ctx.again or from_x else ctx.save(output=True)
        if (native := kernels(x)) is not None:
            return native.activation_forward(kind, x, alpha)
        return activation_formula(kind, x, alpha)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        (saved,) = ctx.saved
        saved = activation(saved, ctx.kind, ctx.alpha) if ctx.again else saved
        return ActivationBackward.apply(dy, saved, kind=ctx.kind, alpha=ctx.alpha)


class ActivationBackward(Function):
    """dy * f', where f' is a function of `saved`."""

    device_takes_half = True

    @staticmethod
    def forward(ctx: Context, dy: Any, saved: Any, *, kind: str, alpha: float) -> Any:
        ctx.kind, ctx.alpha = kind, alpha
        ctx.save(0, 1)
        if (native := kernels(dy, saved)) is not None:
            return native.activation_backward(kind, dy, saved, alpha)
        return dy * slope_formula(kind, saved, alpha)

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> tuple[Tensor | None, ...]:
        (dy, saved), kind, alpha = ctx.saved, ctx.kind, ctx.alpha
        needs_dy, needs_saved = ctx.needs_input_grad
        curvature = slope_derivative(kind, saved, alpha) if needs_saved else None
        return (
            ActivationBackward.apply(g, saved, kind=kind, alpha=alpha) if needs_dy else None,
            None if curvature is None else g * dy * curvature,
        )


class PRelu(Function):
    """x > 0 ? x : w x, w (1,) or (C,)."""

    @staticmethod
    def forward(ctx: Context, x: Any, w: Any) -> Any:
        ctx.save(0, 1)
        if (native := kernels(x, w)) is not None:
            return native.prelu_forward(x, w)
        return namespace(x).where(x > 0, x, x * w.reshape(_channel_shape(w, x)))

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved
        if not is_grad_enabled() and (native := kernels(dy.data, x.data, w.data)) is not None:
            return tuple(Tensor(g) for g in native.prelu_backward(dy.data, x.data, w.data))
        shape, one = _channel_shape(w, x), x.dtype.type(1)
        above, below = Tensor(one * (x.data > 0)), Tensor(one * ~(x.data > 0))
        dx = dy * (above + below * reshape(w, shape))
        return dx, reshape(sum_to(dy * below * x, (1,) * (x.ndim - len(shape)) + shape), w.shape)


class Beyond(Function):
    """x where beta * x is larger than the threshold, else y: a `where` whose condition is part of the operation."""

    @staticmethod
    def forward(ctx: Context, x: Any, y: Any, *, beta: float, threshold: float) -> Any:
        ctx.condition = x * beta > threshold
        return namespace(x).where(ctx.condition, x, y)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        needs_x, needs_y = ctx.needs_input_grad
        return (
            where(ctx.condition, dy, 0.0) if needs_x else None,
            where(ctx.condition, 0.0, dy) if needs_y else None,
        )


def _channel_shape(w: Any, x: Any) -> tuple[int, ...]:
    return (w.shape[0], *(1,) * (x.ndim - 2)) if x.ndim > 1 else w.shape


def activation(x: Any, kind: str, alpha: float) -> Tensor:
    """The activation `kind`, with its parameter."""
    return Activation.apply(as_tensor(x), kind=kind, alpha=float(alpha))


def relu(x: Any) -> Tensor:
    """max(x, 0); its gradient at 0 is 0."""
    return activation(x, "relu", 0.0)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """x where positive, else negative_slope * x."""
    return activation(x, "leaky_relu", negative_slope)


def relu6(x: Any) -> Tensor:
    """min(max(x, 0), 6)."""
    return activation(x, "relu6", 0.0)


def prelu(x: Any, weight: Any) -> Tensor:
    """x where positive, else weight * x: `leaky_relu` with slopes that are learnt.

    He et al., "Delving deep into rectifiers", 2015.

    Args:
        x: (N, C, *), or any shape for a single slope.
        weight: (1,) or (C,).

    Raises:
        ProblemError: weight of another shape. TypeError: of another dtype than x.
    """
    x, weight = as_tensor(x), as_tensor(weight)
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.shape not in ((1,), (channels,)):
        raise ProblemError(f"prelu: weight has shape {weight.shape}; expected (1,) or ({channels},) for x {x.shape}")
    if weight.dtype != x.dtype:
        raise TypeError(f"prelu: weight has dtype {weight.dtype}, x {x.dtype}; expected the same dtype: use .astype")
    return PRelu.apply(x, weight)


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where positive, else alpha * (exp(x) - 1). Clevert et al., arXiv 1511.07289."""
    return activation(x, "elu", alpha)


def selu(x: Any) -> Tensor:
    """1.0507 * elu(x, 1.6733), which keeps mean 0 and variance 1. Klambauer et al., arXiv 1706.02515."""
    return activation(x, "selu", 0.0)


def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where positive, else alpha * (exp(x / alpha) - 1); alpha > 0. Barron, arXiv 1704.07483."""
    return activation(x, "celu", _positive("celu", "alpha", alpha))


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + exp(-x))."""
    return activation(x, "sigmoid", 0.0)


def log_sigmoid(x: Any) -> Tensor:
    """log(sigmoid(x)), exact also where the sigmoid underflows."""
    return activation(x, "log_sigmoid", 0.0)


def hard_sigmoid(x: Any) -> Tensor:
    """relu6(x + 3) / 6."""
    return activation(x, "hard_sigmoid", 0.0)


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent."""
    return activation(x, "tanh", 0.0)


def softplus(x: Any, beta: float = 1.0, threshold: float | None = None) -> Tensor:
    """log(1 + exp(beta * x)) / beta; beta > 0.

    Exact for any x. With a threshold, x itself where beta * x is larger than that: PyTorch's rule, with 20.
    """
    x = as_tensor(x)
    y = activation(x, "softplus", _positive("softplus", "beta", beta))
    return y if threshold is None else Beyond.apply(x, y, beta=beta, threshold=threshold)


def softsign(x: Any) -> Tensor:
    """x / (1 + |x|)."""
    return activation(x, "softsign", 0.0)


def silu(x: Any) -> Tensor:
    """x * sigmoid(x)."""
    return activation(x, "silu", 0.0)


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """x times the normal distribution's cdf at x. Hendrycks and Gimpel, arXiv 1606.08415.

    Args:
        approximate: "none", the exact form; or "tanh", 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
    """
    if approximate not in ("none", "tanh"):
        raise ProblemError(f'gelu: approximate is {approximate!r}; expected "none" or "tanh"')
    return activation(x, "gelu" if approximate == "none" else "gelu_tanh", 0.0)


def mish(x: Any) -> Tensor:
    """x * tanh(softplus(x)). Misra, arXiv 1908.08681."""
    return activation(x, "mish", 0.0)


def hard_swish(x: Any) -> Tensor:
    """x * relu6(x + 3) / 6. Howard et al., arXiv 1905.02244."""
    return activation(x, "hard_swish", 0.0)


def hard_tanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """min(max(x, min_val), max_val); its gradient at the limits is 0."""
    x = as_tensor(x)
    if not is_grad_enabled():
        return clip(x, min_val, max_val)
    inside = (x.data > min_val) & (x.data < max_val)
    return where(inside, x, clip(x.detach(), min_val, max_val))


def maxout(x: Any, pieces: int = 2, axis: int = 1) -> Tensor:
    """The largest of every `pieces` adjacent channels. Goodfellow et al., "Maxout networks", arXiv 1302.4389.

    Args:
        x: its length along `axis` is a multiple of pieces; that axis becomes shorter by that factor.

    Raises:
        ProblemError: an axis that x does not have, or whose length is no multiple of pieces.
    """
    x = as_tensor(x)
    if not -x.ndim <= axis < x.ndim:
        raise ProblemError(f"maxout: axis is {axis}; expected {-x.ndim} to {x.ndim - 1} for shape {x.shape}")
    axis %= x.ndim
    length = x.shape[axis]
    if pieces < 1 or length % pieces:
        raise ProblemError(f"maxout: pieces is {pieces}; expected a divisor of {length}, the length of axis {axis}")
    return max(reshape(x, (*x.shape[:axis], length // pieces, pieces, *x.shape[axis + 1 :])), axis + 1)


def _positive(name: str, argument: str, value: float) -> float:
    if not value > 0:
        raise ProblemError(f"{name}: {argument} is {value}; expected more than 0")
    return value
