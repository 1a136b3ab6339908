# SPDX-License-Identifier: Apache-2.0
"""Local response normalisation, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def _windows(shape: tuple[int, ...], size: int, region: str, extra: str) -> Iterator[tuple[tuple[int, ...], Any]]:
    """(cell, its window) for an array (N, C, *)."""
    before, after = (size // 2, (size - 1) // 2) if extra == "before" else ((size - 1) // 2, size // 2)
    axes = (1,) if region == "across_channels" else tuple(range(2, len(shape)))
    for cell in np.ndindex(shape):
        yield (
            cell,
            tuple(
                slice(max(0, i - before), i + after + 1) if axis in axes else slice(i, i + 1)
                for axis, i in enumerate(cell)
            ),
        )


def local_response_norm(
    x: npt.ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    region: str = "across_channels",
    extra: str = "before",
) -> Array:
    """y = x / (k + alpha / size^axes * sum of squares in the window)^beta for x (N, C, *).

    region: "across_channels", or "within_channel": a window along every spatial axis (Caffe's WITHIN_CHANNEL).
    extra: where the middle of an even window has its cell more, "before" (PyTorch) or "after" (ONNX).
    """
    x = np.asarray(x, np.float64)
    y = np.empty_like(x)
    share = alpha / size ** (1 if region == "across_channels" else x.ndim - 2)
    for cell, window in _windows(x.shape, size, region, extra):
        y[cell] = x[cell] / (k + share * (x[window] ** 2).sum()) ** beta
    return y


def local_response_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    region: str = "across_channels",
    extra: str = "before",
) -> Array:
    """dx of `local_response_norm`: every output sends its gradient to itself and to all cells of its window."""
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    dx = np.zeros_like(x)
    share = alpha / size ** (1 if region == "across_channels" else x.ndim - 2)
    for cell, window in _windows(x.shape, size, region, extra):
        base = k + share * (x[window] ** 2).sum()
        dx[cell] += dy[cell] * base**-beta
        dx[window] -= dy[cell] * x[cell] * beta * base ** (-beta - 1) * share * 2 * x[window]
    return dx
