# SPDX-License-Identifier: Apache-2.0
"""One step of each optimiser, as functions: nothing is changed in place, new values are returned."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def sgd_step(
    w: Array,
    g: Array,
    velocity: Array | None,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> tuple[Array, Array]:
    """(w, velocity) after one step of stochastic gradient descent; velocity None stands for zeros.

    d = g + weight_decay * w
    velocity = momentum * velocity + d
    w = w - lr * (d + momentum * velocity if nesterov else velocity)
    """
    decayed = g + weight_decay * w
    velocity = momentum * (np.zeros_like(w) if velocity is None else velocity) + decayed
    return w - lr * (decayed + momentum * velocity if nesterov else velocity), velocity


def adam_step(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    step: int = 1,
    highest: Array | None = None,
) -> tuple[Array, ...]:
    """(w, m, v) after step number `step` (the first is 1) of Adam (Kingma and Ba, algorithm 1).

        m = beta1 * m + (1 - beta1) * g          v = beta2 * v + (1 - beta2) * g * g
        w = w - lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)

    weight_decay is added to the gradient or, decoupled (Loshchilov and Hutter), shrinks w by lr * weight_decay first.
    With `highest`, the largest v so far, that one is divided by (AMSGrad), and its new value is a fourth result.
    """
    if decoupled:
        w = w * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    mean = m / (1 - math.pow(beta1, step))
    if highest is not None:
        highest = np.maximum(highest, v)
    root = np.sqrt((v if highest is None else highest) / (1 - math.pow(beta2, step)))
    w = w - lr * mean / (root + eps)
    return (w, m, v) if highest is None else (w, m, v, highest)


def rmsprop_step(
    w: Array,
    g: Array,
    square: Array,
    mean: Array | None,
    velocity: Array | None,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> tuple[Array, Array, Array | None, Array | None]:
    """(w, square, mean, velocity) after one step of RMSprop (Tieleman and Hinton); mean is None unless it is centred.

    d = g + weight_decay * w
    square = alpha * square + (1 - alpha) * d^2                mean = alpha * mean + (1 - alpha) * d
    step = d / (sqrt(square - mean^2) + eps)                   velocity = momentum * velocity + step
    w = w - lr * (velocity, or without momentum the step itself)
    """
    d = g + weight_decay * w
    square = alpha * square + (1 - alpha) * d**2
    variance = square
    if mean is not None:
        mean = alpha * mean + (1 - alpha) * d
        variance = np.maximum(square - mean**2, 0)
    step = d / (np.sqrt(variance) + eps)
    if velocity is not None:
        step = velocity = momentum * velocity + step
    return w - lr * step, square, mean, velocity
