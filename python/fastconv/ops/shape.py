# SPDX-License-Identifier: Apache-2.0
"""Moving, cutting, joining and summing. Every operation here is linear and each gradient is the adjoint movement."""

import math
from typing import Any

import numpy as np

from .._core import ProblemError
from ..arrays import FLOAT64, beside, kernels, namespace, native
from ..autograd import Context, Function
from ..options import current
from ..tensor import Tensor, as_tensor, plain

Shape = tuple[int, ...]


def total(x: Any, axes: Shape, keepdims: bool) -> Any:
    """The sum of an array over axes, accumulated in float64.

    Where what is kept lies together, as a channel between batch and plane, or nothing is kept, a native kernel sums
    chunks that depend on the shape alone, then their sums pairwise; elsewhere NumPy adds.
    """
    if (summing := kernels(x)) is None:
        return x.sum(axis=axes, keepdims=keepdims)
    kept = [a for a in range(x.ndim) if a not in axes]
    if x.size < 256 or not x.flags.c_contiguous or (kept and kept[-1] - kept[0] >= len(kept)):
        return x.sum(axis=axes, keepdims=keepdims, dtype=FLOAT64).astype(x.dtype)
    first, end = (kept[0], kept[-1] + 1) if kept else (0, 0)
    outer, inner = math.prod(x.shape[:first]), math.prod(x.shape[end:])
    sums = summing.channel_sum(x.reshape(outer, math.prod(x.shape[first:end]), inner))
    return sums.reshape(tuple(1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a not in axes))


class Reshape(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, shape: Shape) -> Any:
        ctx.shape = x.shape
        return x.reshape(shape)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return Reshape.apply(dy, shape=ctx.shape)


class Transpose(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, axes: Shape) -> Any:
        ctx.axes = axes
        return x.transpose(axes)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        back = sorted(range(len(ctx.axes)), key=ctx.axes.__getitem__)
        return Transpose.apply(dy, axes=tuple(back))


class Sum(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, axes: Shape, keepdims: bool) -> Any:
        ctx.shape, ctx.axes = x.shape, axes
        return total(x, axes, keepdims)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        kept = tuple(1 if i in ctx.axes else n for i, n in enumerate(ctx.shape))
        return BroadcastTo.apply(reshape(dy, kept), shape=ctx.shape)


class Mean(Function):
    """The sum over the number; of nothing it is NaN."""

    @staticmethod
    def forward(ctx: Context, x: Any, *, axes: Shape, keepdims: bool) -> Any:
        ctx.shape, ctx.axes = x.shape, axes
        count = x.dtype.type(math.prod(x.shape[a] for a in axes))
        return total(x, axes, keepdims) / count if count else total(x, axes, keepdims) + x.dtype.type(math.nan)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        kept = tuple(1 if i in ctx.axes else n for i, n in enumerate(ctx.shape))
        count = math.prod(ctx.shape[a] for a in ctx.axes)
        return BroadcastTo.apply(reshape(dy, kept) / float(count or 1), shape=ctx.shape)


class BroadcastTo(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, shape: Shape) -> Any:
        ctx.shape = x.shape
        return namespace(x).broadcast_to(x, shape)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return sum_to(dy, ctx.shape)


class GetItem(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, index: Any) -> Any:
        ctx.shape, ctx.index = x.shape, index
        return x[index]

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return PutItem.apply(dy, index=ctx.index, shape=ctx.shape)


def add_at(dx: Any, index: Any, dy: Any) -> None:
    """Add dy to `dx[index]`, an element taken twice receiving both, always in the same order."""
    if isinstance(dx, np.ndarray):
        np.add.at(dx, index, dy)
        return
    # CuPy's own adds by atomics, in any order.
    xp = namespace(dx)
    places = xp.arange(dx.size).reshape(dx.shape)[index].reshape(1, 1, -1)
    values = xp.broadcast_to(dy, dx[index].shape).reshape(1, 1, -1)
    dx += (
        native(dx).scatter_positions(values, places, (1, 1, dx.size), "channels_first", 0, current()).reshape(dx.shape)
    )


class PutItem(Function):
    """Zeros of `shape` with dy added at `index`: an element taken twice receives both."""

    @staticmethod
    def forward(ctx: Context, dy: Any, *, index: Any, shape: Shape) -> Any:
        ctx.index = index
        xp = namespace(dy)
        dx = xp.zeros(shape, dy.dtype)
        if _is_basic(index):
            dx[index] = dy
        else:
            add_at(dx, index, dy)
        return dx

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        return GetItem.apply(g, index=ctx.index)


class Concat(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, *parts: Any, axis: int) -> Any:
        ctx.axis, ctx.lengths = axis, [p.shape[axis] for p in parts]
        return namespace(parts[0]).concatenate(parts, axis)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        gradients, start = [], 0
        for length, needed in zip(ctx.lengths, ctx.needs_input_grad, strict=True):
            cut = (slice(None),) * ctx.axis + (slice(start, start + length),)
            gradients.append(getitem(dy, cut) if needed else None)
            start += length
        return tuple(gradients)


def _is_basic(index: Any) -> bool:
    entries = index if isinstance(index, tuple) else (index,)
    return all(e is None or e is Ellipsis or (isinstance(e, int | slice) and not isinstance(e, bool)) for e in entries)


def axes_of(axis: Any, ndim: int, caller: str) -> Shape:
    """Axes as distinct numbers from 0; None means all."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    if any(not -ndim <= a < ndim for a in axes):
        raise ProblemError(f"{caller}: axis is {axis}; expected {-ndim} to {ndim - 1} for {ndim} dimensions")
    distinct = tuple(sorted({a % ndim for a in axes}))
    if len(distinct) != len(axes):
        raise ProblemError(f"{caller}: axis {axis} names an axis twice")
    return distinct


def _shape_of(shape: tuple[Any, ...]) -> Shape:
    """(2, 3) of both f(2, 3) and f((2, 3))."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


def reshape(x: Any, *shape: Any) -> Tensor:
    """The same elements in another shape, a view where the strides allow it; one length may be -1."""
    x, wanted = as_tensor(x), _shape_of(shape)
    if wanted == x.shape:
        return x
    known = math.prod(n for n in wanted if n != -1)
    unknown = wanted.count(-1)
    if unknown > 1 or (x.size != known if not unknown else not known or x.size % known):
        raise ProblemError(
            f"reshape: shape is {wanted}; expected {x.size} elements as in {x.shape}, and at most one -1"
        )
    return Reshape.apply(x, shape=wanted)


def transpose(x: Any, *axes: Any) -> Tensor:
    """The axes in this order, a view; without any, reversed. (NumPy's rule: PyTorch's `transpose` is `swapaxes`.)"""
    x, order = as_tensor(x), _shape_of(axes) or tuple(reversed(range(as_tensor(x).ndim)))
    if sorted(a % x.ndim if x.ndim else a for a in order) != list(range(x.ndim)):
        raise ProblemError(f"transpose: axes {order}; expected each of 0 to {x.ndim - 1} once")
    return Transpose.apply(x, axes=tuple(a % x.ndim for a in order))


def swapaxes(x: Any, first: int, second: int) -> Tensor:
    """Two axes exchanged, a view."""
    x = as_tensor(x)
    (a,), (b,) = axes_of(first, x.ndim, "swapaxes"), axes_of(second, x.ndim, "swapaxes")
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return transpose(x, *order)


def flatten(x: Any, start: int = 0, end: int = -1) -> Tensor:
    """The axes start to end (inclusive) merged into one; a number becomes one axis."""
    x = as_tensor(x)
    if x.ndim == 0:
        return reshape(x, 1)
    (first,), (last,) = axes_of(start, x.ndim, "flatten"), axes_of(end, x.ndim, "flatten")
    if first > last:
        raise ProblemError(f"flatten: start is {start}, end is {end}; expected start to come first")
    merged = math.prod(x.shape[first : last + 1])
    return reshape(x, (*x.shape[:first], merged, *x.shape[last + 1 :]))


def squeeze(x: Any, axis: Any = None) -> Tensor:
    """Without the axes of length 1: all of them, or those named, which must have length 1."""
    x = as_tensor(x)
    if axis is None:
        return reshape(x, tuple(n for n in x.shape if n != 1))
    axes = axes_of(axis, x.ndim, "squeeze")
    if any(x.shape[a] != 1 for a in axes):
        raise ProblemError(f"squeeze: axis is {axis} for shape {x.shape}; expected axes of length 1")
    return reshape(x, tuple(n for a, n in enumerate(x.shape) if a not in axes))


def unsqueeze(x: Any, axis: int) -> Tensor:
    """A new axis of length 1 that becomes axis `axis`."""
    x = as_tensor(x)
    (at,) = axes_of(axis, x.ndim + 1, "unsqueeze")
    return reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


def flip(x: Any, axis: Any = None) -> Tensor:
    """Reversed along the given axes, all by default; a view."""
    x = as_tensor(x)
    axes = axes_of(axis, x.ndim, "flip")
    return getitem(x, tuple(slice(None, None, -1) if a in axes else slice(None) for a in range(x.ndim)))


def roll(x: Any, shift: int, axis: int) -> Tensor:
    """Moved by `shift` places along an axis; what leaves at the end comes in at the beginning."""
    x = as_tensor(x)
    (axis,) = axes_of(axis, x.ndim, "roll")
    length = x.shape[axis]
    if not length or not shift % length:
        return x
    whole, cut = (slice(None),) * axis, length - shift % length
    return concat([getitem(x, (*whole, slice(cut, None))), getitem(x, (*whole, slice(cut)))], axis)


def tile(x: Any, *repeats: Any) -> Tensor:
    """x repeated `repeats` times along each axis; new axes come first. PyTorch's `repeat`."""
    x, times = as_tensor(x), _shape_of(repeats)
    if len(times) < x.ndim or any(n < 0 for n in times):
        raise ProblemError(f"tile: repeats is {times}; expected at least {x.ndim} numbers from 0 up, one per axis")
    shape = (1,) * (len(times) - x.ndim) + x.shape
    apart = reshape(x, tuple(n for length in shape for n in (1, length)))
    spread = broadcast_to(apart, tuple(n for pair in zip(times, shape, strict=True) for n in pair))
    return reshape(spread, tuple(r * n for r, n in zip(times, shape, strict=True)))


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over the given axes, all by default."""
    x = as_tensor(x)
    return Sum.apply(x, axes=axes_of(axis, x.ndim, "sum"), keepdims=keepdims)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean over the given axes, all by default; NaN over nothing."""
    x = as_tensor(x)
    if x.dtype.kind in "biu":
        raise TypeError(f"mean: x has dtype {x.dtype}; expected a float: use .astype(numpy.float32)")
    return Mean.apply(x, axes=axes_of(axis, x.ndim, "mean"), keepdims=keepdims)


def broadcast_to(x: Any, *shape: Any) -> Tensor:
    """x repeated along new axes and axes of length 1, a read-only view. -1 keeps a length. PyTorch's `expand`."""
    x, wanted = as_tensor(x), _shape_of(shape)
    new = len(wanted) - x.ndim
    full = tuple(x.shape[i - new] if n == -1 and i >= new else n for i, n in enumerate(wanted))
    if new < 0 or any(n < 0 for n in full) or any(m not in (1, n) for m, n in zip(x.shape, full[new:], strict=True)):
        raise ProblemError(f"broadcast_to: shape is {wanted}, x has {x.shape}; expected axes of length 1 or equal ones")
    return x if x.shape == full else BroadcastTo.apply(x, shape=full)


def sum_to(x: Tensor, shape: Shape) -> Tensor:
    """The adjoint of `broadcast_to`: x summed until it has `shape`."""
    if x.shape == shape:
        return x
    new = x.ndim - len(shape)
    axes = tuple(range(new)) + tuple(new + i for i, n in enumerate(shape) if n == 1 and x.shape[new + i] != 1)
    return reshape(sum(x, axes, keepdims=True), shape)


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index], with any index that the array takes: slices give a view, arrays of integers or bool a copy."""
    several = isinstance(index, tuple)
    parts = tuple(beside(plain(i), x.data) for i in (index if several else (index,)))
    return GetItem.apply(x, index=parts if several else parts[0])


def concat(parts: Any, axis: int = 0) -> Tensor:
    """The parts one after the other along `axis`."""
    tensors = [as_tensor(p) for p in parts]
    if not tensors:
        raise ProblemError("concat: there are no parts; expected at least one")
    (axis,) = axes_of(axis, tensors[0].ndim, "concat")
    if any(t.dtype != tensors[0].dtype for t in tensors):
        raise TypeError(f"concat: the parts have dtypes {[str(t.dtype) for t in tensors]}; expected one dtype")
    shapes = [t.shape for t in tensors]
    if len({(*s[:axis], -1, *s[axis + 1 :]) for s in shapes}) > 1:
        raise ProblemError(f"concat: the parts have shapes {shapes}; expected equal ones but for axis {axis}")
    return Concat.apply(*tensors, axis=axis)
