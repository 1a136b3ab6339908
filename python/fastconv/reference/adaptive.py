# SPDX-License-Identifier: Apache-2.0
"""Adaptive pooling (global pooling is adaptive pooling to one output) and max unpooling, window by window.

Output o of an axis with n cells and `size` outputs sees the cells i with i + 1 > o n / size and i < (o + 1) n / size:
every cell that its share of the axis touches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.reference.conv import _channels_first, _to_layout

Array = npt.NDArray[Any]


def adaptive_window(size: int, outputs: int, o: int) -> slice:
    """The cells that output `o` of `outputs` sees on an axis of `size` cells."""
    low, high = Fraction(o * size, outputs), Fraction((o + 1) * size, outputs)
    first = next(i for i in range(int(low), size) if i + 1 > low)
    last = next(i for i in range(int(high), -1, -1) if i < high)
    return slice(first, last + 1)


def _windows(size: Sequence[int], outputs: Sequence[int]) -> Iterator[tuple[Any, Any]]:
    """The index of each output in y, and of its window in x."""
    along = [[adaptive_window(n, m, o) for o in range(m)] for n, m in zip(size, outputs, strict=True)]
    for at, window in zip(np.ndindex(*outputs), product(*along), strict=True):
        yield np.s_[:, :, *at], np.s_[:, :, *window]


def adaptive_avg_pool(
    x: npt.ArrayLike, output_size: Sequence[int], *, layout: str = "channels_first", dtype: npt.DTypeLike = np.float64
) -> Array:
    """y (N, C, *output_size): the mean of each window, summed in long double (1.7e308 + 1.7e308 is no overflow)."""
    x = _channels_first(np.asarray(x, np.longdouble), layout)
    y = np.zeros((*x.shape[:2], *output_size), np.longdouble)
    for at, window in _windows(x.shape[2:], output_size):
        cells = x[window]
        y[at] = cells.sum(axis=tuple(range(2, cells.ndim))) / math.prod(cells.shape[2:])
    return _to_layout(y.astype(dtype), layout)


def adaptive_avg_pool_backward(
    dy: npt.ArrayLike, x_shape: Sequence[int], *, layout: str = "channels_first", dtype: npt.DTypeLike = np.float64
) -> Array:
    """dx, of shape x_shape."""
    dy = _channels_first(np.asarray(dy, np.longdouble), layout)
    size = tuple(x_shape[1:-1] if layout == "channels_last" else x_shape[2:])
    dx = np.zeros((*dy.shape[:2], *size), np.longdouble)
    for at, window in _windows(size, dy.shape[2:]):
        share = dy[at] / math.prod(w.stop - w.start for w in window[2:])
        dx[window] += share.reshape(*share.shape, *(1,) * len(size))
    return _to_layout(dx.astype(dtype), layout)


def adaptive_max_pool(
    x: npt.ArrayLike, output_size: Sequence[int], *, layout: str = "channels_first", dtype: npt.DTypeLike = np.float64
) -> tuple[Array, Array]:
    """(y, indices): the first maximum of each window, or the first NaN, and its place in the flattened plane."""
    x = _channels_first(np.asarray(x, dtype), layout)
    y = np.zeros((*x.shape[:2], *output_size), dtype)
    indices = np.zeros(y.shape, np.int64)
    places = np.arange(math.prod(x.shape[2:])).reshape(x.shape[2:])
    for at, window in _windows(x.shape[2:], output_size):
        cells = x[window]
        rows = cells.reshape(*cells.shape[:2], math.prod(cells.shape[2:]))
        first = rows.argmax(-1)  # NumPy's argmax takes the first NaN, else the first maximum
        indices[at] = places[window[2:]].ravel()[first]
        y[at] = np.take_along_axis(rows, first[..., None], -1)[..., 0]
    return _to_layout(y, layout), _to_layout(indices, layout)


def max_unpool(
    x: npt.ArrayLike,
    indices: npt.ArrayLike,
    plane: Sequence[int],
    *,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """y (N, C, *plane): x written to its positions one after the other, so that the last of several stays."""
    x, at = _channels_first(np.asarray(x, dtype), layout), _channels_first(np.asarray(indices), layout)
    y = np.zeros((*x.shape[:2], math.prod(plane)), dtype)
    for o in np.ndindex(x.shape):
        y[o[0], o[1], at[o]] = x[o]
    return _to_layout(y.reshape(*x.shape[:2], *plane), layout)


def max_unpool_backward(
    dy: npt.ArrayLike, indices: npt.ArrayLike, *, layout: str = "channels_first", dtype: npt.DTypeLike = np.float64
) -> Array:
    """dx, of the shape of indices: dy at the position of each value that stayed, 0 for the others."""
    dy, at = _channels_first(np.asarray(dy, dtype), layout), _channels_first(np.asarray(indices), layout)
    flat = dy.reshape(*dy.shape[:2], math.prod(dy.shape[2:]))
    stayed: dict[tuple[int, ...], tuple[int, ...]] = {}
    for o in np.ndindex(at.shape):
        stayed[o[0], o[1], int(at[o])] = o
    dx = np.zeros(at.shape, dtype)
    for cell, o in stayed.items():
        dx[o] = flat[cell]
    return _to_layout(dx, layout)
