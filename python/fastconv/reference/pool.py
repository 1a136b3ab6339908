# SPDX-License-Identifier: Apache-2.0
"""Max, min, average and Lp pooling, unpooling, and their gradients, one to three spatial axes.

A window starts at 0, stride, 2 * stride, ... of the padded axis. In floor mode it must end inside the padded axis; in
ceil mode its last cells may hang over the end, but it must start before the right padding: a window that would start
there, or beyond, is dropped. Padding never takes part in a maximum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.reference.conv import Padding, _channels_first, _to_layout, padding_pairs, per_axis

Array = npt.NDArray[Any]


def pool_output_size(
    size: int,
    window: int,
    stride: int,
    dilation: int = 1,
    pad_begin: int = 0,
    pad_end: int = 0,
    ceil_mode: bool = False,
) -> int:
    """How many windows there are: counted one by one, see the module's text."""
    padded = pad_begin + size + pad_end
    overhang = stride - 1 if ceil_mode else 0
    starts = range(0, padded, stride)
    fits = [start for start in starts if start + (window - 1) * dilation < padded + overhang]
    return len([start for start in fits if start < pad_begin + size]) if ceil_mode else len(fits)


class _Windows:
    """The windows of a pooling problem; positions are those of the unpadded plane and may lie outside it."""

    def __init__(
        self,
        size: Sequence[int],
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None,
        padding: Padding,
        dilation: int | Sequence[int],
        ceil_mode: bool,
    ) -> None:
        rank = len(size)
        self.size = tuple(size)
        self.window = per_axis(kernel_size, rank, "kernel_size")
        self.stride = self.window if stride is None else per_axis(stride, rank, "stride")
        self.dilation = per_axis(dilation, rank, "dilation")
        self.pads = padding_pairs(padding, rank)
        axes = zip(self.size, self.window, self.stride, self.dilation, self.pads, strict=True)
        self.output = tuple(pool_output_size(n, k, s, d, b, e, ceil_mode) for n, k, s, d, (b, e) in axes)

    def taps(self) -> Iterator[tuple[Array, Array]]:
        """For each cell of the window, first to last: (flat position in the plane, whether it lies inside it).

        Both have the shape of the output; a position outside the plane is clipped into it.
        """
        for tap in product(*(range(k) for k in self.window)):
            axes = zip(tap, self.output, self.stride, self.dilation, self.pads, strict=True)
            at = np.meshgrid(*(np.arange(o) * s + i * d - b for i, o, s, d, (b, _) in axes), indexing="ij")
            inside = np.all([(a >= 0) & (a < n) for a, n in zip(at, self.size, strict=True)], axis=0)
            clipped = tuple(np.clip(a, 0, max(n - 1, 0)) for a, n in zip(at, self.size, strict=True))
            yield np.ravel_multi_index(clipped, tuple(max(n, 1) for n in self.size)).astype(np.int64), inside

    def divisor(self, count_include_pad: bool) -> Array:
        """How many cells an average divides by: those of the plane or, including padding, of the padded plane."""
        counts = np.ones(self.output)
        axes = zip(self.output, self.window, self.stride, self.dilation, self.pads, self.size, strict=True)
        for axis, (o, k, s, d, (b, e), n) in enumerate(axes):
            low, high = (-b, n + e) if count_include_pad else (0, n)
            along = [sum(low <= p * s + i * d - b < high for i in range(k)) for p in range(o)]
            if 0 in along:
                raise ValueError("avg_pool: a window lies wholly in the padding")
            counts = counts * np.reshape(along, [-1 if a == axis else 1 for a in range(len(self.output))])
        return counts


def max_pool(
    x: npt.ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> tuple[Array, Array]:
    """(y, indices), both (N, C, *output), or (N, *output, C) when channels_last.

    indices are int64 positions in the flattened unpadded plane. Of equal maxima the first one wins, and a NaN is
    greater than everything, the first NaN winning. Raises ValueError if a window holds no cell of the plane.
    """
    x = _channels_first(np.asarray(x, dtype), layout)
    windows = _Windows(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    planes = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    y = np.full((*x.shape[:2], *windows.output), -np.inf, dtype)
    indices = np.full(y.shape, -1, np.int64)
    for position, inside in windows.taps():
        if x.size == 0:
            break
        value = planes[:, :, position]
        with np.errstate(invalid="ignore"):
            better = (value > y) | (np.isnan(value) & ~np.isnan(y)) | (indices < 0)
        take = better & inside
        y, indices = np.where(take, value, y), np.where(take, position, indices)
    if (indices < 0).any():
        raise ValueError("max_pool: a window lies wholly in the padding")
    return _to_layout(y, layout), _to_layout(indices, layout)


def max_pool_backward(
    dy: npt.ArrayLike,
    indices: npt.ArrayLike,
    x_shape: Sequence[int],
    *,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """dx, of shape x_shape: every dy is added to the cell that was its window's maximum."""
    dy, at = _channels_first(np.asarray(dy, dtype), layout), _channels_first(np.asarray(indices), layout)
    n, c = dy.shape[:2]
    size = tuple(x_shape[1:-1] if layout == "channels_last" else x_shape[2:])
    dx = np.zeros((n, c, math.prod(size)), dtype)
    flat = (n, c, math.prod(dy.shape[2:]))
    batch, channel = np.ogrid[:n, :c]
    np.add.at(dx, (batch[..., None], channel[..., None], at.reshape(flat)), dy.reshape(flat))
    return _to_layout(dx.reshape(n, c, *size), layout)


def min_pool(x: npt.ArrayLike, *args: Any, **words: Any) -> tuple[Array, Array]:
    """The same with the smallest value of each window: arguments and result as for `max_pool`."""
    y, indices = max_pool(-np.asarray(x, words.get("dtype", np.float64)), *args, **words)
    return -y, indices


def avg_pool(
    x: npt.ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: int | Sequence[int] = 1,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """y (N, C, *output): the sum of each window over its number of cells, or over divisor_override.

    count_include_pad counts the cells of the padding too, though never those that hang over its end in ceil mode.
    Summed in long double, where 1.7e308 + 1.7e308 is no overflow. Raises ValueError where that number is 0.
    """
    x = _channels_first(np.asarray(x, dtype), layout)
    windows = _Windows(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    planes = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    total = np.zeros((*x.shape[:2], *windows.output), np.longdouble)
    for position, inside in windows.taps():
        if x.size:
            total += np.where(inside, planes[:, :, position], 0)
    divisor = divisor_override or windows.divisor(count_include_pad)
    return _to_layout((total / divisor).astype(dtype), layout)


def avg_pool_backward(
    dy: npt.ArrayLike,
    x_shape: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: int | Sequence[int] = 1,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """dx, of shape x_shape: every dy is shared out equally over the cells of its window."""
    dy = _channels_first(np.asarray(dy, np.longdouble), layout)
    size = tuple(x_shape[1:-1] if layout == "channels_last" else x_shape[2:])
    windows = _Windows(size, kernel_size, stride, padding, dilation, ceil_mode)
    share = dy / (divisor_override or windows.divisor(count_include_pad))
    dx = np.zeros((*dy.shape[:2], math.prod(size)), np.longdouble)
    for position, inside in windows.taps():
        cells: Any = np.s_[:, :, position[inside]]
        np.add.at(dx, cells, share[:, :, inside])
    return _to_layout(dx.reshape(*dy.shape[:2], *size).astype(dtype), layout)


def lp_pool(
    x: npt.ArrayLike,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    signed: bool = True,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """y (N, C, *output): the p-th root of the sum over each window of |x|^p; with `signed` and an odd p, of x^p, the
    root having the sum's sign. Computed in long double, where a float32 to the 100th power is no overflow."""
    x = _channels_first(np.asarray(x, np.longdouble), layout)
    windows = _Windows(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    powers = np.abs(x) ** norm_type * (np.sign(x) if signed and norm_type % 2 == 1 else 1)
    planes = powers.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    total = np.zeros((*x.shape[:2], *windows.output), np.longdouble)
    for position, inside in windows.taps():
        if x.size:
            total += np.where(inside, planes[:, :, position], 0)
    y = np.sign(total) * np.abs(total) ** (1 / np.longdouble(norm_type))
    return _to_layout(y.astype(dtype), layout)


def lp_pool_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    signed: bool = True,
    y: npt.ArrayLike | None = None,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """dx: the sum over the windows of a cell of dy * (|x| / |y|)^(p - 1) * sign(x), without the sign where powers keep
    theirs; for p > 1, 0 where y is 0. y: what the forward pass gave; None: it is computed here."""
    p = norm_type
    words: dict[str, Any] = {"padding": padding, "dilation": dilation, "signed": signed, "dtype": np.longdouble}
    y = lp_pool(x, p, kernel_size, stride, ceil_mode, layout=layout, **words) if y is None else y
    y = _channels_first(np.asarray(y, np.longdouble), layout)
    dy = _channels_first(np.asarray(dy, np.longdouble), layout)
    x = _channels_first(np.asarray(x, np.longdouble), layout)
    windows = _Windows(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    planes = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    dx = np.zeros(planes.shape, np.longdouble)
    for position, inside in windows.taps():
        if not x.size:
            continue
        cell = planes[:, :, position]
        ratio = np.divide(np.abs(cell), np.abs(y), out=np.zeros_like(y), where=y != 0)
        slope = ratio ** (p - 1) if p > 1 else np.ones_like(y)
        slope = slope if signed and p % 2 == 1 else slope * np.sign(cell)
        cells: Any = np.s_[:, :, position[inside]]
        np.add.at(dx, cells, (dy * slope)[:, :, inside])
    return _to_layout(dx.reshape(x.shape).astype(dtype), layout)
