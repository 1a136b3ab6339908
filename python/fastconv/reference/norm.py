# SPDX-License-Identifier: Apache-2.0
"""Group, instance and layer normalisation and local response normalisation, each next to its gradient.

Written group by group and cell by cell, with loops: what the library does with reshaped arrays is done here by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def _floating(x: npt.ArrayLike) -> Array:
    a = np.asarray(x)
    return a if a.dtype == np.longdouble else a.astype(np.float64)


def group_norm(x: npt.ArrayLike, groups: int, gamma: npt.ArrayLike, beta: npt.ArrayLike, eps: float = 1e-5) -> Array:
    """y (N, C, *) of x (N, C, *), gamma and beta (C,): each example's groups of C / groups channels have mean 0 and
    (biased) variance 1 before gamma and beta."""
    x, gamma, beta = _floating(x), _floating(gamma), _floating(beta)
    y = np.empty_like(x)
    size = x.shape[1] // groups
    for n in range(len(x)):
        for first in range(0, x.shape[1], size):
            part = x[n, first : first + size]
            normal = (part - part.mean()) / np.sqrt(part.var() + eps)
            for c in range(size):
                y[n, first + c] = normal[c] * gamma[first + c] + beta[first + c]
    return y


def group_norm_backward(
    dy: npt.ArrayLike, x: npt.ArrayLike, groups: int, gamma: npt.ArrayLike, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """(dx, dgamma, dbeta) of `group_norm`, by the Jacobian of one group.

    With d = x - mean, s = sqrt(variance + eps), M cells and h = d / s:
    dh[i]/dx[j] = ((i = j) - 1/M) / s - d[i] d[j] / (M s^3).
    """
    dy, x, gamma = _floating(dy), _floating(x), _floating(gamma)
    dx, dgamma, dbeta = np.empty_like(x), np.zeros_like(gamma), np.zeros_like(gamma)
    size = x.shape[1] // groups
    for n in range(len(x)):
        for first in range(0, x.shape[1], size):
            channels = slice(first, first + size)
            part = x[n, channels]
            d, s, m = part - part.mean(), np.sqrt(part.var() + eps), part.size
            for c in range(size):
                dgamma[first + c] += (dy[n, first + c] * d[c] / s).sum()
                dbeta[first + c] += dy[n, first + c].sum()
            dh = np.stack([dy[n, first + c] * gamma[first + c] for c in range(size)])
            # dx[j] = sum over i of dh[i] dh[i]/dx[j], the three terms apart.
            dx[n, channels] = dh / s - dh.sum() / (m * s) - d * (dh * d).sum() / (m * s**3)
    return dx, dgamma, dbeta


def instance_norm(x: npt.ArrayLike, gamma: npt.ArrayLike, beta: npt.ArrayLike, eps: float = 1e-5) -> Array:
    """Each channel of each example of x (N, C, *) normalised by itself."""
    return group_norm(x, np.asarray(x).shape[1], gamma, beta, eps)


def layer_norm(x: npt.ArrayLike, gamma: npt.ArrayLike, beta: npt.ArrayLike, eps: float = 1e-5) -> Array:
    """x (*, *gamma.shape) normalised over the axes that gamma and beta have."""
    x, gamma, beta = _floating(x), _floating(gamma), _floating(beta)
    y = np.empty_like(x)
    for index in np.ndindex(x.shape[: x.ndim - gamma.ndim]):
        part = x[index]
        y[index] = (part - part.mean()) / np.sqrt(part.var() + eps) * gamma + beta
    return y


def layer_norm_backward(
    dy: npt.ArrayLike, x: npt.ArrayLike, gamma: npt.ArrayLike, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """(dx, dgamma, dbeta) of `layer_norm`, by the Jacobian in `group_norm_backward`."""
    dy, x, gamma = _floating(dy), _floating(x), _floating(gamma)
    dx, dgamma, dbeta = np.empty_like(x), np.zeros_like(gamma), np.zeros_like(gamma)
    for index in np.ndindex(x.shape[: x.ndim - gamma.ndim]):
        part = x[index]
        d, s, m = part - part.mean(), np.sqrt(part.var() + eps), part.size
        dgamma += dy[index] * d / s
        dbeta += dy[index]
        dh = dy[index] * gamma
        dx[index] = dh / s - dh.sum() / (m * s) - d * (dh * d).sum() / (m * s**3)
    return dx, dgamma, dbeta
