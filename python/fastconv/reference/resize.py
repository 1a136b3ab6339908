# SPDX-License-Identifier: Apache-2.0
"""Resizing by dense matrices, one per axis, filled entry by entry from the definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def resize_matrix(n: int, m: int, mode: str, align_corners: bool = False, scale: float | None = None) -> Array:
    """(m, n): how much of each of n inputs is in each of m outputs.

    mode: "nearest", "nearest-exact", "linear", "cubic" or "area". scale: outputs lie 1 / scale apart, None: n / m.
    """
    step = 1 / Fraction(scale) if scale else Fraction(n, m)
    matrix = np.zeros((m, n))
    for j in range(m):
        centre = (j + Fraction(1, 2)) * step - Fraction(1, 2)
        if align_corners:
            centre = Fraction(j * (n - 1), m - 1) if m > 1 else Fraction(0)
        if mode == "nearest":
            matrix[j, min(math.floor(j * step), n - 1)] = 1
        elif mode == "nearest-exact":
            matrix[j, min(math.floor((j + Fraction(1, 2)) * step), n - 1)] = 1
        elif mode == "area":
            low, high = j * n // m, math.ceil(Fraction((j + 1) * n, m))
            matrix[j, low:high] = 1 / (high - low)
        else:
            reach = 1 if mode == "linear" else 2
            low = math.floor(centre)
            for i in range(low - reach + 1, low + reach + 1):
                d = abs(float(centre - i))
                if mode == "linear":
                    weight = 1 - d
                else:  # Keys, a = -0.75
                    weight = 1.25 * d**3 - 2.25 * d**2 + 1 if d <= 1 else -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
                matrix[j, min(max(i, 0), n - 1)] += weight
    return matrix


def resize(
    x: npt.ArrayLike,
    size: Sequence[int],
    mode: str,
    align_corners: bool = False,
    scale: Sequence[float | None] | None = None,
) -> Array:
    """x (N, C, *) with its spatial axes resized to `size`; arguments as for `resize_matrix`."""
    y = np.asarray(x, np.float64)
    for axis, m in enumerate(size):
        matrix = resize_matrix(y.shape[2 + axis], m, mode, align_corners, scale[axis] if scale else None)
        y = np.moveaxis(np.tensordot(matrix, y, (1, 2 + axis)), 0, 2 + axis)
    return y


def resize_backward(
    dy: npt.ArrayLike,
    x_size: Sequence[int],
    mode: str,
    align_corners: bool = False,
    scale: Sequence[float | None] | None = None,
) -> Array:
    """dx of `resize` for spatial axes x_size: the transposed matrices."""
    dx = np.asarray(dy, np.float64)
    for axis, n in enumerate(x_size):
        matrix = resize_matrix(n, dx.shape[2 + axis], mode, align_corners, scale[axis] if scale else None)
        dx = np.moveaxis(np.tensordot(matrix.T, dx, (1, 2 + axis)), 0, 2 + axis)
    return dx
