# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation, the dense layer, softmax and cross-entropy, each next to its gradient.

Gradients take what the forward call took (x, never a saved y): the simplest thing that cannot be wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .activations import floating as _floating

Array = npt.NDArray[Any]


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
