# SPDX-License-Identifier: Apache-2.0
"""Borders by index: for every cell of y, the cell of x that it shows, one axis after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def border_index(n: int, begin: int, end: int, mode: str) -> list[int]:
    """Which of n cells each of begin + n + end cells shows, -1: a constant. Negative widths crop first."""
    kept = list(range(max(0, -begin), n - max(0, -end)))
    index = []
    for i in range(-max(0, begin), len(kept) + max(0, end)):
        if 0 <= i < len(kept):
            index.append(kept[i])
        elif mode == "constant":
            index.append(-1)
        elif mode == "replicate":
            index.append(kept[0] if i < 0 else kept[-1])
        elif mode == "circular":
            index.append(kept[i % len(kept)])
        else:  # reflect
            index.append(kept[-i if i < 0 else 2 * (len(kept) - 1) - i])
    return index


def pad(x: npt.ArrayLike, widths: Sequence[tuple[int, int]], value: float = 0.0, mode: str = "constant") -> Array:
    """x with (begin, end) cells more along each axis; mode: "constant", "reflect", "replicate" or "circular"."""
    y = np.asarray(x, np.float64)
    for axis, (begin, end) in enumerate(widths):
        index = border_index(y.shape[axis], begin, end, mode)
        planes = [np.full_like(y.take(0, axis), value) if i < 0 else y.take(i, axis) for i in index]
        y = np.stack(planes, axis) if planes else y.take([], axis)
    return y


def pad_backward(
    dy: npt.ArrayLike, x_shape: Sequence[int], widths: Sequence[tuple[int, int]], mode: str = "constant"
) -> Array:
    """dx of `pad`: each cell of dy added to the cell of x that it shows."""
    dx = np.asarray(dy, np.float64)
    for axis, (begin, end) in enumerate(widths):
        planes = np.zeros((x_shape[axis], *np.delete(dx.shape, axis)))
        for j, i in enumerate(border_index(x_shape[axis], begin, end, mode)):
            if i >= 0:
                planes[i] += dx.take(j, axis)
        dx = np.moveaxis(planes, 0, axis)
    return dx
