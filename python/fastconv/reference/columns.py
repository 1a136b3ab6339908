# SPDX-License-Identifier: Apache-2.0
"""im2col and col2im by indices: which cell of the padded image each element of the columns is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.reference.conv import Array, Padding, output_size, padding_pairs, per_axis

Numbers = int | Sequence[int]


def _cells(size: Sequence[int], kernel_size: Sequence[int], dilation: Numbers, padding: Padding,
           stride: Numbers) -> tuple[Array, tuple[tuple[int, int], ...]]:  # fmt: skip
    """(flat cell of the padded image, shape (taps, windows)), and the padding per axis."""
    rank = len(size)
    strides, dilations = per_axis(stride, rank, "stride"), per_axis(dilation, rank, "dilation")
    pads = padding_pairs(padding, rank)
    cells: Any = np.zeros((1, 1), np.int64)
    for n, f, s, d, (b, e) in zip(size, kernel_size, strides, dilations, pads, strict=True):
        windows = output_size(n, f, s, d, b, e)
        along = np.arange(f)[:, None] * d + np.arange(windows)[None] * s
        # (taps so far, 1, windows so far, 1) and (1, f, 1, windows here): the last axis runs fastest
        joined = cells[:, None, :, None] * (b + n + e) + along[None, :, None, :]
        cells = joined.reshape(cells.shape[0] * f, cells.shape[1] * windows)
    return cells, pads


def im2col(x: npt.ArrayLike, kernel_size: Sequence[int], dilation: Numbers = 1, padding: Padding = 0,
           stride: Numbers = 1, *, dtype: npt.DTypeLike = np.float64) -> Array:  # fmt: skip
    """x (N, C, *size) -> (N, C * taps, windows), rows by channel and tap."""
    x = np.asarray(x, dtype)
    cells, pads = _cells(x.shape[2:], kernel_size, dilation, padding, stride)
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    flat = padded.reshape(*x.shape[:2], int(np.prod(padded.shape[2:])))
    return flat[:, :, cells].reshape(x.shape[0], x.shape[1] * cells.shape[0], cells.shape[1])


def col2im(columns: npt.ArrayLike, output_size: Sequence[int], kernel_size: Sequence[int], dilation: Numbers = 1,
           padding: Padding = 0, stride: Numbers = 1, *, dtype: npt.DTypeLike = np.float64) -> Array:  # fmt: skip
    """The transpose of `im2col`: (N, C * taps, windows) -> (N, C, *output_size)."""
    columns = np.asarray(columns, dtype)
    cells, pads = _cells(output_size, kernel_size, dilation, padding, stride)
    n, channels = columns.shape[0], columns.shape[1] // cells.shape[0]
    size = [b + s + e for s, (b, e) in zip(output_size, pads, strict=True)]
    padded = np.zeros((int(np.prod(size)), n, channels), dtype)
    values = columns.reshape(n, channels, *cells.shape)
    np.add.at(padded, cells, np.moveaxis(values, (0, 1), (2, 3)))
    image = np.moveaxis(padded, 0, 2).reshape(n, channels, *size)
    inside = tuple(slice(b, b + s) for s, (b, _) in zip(output_size, pads, strict=True))
    return image[(slice(None), slice(None), *inside)]
