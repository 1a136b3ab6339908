# SPDX-License-Identifier: Apache-2.0
"""What each activation is, once more in array operations: for arrays that the native kernels do not take (CuPy), and
for second derivatives.

A slope f' is written as a function of `saved`: of the output y where it follows from that, which frees x, else of the
input x. So is its derivative d f' / d saved, in tensor operations; None where it is zero everywhere.
"""

import importlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import namespace
from ..tensor import Tensor
from .elementary import exp

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
GELU_A, GELU_B = 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715
# exp(-x^2 / 2) is 0 from here on; beyond, powers of x could overflow.
FAR = 40.0


class Formulas(NamedTuple):
    """f(xp, x, alpha), f'(xp, saved, alpha) and d f' / d saved (saved, alpha), the last on tensors."""

    value: Callable[[Any, Any, float], Any]
    slope: Callable[[Any, Any, float], Any]
    curvature: Callable[[Tensor, float], Tensor | None] | None = None


def saves_input(kind: str, alpha: float) -> bool:
    """Whether the slope is a function of x; else it follows from y."""
    return kind not in SAVES_OUTPUT or (kind in ("leaky_relu", "elu") and alpha < 0)


SAVES_OUTPUT = ("none", "relu", "leaky_relu", "relu6", "elu", "sigmoid", "tanh", "selu", "celu")


def activation_formula(kind: str, x: Any, alpha: float) -> Any:
    """f(x) in the namespace of x; the native kernels are the fast form of this."""
    return FORMULAS[kind].value(namespace(x), x, alpha)


def slope_formula(kind: str, saved: Any, alpha: float) -> Any:
    """f' in the namespace of `saved`, which is x or y as `saves_input` says."""
    return FORMULAS[kind].slope(namespace(saved), saved, alpha)


def slope_derivative(kind: str, saved: Tensor, alpha: float) -> Tensor | None:
    """d f' / d saved in tensor operations; None where it is zero everywhere."""
    curvature = FORMULAS[kind].curvature
    return None if curvature is None else curvature(saved, alpha)


def _sigmoid(xp: Any, x: Any) -> Any:
    e = xp.exp(-abs(x))  # of a non-positive number: no overflow
    return xp.where(x < 0, e, xp.ones_like(e)) / (1 + e)


def _softplus(xp: Any, x: Any) -> Any:
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))


def _expm1_below(xp: Any, x: Any) -> Any:
    return xp.expm1(xp.minimum(x, 0))


def _normal_cdf(xp: Any, x: Any) -> Any:
    if xp is np:
        erfc: Any = np.vectorize(math.erfc, otypes=[x.dtype])
    else:
        erfc = importlib.import_module("cupyx.scipy.special").erfc
    return erfc(x * -math.sqrt(0.5)) / 2


def _gelu_slope(xp: Any, x: Any, alpha: float) -> Any:
    x = xp.clip(x, -FAR, FAR)
    return _normal_cdf(xp, x) + x * xp.exp(x * x * -0.5) / math.sqrt(2 * math.pi)


def _gelu_tanh_slope(xp: Any, x: Any, alpha: float) -> Any:
    x = xp.clip(x, -FAR, FAR)
    s = _sigmoid(xp, x * (GELU_A + GELU_B * x * x))
    return s * (1 + x * (1 - s) * (GELU_A + 3 * GELU_B * x * x))


def _mish_slope(xp: Any, x: Any, alpha: float) -> Any:
    t = xp.tanh(_softplus(xp, x))
    return t + x * (1 - t * t) * _sigmoid(xp, x)


def _elu_slope(xp: Any, v: Any, alpha: float) -> Any:  # v is x where alpha < 0, else y
    below = xp.exp(xp.minimum(v, 0)) * alpha if alpha < 0 else v + alpha
    return xp.where(v > 0, xp.ones_like(v), below)


def _mask(condition: Any, like: Tensor, value: float) -> Tensor:
    return Tensor(namespace(like.data).where(condition, like.data.dtype.type(value), like.data.dtype.type(0)))


def _elu_curvature(v: Tensor, alpha: float) -> Tensor:
    below = _mask(v <= 0, v, 1.0)
    return below if alpha >= 0 else exp(v * below) * below * alpha


def _silu_curvature(x: Tensor, alpha: float) -> Tensor:
    s, x = _sigmoid_of(x), x.clip(-1e3, 1e3)
    return s * (1.0 - s) * (x * (1.0 - s * 2.0) + 2.0)


def _gelu_curvature(x: Tensor, alpha: float) -> Tensor:
    x = x.clip(-FAR, FAR)
    return exp(x * x * -0.5) * (2.0 - x * x) * (1 / math.sqrt(2 * math.pi))


def _gelu_tanh_curvature(x: Tensor, alpha: float) -> Tensor:
    """x s(z): 2 s' z' + x (s'' z'^2 + s' z'')."""
    x = x.clip(-FAR, FAR)
    square = x * x
    s = _sigmoid_of(x * (square * GELU_B + GELU_A))
    bump, steepness = s * (1.0 - s), square * (3 * GELU_B) + GELU_A
    return bump * (steepness * 2.0 + x * ((1.0 - s * 2.0) * steepness * steepness + x * (6 * GELU_B)))


def _mish_curvature(x: Tensor, alpha: float) -> Tensor:
    """x t with t = tanh(p), p' = s: 2 t' + x t'', t' = (1 - t^2) s."""
    x = x.clip(-1e3, 1e3)
    s, t = _sigmoid_of(x), softplus_of(x).tanh()
    steep = 1.0 - t * t
    return steep * s * (2.0 + x * (1.0 - s - t * s * 2.0))


def _softsign_curvature(x: Tensor, alpha: float) -> Tensor:
    xp = namespace(x.data)
    return (abs(x) + 1.0) ** -3.0 * Tensor(xp.sign(x.data) * x.data.dtype.type(-2))


def _sigmoid_of(x: Tensor) -> Tensor:
    return x.sigmoid()


def softplus_of(x: Tensor) -> Tensor:
    """log(1 + exp(x)) as an activation."""
    from .activations import activation

    return activation(x, "softplus", 1.0)


def _bump(x: Tensor, factor: float) -> Tensor:
    s = _sigmoid_of(x * factor)
    return s * (1.0 - s) * factor


FORMULAS = {
    "relu": Formulas(
        lambda xp, x, a: xp.where(x < 0, xp.zeros_like(x), x),  # NaN passes
        lambda xp, y, a: xp.ones_like(y) * (y > 0),
    ),
    "leaky_relu": Formulas(
        lambda xp, x, a: xp.where(x > 0, x, x * a),
        lambda xp, v, a: xp.where(v > 0, xp.ones_like(v), xp.full_like(v, a)),
    ),
    "relu6": Formulas(lambda xp, x, a: xp.clip(x, 0, 6), lambda xp, y, a: xp.ones_like(y) * ((y > 0) & (y < 6))),
    "elu": Formulas(lambda xp, x, a: xp.where(x > 0, x, _expm1_below(xp, x) * a), _elu_slope, _elu_curvature),
    "sigmoid": Formulas(lambda xp, x, a: _sigmoid(xp, x), lambda xp, y, a: y * (1 - y), lambda y, a: 1.0 - y * 2.0),
    "tanh": Formulas(lambda xp, x, a: xp.tanh(x), lambda xp, y, a: 1 - y * y, lambda y, a: y * -2.0),
    "silu": Formulas(
        lambda xp, x, a: x * _sigmoid(xp, x),
        lambda xp, x, a: _sigmoid(xp, x) * (1 + x * _sigmoid(xp, -x)),
        _silu_curvature,
    ),
    "gelu": Formulas(lambda xp, x, a: x * _normal_cdf(xp, x), _gelu_slope, _gelu_curvature),
    "hard_swish": Formulas(
        lambda xp, x, a: x * (xp.clip(x + 3, 0, 6) / 6),
        lambda xp, x, a: xp.where(x <= -3, xp.zeros_like(x), xp.where(x >= 3, xp.ones_like(x), x / 3 + 0.5)),
        lambda x, a: _mask((x > -3) & (x < 3), x, 1 / 3),
    ),
    "gelu_tanh": Formulas(
        lambda xp, x, a: x * _sigmoid(xp, xp.clip(x, -FAR, FAR) * (GELU_A + GELU_B * xp.clip(x, -FAR, FAR) ** 2)),
        _gelu_tanh_slope,
        _gelu_tanh_curvature,
    ),
    "selu": Formulas(
        lambda xp, x, a: SELU_SCALE * xp.where(x > 0, x, _expm1_below(xp, x) * SELU_ALPHA),
        lambda xp, y, a: xp.where(y > 0, xp.full_like(y, SELU_SCALE), y + SELU_SCALE * SELU_ALPHA),
        lambda y, a: _mask(y <= 0, y, 1.0),
    ),
    "celu": Formulas(
        lambda xp, x, a: xp.where(x > 0, x, _expm1_below(xp, x / a) * a),
        lambda xp, y, a: xp.where(y > 0, xp.ones_like(y), y / a + 1),
        lambda y, a: _mask(y <= 0, y, 1 / a),
    ),
    "hard_sigmoid": Formulas(
        lambda xp, x, a: xp.clip(x + 3, 0, 6) / 6, lambda xp, x, a: xp.ones_like(x) * ((x > -3) & (x < 3)) / 6
    ),
    "softplus": Formulas(
        lambda xp, x, a: _softplus(xp, x * a) / a, lambda xp, x, a: _sigmoid(xp, x * a), lambda x, a: _bump(x, a)
    ),
    "softsign": Formulas(lambda xp, x, a: x / (1 + abs(x)), lambda xp, x, a: (1 + abs(x)) ** -2.0, _softsign_curvature),
    "mish": Formulas(lambda xp, x, a: x * xp.tanh(_softplus(xp, x)), _mish_slope, _mish_curvature),
    "log_sigmoid": Formulas(
        lambda xp, x, a: -_softplus(xp, -x), lambda xp, x, a: _sigmoid(xp, -x), lambda x, a: _bump(x, -1.0)
    ),
}
