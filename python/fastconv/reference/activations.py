# SPDX-License-Identifier: Apache-2.0
"""The activations, each next to its slope, both functions of x (never of a saved y)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Function = Callable[[Array, float], Array]


def floating(x: npt.ArrayLike) -> Array:
    """x in float64, or in longdouble if it already is that wide."""
    a = np.asarray(x)
    return a if a.dtype == np.longdouble else a.astype(np.float64)


def _sigmoid(x: Array) -> Array:
    # exp only of what is not positive: it cannot overflow.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _normal_cdf(x: Array) -> Array:
    # erfc keeps the digits of a small result, which 1 + erf would lose.
    return np.asarray(0.5 * np.vectorize(math.erfc, otypes=[np.float64])(-x / math.sqrt(2)))


def _normal_pdf(x: Array) -> Array:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _gate(x: Array, gate: Array) -> Array:
    # x * gate, whose limit at -inf is 0.
    return np.where(np.isneginf(x), -0.0, x) * gate


def _bump(x: Array, slope: Array) -> Array:
    # x * slope, whose limit at both ends is 0.
    return np.where(np.isinf(x), 0.0, x) * slope


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x + 3, 0, 6) / 6


def _steps(x: Array, *pieces: tuple[float, Any]) -> Array:
    # The value of the last piece (lower end, value) whose lower end is below x; NaN stays.
    y = np.where(np.isnan(x), x, pieces[0][1])
    for end, value in pieces[1:]:
        y = np.where(x > end, value, y)
    return y


def _exp_below(x: Array, alpha: float, scale: float = 1.0) -> Array:
    return np.where(x > 0, scale * x, scale * alpha * np.expm1(np.minimum(x, 0)))


def _exp_below_slope(x: Array, alpha: float, scale: float = 1.0) -> Array:
    return np.where(x > 0, scale, scale * alpha * np.exp(np.minimum(x, 0)))


def _gelu_tanh(x: Array, a: float) -> Array:
    return _gate(x, _sigmoid(2 * _gelu_tanh_inner(x)))


def _gelu_tanh_inner(x: Array) -> Array:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


def _gelu_tanh_slope(x: Array, a: float) -> Array:
    x = np.clip(x, -100, 100)  # the limits lie far inside, and beyond x ** 3 overflows
    z = 2 * _gelu_tanh_inner(x)
    return _sigmoid(z) + x * _sigmoid(z) * _sigmoid(-z) * 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


def _mish_slope(x: Array, a: float) -> Array:
    p = _softplus(x)
    return np.tanh(p) + _bump(x, 4 * _sigmoid(2 * p) * _sigmoid(-2 * p) * _sigmoid(x))  # 1 - tanh^2 without loss


_SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)

# kind: (value, slope), both functions of (x, alpha). A NaN stays a NaN in every one of them; slopes at a kink are those
# of the side that PyTorch takes.
_ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "relu": (lambda x, a: np.maximum(x, 0), lambda x, a: _steps(x, (0, 0), (0, 1))),
    "leaky_relu": (lambda x, a: np.where(x > 0, x, a * x), lambda x, a: _steps(x, (0, a), (0, 1))),
    "relu6": (lambda x, a: np.clip(x, 0, 6), lambda x, a: np.where(x == 6, 0, _steps(x, (0, 0), (0, 1), (6, 0)))),
    "elu": (_exp_below, _exp_below_slope),
    "sigmoid": (lambda x, a: _sigmoid(x), lambda x, a: _sigmoid(x) * _sigmoid(-x)),
    "tanh": (lambda x, a: np.tanh(x), lambda x, a: 4 * _sigmoid(2 * x) * _sigmoid(-2 * x)),
    "silu": (
        lambda x, a: _gate(x, _sigmoid(x)),
        lambda x, a: _sigmoid(x) + _bump(x, _sigmoid(x) * _sigmoid(-x)),
    ),
    "gelu": (lambda x, a: _gate(x, _normal_cdf(x)), lambda x, a: _normal_cdf(x) + _bump(x, _normal_pdf(x))),
    "hard_swish": (
        lambda x, a: _gate(x, _hard_sigmoid(x)),
        lambda x, a: np.where(x == 3, 1, _steps(x, (0, 0), (-3, x / 3 + 0.5), (3, 1))),
    ),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_slope),
    "selu": (lambda x, a: _exp_below(x, *_SELU), lambda x, a: _exp_below_slope(x, *_SELU)),
    "celu": (lambda x, a: a * _exp_below(x / a, 1), lambda x, a: _exp_below_slope(x / a, 1)),
    "hard_sigmoid": (
        lambda x, a: _hard_sigmoid(x),
        lambda x, a: np.where(x == 3, 0, _steps(x, (0, 0), (-3, 1 / 6), (3, 0))),
    ),
    "softplus": (lambda x, a: _softplus(a * x) / a, lambda x, a: _sigmoid(a * x)),
    "softsign": (
        lambda x, a: np.where(np.isinf(x), np.sign(x), x) / (1 + np.where(np.isinf(x), 0, np.abs(x))),
        lambda x, a: (1 + np.abs(x)) ** -2.0,
    ),
    "mish": (lambda x, a: _gate(x, np.tanh(_softplus(x))), _mish_slope),
    "log_sigmoid": (lambda x, a: -_softplus(-x), lambda x, a: _sigmoid(-x)),
}


def activation(kind: str, x: npt.ArrayLike, alpha: float = 0.0) -> Array:
    """The activation of that name, elementwise.

    alpha: slope of leaky_relu, scale of elu and celu, beta of softplus; unused elsewhere. gelu is the exact one,
    x * Phi(x); gelu_tanh its approximation (Hendrycks and Gimpel, arXiv 1606.08415). An infinite x gives the limit.
    Raises ValueError for a name that is not known.
    """
    return _known(kind)[0](floating(x), alpha)


def activation_backward(kind: str, dy: npt.ArrayLike, x: npt.ArrayLike, alpha: float = 0.0) -> Array:
    """dx = dy * activation'(x). At a kink the slope of the side that PyTorch takes."""
    return floating(dy) * _known(kind)[1](floating(x), alpha)


def _known(kind: str) -> tuple[Function, Function]:
    if kind not in _ACTIVATIONS:
        raise ValueError(f"activation {kind!r} is none of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[kind]


def prelu(x: npt.ArrayLike, w: npt.ArrayLike) -> Array:
    """x where positive, else w * x, with one w for all or one per channel of x (N, C, *)."""
    x = floating(x)
    return np.where(x > 0, x, _per_channel(w, x) * x)


def prelu_backward(dy: npt.ArrayLike, x: npt.ArrayLike, w: npt.ArrayLike) -> tuple[Array, Array]:
    """(dx, dw) of `prelu`."""
    dy, x, w = floating(dy), floating(x), floating(w)
    below = np.where(x > 0, 0.0, x) * dy
    axes = tuple(a for a in range(x.ndim) if a != 1) if w.size > 1 else None
    return np.where(x > 0, dy, _per_channel(w, x) * dy), below.sum(axis=axes).reshape(w.shape)


def _per_channel(w: npt.ArrayLike, x: Array) -> Array:
    w = floating(w)
    return w.reshape(-1, *(1,) * (x.ndim - 2)) if w.size > 1 else w
