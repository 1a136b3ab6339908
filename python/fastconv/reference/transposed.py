# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution by its definition, a scatter, and its gradients, one to three spatial axes.

For one spatial axis, with t running over filter taps and c over the channels of k's group:

    y[n, k, i * stride + t * dilation - pad_begin] += x[n, c, i] * w[c, k, t]

Positions below 0, or at and beyond the size of y, are dropped. That size is

    (size - 1) * stride + (filter - 1) * dilation + 1 - pad_begin - pad_end + output_padding
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.reference.activations import activation as apply_activation
from fastconv.reference.conv import Array, Padding, padding_pairs, per_axis

Numbers = int | Sequence[int]


class _Scatter:
    """Where each cell of x lands, along every axis; `canvas` is y with its crop and everything that it drops."""

    def __init__(self, size: Sequence[int], filter: Sequence[int], stride: Numbers, padding: Padding,
                 output_padding: Numbers, dilation: Numbers) -> None:  # fmt: skip
        rank = len(size)
        self.size, self.filter = tuple(size), tuple(filter)
        self.stride, self.dilation = per_axis(stride, rank, "stride"), per_axis(dilation, rank, "dilation")
        extra = per_axis(output_padding, rank, "output_padding")
        self.pads = padding_pairs(padding, rank)
        reach = [(f - 1) * d for f, d in zip(self.filter, self.dilation, strict=True)]
        whole = [(n - 1) * s + r + 1 for n, s, r in zip(self.size, self.stride, reach, strict=True)]
        self.output = tuple(w - b - e + o for w, (b, e), o in zip(whole, self.pads, extra, strict=True))
        if min(self.output) < 1:
            raise ValueError(f"the result would have the plane {self.output}")
        self.canvas = tuple(max(w, b + o) for w, (b, _), o in zip(whole, self.pads, self.output, strict=True))
        crop: Any = (..., *(slice(b, b + o) for (b, _), o in zip(self.pads, self.output, strict=True)))
        self.crop = crop

    def taps(self) -> Iterator[tuple[Any, Any]]:
        """For each filter tap: its index into w, and the cells of the canvas that it reaches (shape `size`)."""
        for tap in product(*(range(f) for f in self.filter)):
            axes = zip(tap, self.size, self.stride, self.dilation, strict=True)
            yield (..., *tap), (..., *(slice(t * d, t * d + (n - 1) * s + 1, s) for t, n, s, d in axes))


def _first(a: Array, layout: str) -> Array:
    return np.moveaxis(a, -1, 1) if layout == "channels_last" else a


def _back(a: Array, layout: str) -> Array:
    return np.ascontiguousarray(np.moveaxis(a, 1, -1)) if layout == "channels_last" else a


def conv_transpose(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Numbers = 1,
    padding: Padding = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
    *,
    activation: str | None = None,
    alpha: float = 0.0,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """y = activation(conv_transpose(x, w) + bias), shape (N, K, *output) or (N, *output, K).

    x is (N, C, *size) or, channels_last, (N, *size, C); w is (C, K/groups, *filter) in both layouts. padding is an
    int, one per axis, or a (begin, end) pair per axis. Raises ValueError for shapes that do not belong together.
    """
    x, w = _first(np.asarray(x, dtype), layout), np.asarray(w, dtype)
    if x.ndim != w.ndim or x.shape[1] != w.shape[0] or w.shape[0] % groups:
        raise ValueError(f"x {x.shape} and w {w.shape} do not fit with groups={groups}")
    scatter = _Scatter(x.shape[2:], w.shape[2:], stride, padding, output_padding, dilation)
    n, c, size = x.shape[0], x.shape[1], x.shape[2:]
    grouped, filters = x.reshape(n, groups, c // groups, *size), w.reshape(groups, c // groups, *w.shape[1:])
    canvas = np.zeros((n, groups, w.shape[1], *scatter.canvas), dtype)
    for tap, cells in scatter.taps():
        canvas[cells] += np.einsum("ngc...,gck->ngk...", grouped, filters[tap])
    y = canvas[scatter.crop].reshape(n, groups * w.shape[1], *scatter.output)
    if bias is not None:
        y = y + np.asarray(bias, dtype).reshape(-1, *(1,) * len(size))
    return _back(y if activation is None else apply_activation(activation, y, alpha), layout)


def conv_transpose_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    stride: Numbers = 1,
    padding: Padding = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
    *,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> tuple[Array, Array, Array]:
    """(dx, dw, db): the gradients of sum(dy * (conv_transpose(x, w) + bias))."""
    dy, x = _first(np.asarray(dy, dtype), layout), _first(np.asarray(x, dtype), layout)
    w = np.asarray(w, dtype)
    scatter = _Scatter(x.shape[2:], w.shape[2:], stride, padding, output_padding, dilation)
    n, c, size = x.shape[0], x.shape[1], x.shape[2:]
    if dy.shape != (n, groups * w.shape[1], *scatter.output):
        raise ValueError(f"dy has shape {dy.shape}, expected {(n, groups * w.shape[1], *scatter.output)}")
    grouped, filters = x.reshape(n, groups, c // groups, *size), w.reshape(groups, c // groups, *w.shape[1:])
    canvas = np.zeros((n, groups, w.shape[1], *scatter.canvas), dtype)
    canvas[scatter.crop] = dy.reshape(n, groups, w.shape[1], *scatter.output)
    dx, dw = np.zeros_like(grouped), np.zeros_like(filters)
    axes = "xyz"[: len(size)]
    for tap, cells in scatter.taps():
        dx += np.einsum("ngk...,gck->ngc...", canvas[cells], filters[tap])
        dw[tap] = np.einsum(f"ngk{axes},ngc{axes}->gck", canvas[cells], grouped)
    db = dy.sum(axis=(0, *range(2, dy.ndim)))
    return _back(dx.reshape(x.shape), layout), dw.reshape(w.shape), db
