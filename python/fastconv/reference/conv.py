# SPDX-License-Identifier: Apache-2.0
"""Convolution (cross-correlation) and its two gradients, one to three spatial axes.

For one spatial axis, with i running over filter taps and c over the channels of k's group:

    y[n, k, p] = bias[k] + sum_{c, i} x[n, c, p * stride + i * dilation - pad_begin] * w[k, c, i]

where an x outside the array is what the padding mode says. All three functions first make that padding explicit:
`padded_sources` names, for every cell of the padded axis, the cell of x that it shows. Forward gathers through that
map and `conv_backward_data` scatters through it, which is why every padding mode has a gradient for free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.reference.activations import activation as apply_activation

Array = npt.NDArray[Any]
Padding = int | Sequence[int | tuple[int, int]]
OUTSIDE = -1


def per_axis(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """`value` once per spatial axis. Raises ValueError for a sequence of another length."""
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank:
        raise ValueError(f"{name}: {len(values)} entries for {rank} spatial axes: {values}")
    return values


def padding_pairs(padding: Padding, rank: int) -> tuple[tuple[int, int], ...]:
    """(begin, end) per axis from an int, one int per axis, or one pair per axis."""
    entries = (padding,) * rank if isinstance(padding, int) else tuple(padding)
    if len(entries) != rank:
        raise ValueError(f"padding: {len(entries)} entries for {rank} spatial axes: {entries}")
    return tuple((p, p) if isinstance(p, int) else p for p in entries)


def output_size(
    size: int, filter: int, stride: int = 1, dilation: int = 1, pad_begin: int = 0, pad_end: int = 0
) -> int:
    """How often the filter fits: a count, not a formula, so that it can judge the library's formula.

    The filter starts at 0, stride, 2 * stride, ... of the padded axis and must end inside it.
    """
    last_tap = (filter - 1) * dilation
    return sum(
        1 for start in range(0, pad_begin + size + pad_end, stride) if start + last_tap < pad_begin + size + pad_end
    )


def padded_sources(size: int, pad_begin: int, pad_end: int, padding_mode: str) -> Array:
    """Which cell of an axis each cell of the padded axis shows; OUTSIDE for the constant. Shape (begin + size + end,).

    Raises ValueError where the mode cannot fill the padding: reflect needs padding < size, circular <= size, and
    replicate at least one cell.
    """
    position = np.arange(-pad_begin, size + pad_end)
    inside = (position >= 0) & (position < size)
    widest = max(pad_begin, pad_end)
    if padding_mode in ("zeros", "constant") or widest == 0:
        return np.where(inside, position, OUTSIDE)
    if padding_mode == "replicate":
        if size < 1:
            raise ValueError("padding_mode 'replicate' needs at least one cell to repeat")
        return np.clip(position, 0, size - 1)
    if padding_mode == "reflect":
        if widest >= size:
            raise ValueError(f"padding_mode 'reflect' needs padding < size, got padding {widest} and size {size}")
        mirrored = np.abs(position)
        return np.where(mirrored < size, mirrored, 2 * (size - 1) - mirrored)
    if padding_mode == "circular":
        if widest > size:
            raise ValueError(f"padding_mode 'circular' needs padding <= size, got padding {widest} and size {size}")
        return position % size
    raise ValueError(f"padding_mode {padding_mode!r} is none of zeros, constant, reflect, replicate, circular")


class _Geometry:
    """The arguments that the three passes share, brought to one form; `slices` walks over the filter taps."""

    def __init__(
        self,
        size: Sequence[int],
        filter: Sequence[int],
        stride: int | Sequence[int],
        padding: Padding,
        dilation: int | Sequence[int],
        padding_mode: str,
    ) -> None:
        rank = len(size)
        self.size, self.filter = tuple(size), tuple(filter)
        self.stride = per_axis(stride, rank, "stride")
        self.dilation = per_axis(dilation, rank, "dilation")
        self.pads = padding_pairs(padding, rank)
        self.sources = [padded_sources(s, b, e, padding_mode) for s, (b, e) in zip(self.size, self.pads, strict=True)]
        axes = zip(self.size, self.filter, self.stride, self.dilation, self.pads, strict=True)
        self.output = tuple(output_size(s, f, st, d, b, e) for s, f, st, d, (b, e) in axes)

    def taps(self) -> Iterator[tuple[Any, Any]]:
        """For each filter tap: its index into w, and the strided slices of padded x that it meets (shape `output`)."""
        for tap in product(*(range(f) for f in self.filter)):
            axes = zip(tap, self.output, self.stride, self.dilation, strict=True)
            window = (slice(i * d, i * d + (o - 1) * s + 1 if o else i * d, s) for i, o, s, d in axes)
            yield (..., *tap), (..., *window)

    def pad(self, x: Array, pad_value: float) -> Array:
        """x (..., *size) with its padding written out."""
        for axis, source in enumerate(self.sources, start=x.ndim - len(self.size)):
            if x.shape[axis] == 0:
                x = np.full((*x.shape[:axis], len(source), *x.shape[axis + 1 :]), pad_value, x.dtype)
                continue
            x = np.take(x, np.maximum(source, 0), axis=axis)
            np.moveaxis(x, axis, 0)[source == OUTSIDE] = pad_value
        return x

    def unpad(self, dx: Array) -> Array:
        """The transpose of `pad`: each cell of the padding adds its gradient to the cell that it showed."""
        for axis, (source, size) in enumerate(
            zip(self.sources, self.size, strict=True), start=dx.ndim - len(self.size)
        ):
            padded = np.moveaxis(dx, axis, 0)
            summed = np.zeros((size, *padded.shape[1:]), dx.dtype)
            np.add.at(summed, source[source != OUTSIDE], padded[source != OUTSIDE])
            dx = np.moveaxis(summed, 0, axis)
        return dx


def _channels_first(x: Array, layout: str) -> Array:
    if layout not in ("channels_first", "channels_last"):
        raise ValueError(f"layout {layout!r} is neither channels_first nor channels_last")
    return np.moveaxis(x, -1, 1) if layout == "channels_last" else x


def _to_layout(x: Array, layout: str) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "channels_last" else x


def _split(a: Array, axis: int, groups: int) -> Array:
    """`axis` of a, of extent E, as two axes (groups, E / groups)."""
    if a.shape[axis] % groups:
        raise ValueError(f"groups={groups} does not divide the {a.shape[axis]} channels of axis {axis}")
    return a.reshape(*a.shape[:axis], groups, a.shape[axis] // groups, *a.shape[axis + 1 :])


def conv(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: float = 0.0,
    activation: str | None = None,
    alpha: float = 0.0,
    residual: npt.ArrayLike | None = None,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """y = activation(conv(x, w) + bias + residual), shape (N, K, *output) or (N, *output, K).

    x is (N, C, *size) or, channels_last, (N, *size, C); w is (K, C/groups, *filter) in both layouts and its rank
    says how many spatial axes there are. padding is an int, one per axis, or a (begin, end) pair per axis.
    Raises ValueError for shapes that do not belong together.
    """
    x, w = _channels_first(np.asarray(x, dtype), layout), np.asarray(w, dtype)
    if x.ndim != w.ndim or x.shape[1] != w.shape[1] * groups:
        raise ValueError(f"x {x.shape} and w {w.shape} do not fit with groups={groups}")
    geometry = _Geometry(x.shape[2:], w.shape[2:], stride, padding, dilation, padding_mode)
    value = pad_value if padding_mode == "constant" else 0.0
    padded = _split(geometry.pad(x, value), 1, groups)
    filters = _split(w, 0, groups)
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, *geometry.output), dtype)
    for tap, window in geometry.taps():
        y += np.einsum("ngc...,gkc->ngk...", padded[window], filters[tap])
    y = y.reshape(x.shape[0], w.shape[0], *geometry.output)
    if bias is not None:
        y += np.asarray(bias, dtype).reshape(-1, *(1,) * len(geometry.output))
    if residual is not None:
        y += _channels_first(np.asarray(residual, dtype), layout)
    if activation is not None:
        y = apply_activation(activation, y, alpha)
    return _to_layout(y, layout)


def conv_backward_data(
    dy: npt.ArrayLike,
    w: npt.ArrayLike,
    x_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """dx, of shape x_shape: the gradient of sum(dy * conv(x, w)) with respect to x.

    Each dy[n, k, p] adds w[k, c, i] * dy[n, k, p] to the cell of padded x that tap i met at p; the padding then hands
    its share to the cells that it showed.
    """
    dy, w = _channels_first(np.asarray(dy, dtype), layout), np.asarray(w, dtype)
    n, c, size = _shape_parts(x_shape, layout)
    geometry = _Geometry(size, w.shape[2:], stride, padding, dilation, padding_mode)
    _expect(dy, (n, w.shape[0], *geometry.output), "dy")
    gradient, filters = _split(dy, 1, groups), _split(w, 0, groups)
    padded = np.zeros((n, groups, c // groups, *(len(s) for s in geometry.sources)), dtype)
    for tap, window in geometry.taps():
        padded[window] += np.einsum("ngk...,gkc->ngc...", gradient, filters[tap])
    dx = geometry.unpad(padded.reshape(n, c, *padded.shape[3:]))
    return _to_layout(dx, layout)


def conv_backward_filter(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    w_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    pad_value: float = 0.0,
    layout: str = "channels_first",
    dtype: npt.DTypeLike = np.float64,
) -> Array:
    """dw, of shape w_shape: the gradient of sum(dy * conv(x, w)) with respect to w.

    dw[k, c, i] is the sum of dy[n, k, p] times the cell of padded x that tap i met at p, over n and p; an empty
    batch gives zeros.
    """
    dy, x = _channels_first(np.asarray(dy, dtype), layout), _channels_first(np.asarray(x, dtype), layout)
    geometry = _Geometry(x.shape[2:], w_shape[2:], stride, padding, dilation, padding_mode)
    _expect(dy, (x.shape[0], w_shape[0], *geometry.output), "dy")
    value = pad_value if padding_mode == "constant" else 0.0
    padded, gradient = _split(geometry.pad(x, value), 1, groups), _split(dy, 1, groups)
    dw = np.zeros((groups, w_shape[0] // groups, *w_shape[1:]), dtype)
    axes = "xyz"[: len(geometry.size)]
    for tap, window in geometry.taps():
        dw[tap] = np.einsum(f"ngk{axes},ngc{axes}->gkc", gradient, padded[window])
    return dw.reshape(tuple(w_shape))


def conv_magnitude(pass_: str, *arrays: npt.ArrayLike, **geometry: Any) -> Array:
    """The same pass on absolute values: what a rounding error is measured against.

    pass_ is "fwd" (x, w, bias, ...), "bwd_data" (dy, w, x_shape, ...) or "bwd_filter" (dy, x, w_shape, ...); the
    first two arrays are made positive, and so is the bias of a forward pass.
    """
    passes: dict[str, Callable[..., Array]] = {
        "fwd": conv,
        "bwd_data": conv_backward_data,
        "bwd_filter": conv_backward_filter,
    }
    first, second, *rest = arrays
    if pass_ == "fwd":
        rest = [None if a is None else np.abs(np.asarray(a)) for a in rest]
    if "pad_value" in geometry:
        geometry["pad_value"] = abs(geometry["pad_value"])
    return passes[pass_](np.abs(np.asarray(first)), np.abs(np.asarray(second)), *rest, **geometry)


def _shape_parts(shape: Sequence[int], layout: str) -> tuple[int, int, tuple[int, ...]]:
    if layout == "channels_last":
        return shape[0], shape[-1], tuple(shape[1:-1])
    return shape[0], shape[1], tuple(shape[2:])


def _expect(a: Array, shape: tuple[int, ...], name: str) -> None:
    if a.shape != shape:
        raise ValueError(f"{name} has shape {a.shape}, expected {shape} (channels first)")
