# SPDX-License-Identifier: Apache-2.0
"""LeNet-5 in float64, forward, backward and trained: what a whole model of this library is checked against.

    x (N, 1, 32, 32)
    conv 5x5, 6 maps -> activation -> pool 2      (N, 6, 14, 14)
    conv 5x5, 16 maps -> activation -> pool 2     (N, 16, 5, 5)
    flatten -> dense 120 -> activation -> dense 84 -> activation -> dense 10

The parameters are a list of ten arrays, weight then bias, in the order of the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.reference.activations import activation, activation_backward
from fastconv.reference.conv import conv, conv_backward_data, conv_backward_filter
from fastconv.reference.ops import (
    cross_entropy,
    cross_entropy_backward,
    dense,
    dense_backward,
)
from fastconv.reference.optim import adam_step, sgd_step
from fastconv.reference.pool import avg_pool, avg_pool_backward, max_pool, max_pool_backward

Array = npt.NDArray[Any]


def _forward(parameters: Sequence[Array], x: Array, kind: str, pool: str) -> tuple[Array, list[dict[str, Array]]]:
    """The logits, and for each layer what its backward needs."""
    saved: list[dict[str, Array]] = []
    for w, b in (parameters[0:2], parameters[2:4]):
        sums = conv(x, w, b)
        maps = activation(kind, sums)
        if pool == "max":
            pooled, indices = max_pool(maps, 2)
            saved.append({"x": x, "sums": sums, "indices": indices})
        else:
            pooled = avg_pool(maps, 2)
            saved.append({"x": x, "sums": sums})
        x = pooled
    x = x.reshape(len(x), -1)
    for w, b in (parameters[4:6], parameters[6:8], parameters[8:10]):
        sums = dense(x, w, b)
        saved.append({"x": x, "sums": sums})
        x = activation(kind, sums)
    return saved[-1]["sums"], saved


def lenet5_forward(parameters: Sequence[Array], x: npt.ArrayLike, activation: str = "tanh", pool: str = "avg") -> Array:
    """The logits (N, 10) for x (N, 1, 32, 32). pool is "max" or "avg"."""
    return _forward(parameters, np.asarray(x, np.float64), activation, pool)[0]


def lenet5_backward(
    parameters: Sequence[Array],
    x: npt.ArrayLike,
    labels: npt.ArrayLike,
    activation: str = "tanh",
    pool: str = "avg",
) -> tuple[float, Array, list[Array]]:
    """(mean cross-entropy, gradient of x, gradients of the ten parameters) for one batch."""
    logits, saved = _forward(parameters, np.asarray(x, np.float64), activation, pool)
    loss, _ = cross_entropy(logits, labels)
    dy = cross_entropy_backward(np.full(len(logits), 1 / len(logits)), logits, labels)
    gradients: list[Array] = []
    for layer in (4, 3, 2):
        if layer < 4:
            dy = activation_backward(activation, dy, saved[layer]["sums"])
        dy, dw, db = dense_backward(dy, saved[layer]["x"], parameters[2 * layer])
        gradients[:0] = [dw, db]
    for layer in (1, 0):
        inputs, sums, w = saved[layer]["x"], saved[layer]["sums"], parameters[2 * layer]
        dy = dy.reshape(len(dy), sums.shape[1], sums.shape[2] // 2, sums.shape[3] // 2)
        if pool == "max":
            dy = max_pool_backward(dy, saved[layer]["indices"], sums.shape)
        else:
            dy = avg_pool_backward(dy, sums.shape, 2)
        dy = activation_backward(activation, dy, sums)
        gradients[:0] = [conv_backward_filter(dy, inputs, w.shape), dy.sum(axis=(0, 2, 3))]
        dy = conv_backward_data(dy, w, inputs.shape)
    return float(loss.mean()), dy, gradients


def lenet5_train(
    parameters: Sequence[Array],
    batches: Sequence[tuple[Array, Array]],
    optimizer: str,
    lr: float,
    activation: str = "tanh",
    pool: str = "avg",
    **options: Any,
) -> tuple[list[Array], list[float]]:
    """(parameters, losses) after one step per batch (x, labels). optimizer is "sgd" or "adam".

    options go to `sgd_step` (momentum, weight_decay, nesterov) or `adam_step` (beta1, beta2, eps, ...).
    """
    weights = [np.asarray(p, np.float64) for p in parameters]
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    losses = []
    for step, (x, labels) in enumerate(batches, start=1):
        loss, _, gradients = lenet5_backward(weights, x, labels, activation, pool)
        losses.append(loss)
        for i, g in enumerate(gradients):
            if optimizer == "sgd":
                weights[i], first[i] = sgd_step(weights[i], g, first[i], lr, **options)
            elif optimizer == "adam":
                state = (weights[i], g, first[i], second[i])
                weights[i], first[i], second[i] = adam_step(*state, lr, step=step, **options)
            else:
                raise ValueError(f"optimizer {optimizer!r} is neither 'sgd' nor 'adam'")
    return weights, losses
