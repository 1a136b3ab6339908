# SPDX-License-Identifier: Apache-2.0
"""Moving, cutting, joining and summing. Every operation here is linear and each gradient is the adjoint movement."""

import math
from typing import Any

from .._core import ProblemError
from ..arrays import namespace
from ..autograd import Context, Function
from ..tensor import Tensor, as_tensor

Shape = tuple[int, ...]


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
        return x.sum(axis=axes, keepdims=keepdims)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        kept = tuple(1 if i in ctx.axes else n for i, n in enumerate(ctx.shape))
        return BroadcastTo.apply(reshape(dy, kept), shape=ctx.shape)


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
            xp.add.at(dx, index, dy)
        return dx

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        return GetItem.apply(g, index=ctx.index)


class TakeLast(Function):
    """One element of the last axis, at `indices`."""

    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, indices: Any) -> Any:
        ctx.indices, ctx.length = indices, x.shape[-1]
        return namespace(x).take_along_axis(x, indices[..., None], -1)[..., 0]

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return PutLast.apply(dy, indices=ctx.indices, length=ctx.length)


class PutLast(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, dy: Any, *, indices: Any, length: int) -> Any:
        ctx.indices = indices
        xp = namespace(dy)
        dx = xp.zeros((*dy.shape, length), dy.dtype)
        xp.put_along_axis(dx, indices[..., None], dy[..., None], -1)
        return dx

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        return TakeLast.apply(g, indices=ctx.indices)


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


class Pad(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, widths: tuple[tuple[int, int], ...], value: float) -> Any:
        ctx.cut = tuple(slice(begin, begin + n) for (begin, _), n in zip(widths, x.shape, strict=True))
        return namespace(x).pad(x, widths, constant_values=value)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return getitem(dy, ctx.cut)


def _is_basic(index: Any) -> bool:
    entries = index if isinstance(index, tuple) else (index,)
    return all(e is None or e is Ellipsis or (isinstance(e, int | slice) and not isinstance(e, bool)) for e in entries)


def _axes(axis: Any, ndim: int, caller: str) -> Shape:
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


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape; one length may be -1."""
    wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    return x if wanted == x.shape else Reshape.apply(x, shape=wanted)


def transpose(x: Tensor, *axes: int) -> Tensor:
    """The axes in this order; without any, reversed."""
    order = tuple(axes) if axes else tuple(reversed(range(x.ndim)))
    if sorted(a % x.ndim if x.ndim else a for a in order) != list(range(x.ndim)):
        raise ProblemError(f"transpose: axes {order}; expected each of 0 to {x.ndim - 1} once")
    return Transpose.apply(x, axes=tuple(a % x.ndim for a in order))


def flatten(x: Tensor, start: int = 0, end: int = -1) -> Tensor:
    """The axes start to end (inclusive) merged into one."""
    first, last = start % x.ndim, end % x.ndim
    if first > last:
        raise ProblemError(f"flatten: start is {start}, end is {end}; expected start to come first")
    merged = math.prod(x.shape[first : last + 1])
    return reshape(x, (*x.shape[:first], merged, *x.shape[last + 1 :]))


def sum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over the given axes, all by default."""
    return Sum.apply(x, axes=_axes(axis, x.ndim, "sum"), keepdims=keepdims)


def mean(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean over the given axes, all by default."""
    axes = _axes(axis, x.ndim, "mean")
    return sum(x, axes, keepdims) * (1.0 / math.prod(x.shape[a] for a in axes))


def max(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest element over the given axes; the gradient goes to the first of equal ones."""
    axes = _axes(axis, x.ndim, "max")
    others = tuple(a for a in range(x.ndim) if a not in axes)
    kept = tuple(x.shape[a] for a in others)
    rows = reshape(transpose(x, *others, *axes), (*kept, math.prod(x.shape[a] for a in axes)))
    y = TakeLast.apply(rows, indices=namespace(x.data).asarray(rows.data.argmax(-1)))
    return reshape(y, tuple(1 if a in axes else n for a, n in enumerate(x.shape))) if keepdims else y


def broadcast_to(x: Tensor, shape: Shape) -> Tensor:
    """x repeated along new axes and axes of length 1."""
    return x if x.shape == shape else BroadcastTo.apply(x, shape=shape)


def sum_to(x: Tensor, shape: Shape) -> Tensor:
    """The adjoint of `broadcast_to`: x summed until it has `shape`."""
    if x.shape == shape:
        return x
    new = x.ndim - len(shape)
    axes = tuple(range(new)) + tuple(new + i for i, n in enumerate(shape) if n == 1 and x.shape[new + i] != 1)
    return reshape(sum(x, axes, keepdims=True), shape)


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index], with any index that the array takes."""
    if isinstance(index, Tensor):
        index = index.data
    elif isinstance(index, tuple):
        index = tuple(i.data if isinstance(i, Tensor) else i for i in index)
    return GetItem.apply(x, index=index)


def concat(parts: Any, axis: int = 0) -> Tensor:
    """The parts one after the other along `axis`."""
    tensors = [as_tensor(p) for p in parts]
    if not tensors:
        raise ProblemError("concat: there are no parts; expected at least one")
    (axis,) = _axes(axis, tensors[0].ndim, "concat")
    if any(t.dtype != tensors[0].dtype for t in tensors):
        raise TypeError(f"concat: the parts have dtypes {[str(t.dtype) for t in tensors]}; expected one dtype")
    return Concat.apply(*tensors, axis=axis)


def pad(x: Tensor, widths: Any, value: float = 0.0) -> Tensor:
    """x with a border of `value`; `widths` has (begin, end) for each axis."""
    pairs = tuple((int(begin), int(end)) for begin, end in widths)
    if len(pairs) != x.ndim:
        raise ProblemError(f"pad: widths has {len(pairs)} pairs; expected {x.ndim}, one per axis")
    return Pad.apply(x, widths=pairs, value=value)
