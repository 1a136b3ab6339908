# SPDX-License-Identifier: Apache-2.0
"""Activations, batch normalisation, the dense layer, softmax and cross-entropy, each next to its gradient.

Gradients take what the forward call took (x, never a saved y): the simplest thing that cannot be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def _sigmoid(x: Array) -> Array:
    # exp only of what is not positive: it cannot overflow.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _normal_cdf(x: Array) -> Array:
    erf = np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))
    return np.asarray(0.5 * (1 + erf))


def _normal_pdf(x: Array) -> Array:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _elu_slope(x: Array, alpha: float) -> Array:
    return np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0)))


def _hard_swish_slope(x: Array, alpha: float) -> Array:
    return np.where(x <= -3, 0.0, np.where(x < 3, x / 3 + 0.5, 1.0))


# kind: (value, slope), both functions of (x, alpha). A NaN stays a NaN in every one of them.
_ACTIVATIONS: dict[str, tuple[Callable[[Array, float], Array], Callable[[Array, float], Array]]] = {
    "relu": (lambda x, a: np.maximum(x, 0), lambda x, a: (x > 0).astype(x.dtype)),
    "leaky_relu": (lambda x, a: np.where(x > 0, x, a * x), lambda x, a: np.where(x > 0, 1.0, a)),
    "relu6": (lambda x, a: np.clip(x, 0, 6), lambda x, a: ((x > 0) & (x < 6)).astype(x.dtype)),
    "elu": (_elu, _elu_slope),
    "sigmoid": (lambda x, a: _sigmoid(x), lambda x, a: _sigmoid(x) * _sigmoid(-x)),
    "tanh": (lambda x, a: np.tanh(x), lambda x, a: 1 - np.tanh(x) ** 2),
    "silu": (lambda x, a: x * _sigmoid(x), lambda x, a: _sigmoid(x) * (1 + x * _sigmoid(-x))),
    "gelu": (lambda x, a: x * _normal_cdf(x), lambda x, a: _normal_cdf(x) + x * _normal_pdf(x)),
    "hard_swish": (lambda x, a: x * np.clip(x + 3, 0, 6) / 6, _hard_swish_slope),
}


def activation(kind: str, x: npt.ArrayLike, alpha: float = 0.0) -> Array:
    """The activation of that name, elementwise. alpha: slope of leaky_relu, scale of elu; unused elsewhere.

    gelu is the exact one, x * Phi(x). Raises ValueError for a name that is not known.
    """
    if kind not in _ACTIVATIONS:
        raise ValueError(f"activation {kind!r} is none of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[kind][0](_floating(x), alpha)


def activation_backward(kind: str, dy: npt.ArrayLike, x: npt.ArrayLike, alpha: float = 0.0) -> Array:
    """dx = dy * activation'(x). At a kink the slope of the side that PyTorch takes: that of x < 0."""
    if kind not in _ACTIVATIONS:
        raise ValueError(f"activation {kind!r} is none of {', '.join(_ACTIVATIONS)}")
    return _floating(dy) * _ACTIVATIONS[kind][1](_floating(x), alpha)


def _per_channel(values: npt.ArrayLike, x: Array) -> Array:
    return np.asarray(values, x.dtype).reshape(1, -1, *(1,) * (x.ndim - 2))


def batch_norm(
    x: npt.ArrayLike, gamma: npt.ArrayLike, beta: npt.ArrayLike, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """(y, mean, variance) for x (N, C, *): y = gamma * (x - mean) / sqrt(variance + eps) + beta per channel.

    The variance is the biased one, over N and the spatial axes.
    """
    x = _floating(x)
    axes = (0, *range(2, x.ndim))
    mean, variance = x.mean(axis=axes), x.var(axis=axes)
    return batch_norm_inference(x, gamma, beta, mean, variance, eps), mean, variance


def batch_norm_inference(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    beta: npt.ArrayLike,
    mean: npt.ArrayLike,
    variance: npt.ArrayLike,
    eps: float = 1e-5,
) -> Array:
    """y = gamma * (x - mean) / sqrt(variance + eps) + beta with the statistics given, x (N, C, *)."""
    x = _floating(x)
    normal = (x - _per_channel(mean, x)) / np.sqrt(_per_channel(variance, x) + eps)
    return normal * _per_channel(gamma, x) + _per_channel(beta, x)


def batch_norm_backward(
    dy: npt.ArrayLike, x: npt.ArrayLike, gamma: npt.ArrayLike, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """(dx, dgamma, dbeta) of `batch_norm`, through the statistics too.

    With z the normalised x and m the number of cells per channel:
    dx = gamma / sqrt(variance + eps) * (dy - mean(dy) - z * mean(dy * z)), the means over those m cells
    (Ioffe and Szegedy, "Batch Normalization", section 3, terms collected).
    """
    dy, x = _floating(dy), _floating(x)
    axes = (0, *range(2, x.ndim))
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    z = (x - mean) / np.sqrt(variance + eps)
    dgamma, dbeta = (dy * z).sum(axis=axes), dy.sum(axis=axes)
    centred = dy - dy.mean(axis=axes, keepdims=True) - z * (dy * z).mean(axis=axes, keepdims=True)
    return _per_channel(gamma, x) / np.sqrt(variance + eps) * centred, dgamma, dbeta


def dense(x: npt.ArrayLike, w: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> Array:
    """y = x @ w.T + bias, for x (N, I), w (O, I), bias (O,): y (N, O)."""
    y = _floating(x) @ _floating(w).T
    return y if bias is None else y + _floating(bias)


def dense_backward(dy: npt.ArrayLike, x: npt.ArrayLike, w: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """(dx, dw, dbias) of `dense`: dy @ w, dy.T @ x and the column sums of dy."""
    dy, x, w = _floating(dy), _floating(x), _floating(w)
    return dy @ w, dy.T @ x, dy.sum(axis=0)


def softmax(x: npt.ArrayLike) -> Array:
    """exp(x) / sum(exp(x)) over the last axis, shifted by the maximum so that nothing overflows."""
    x = _floating(x)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def cross_entropy(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, Array]:
    """(loss (N,), probabilities (N, K)) for logits (N, K) and labels (N,): loss = -log(softmax(logits)[label]).

    Raises ValueError for a label outside of [0, K).
    """
    logits, labels = _floating(logits), np.asarray(labels)
    outside = labels[(labels < 0) | (labels >= logits.shape[1])]
    if len(outside):
        raise ValueError(f"label {outside[0]} is outside of [0, {logits.shape[1]})")
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -log_probability[np.arange(len(labels)), labels], np.exp(log_probability)


def cross_entropy_backward(dloss: npt.ArrayLike, logits: npt.ArrayLike, labels: npt.ArrayLike) -> Array:
    """dlogits (N, K) = dloss[n] * (softmax(logits) - onehot(label)), for dloss (N,)."""
    gradient = softmax(logits)
    gradient[np.arange(len(gradient)), np.asarray(labels)] -= 1
    return gradient * _floating(dloss)[:, None]


def _floating(x: npt.ArrayLike) -> Array:
    """x in float64, or in longdouble if it already is that wide."""
    a = np.asarray(x)
    return a if a.dtype == np.longdouble else a.astype(np.float64)
