# SPDX-License-Identifier: Apache-2.0
"""Elements by their indices, joining and cutting along an axis. Slices are views, index arrays copy, as in NumPy."""

import itertools
from typing import Any

import numpy as np

from .._core import ProblemError
from ..arrays import beside, namespace
from ..autograd import Context, Function
from ..tensor import Tensor, as_tensor, plain
from .shape import Shape, add_at, axes_of, concat, getitem, reshape


class TakeAlong(Function):
    """x at `indices` along an axis, NumPy's take_along_axis; unique: no element is taken twice."""

    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, indices: Any, axis: int, unique: bool) -> Any:
        ctx.shape, ctx.words = x.shape, {"indices": indices, "axis": axis, "unique": unique}
        return namespace(x).take_along_axis(x, indices, axis)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return PutAlong.apply(dy, shape=ctx.shape, **ctx.words)


class PutAlong(Function):
    """Zeros of `shape` with dy added at `indices` along an axis."""

    takes_half = True

    @staticmethod
    def forward(ctx: Context, dy: Any, *, indices: Any, axis: int, unique: bool, shape: Shape) -> Any:
        ctx.words = {"indices": indices, "axis": axis, "unique": unique}
        xp = namespace(dy)
        dx = xp.zeros(shape, dy.dtype)
        if unique:
            xp.put_along_axis(dx, indices, dy, axis)
        else:
            places = [
                xp.arange(n).reshape(tuple(-1 if a == b else 1 for b in range(dy.ndim))) for a, n in enumerate(dy.shape)
            ]
            places[axis] = indices
            add_at(dx, tuple(places), dy)
        return dx

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        return TakeAlong.apply(g, **ctx.words)


def _indices(caller: str, x: Tensor, indices: Any, axis: int) -> Any:
    """The indices as int64, counted from the front."""
    indices = plain(indices)
    indices = beside(indices if hasattr(indices, "dtype") else np.asarray(indices), x.data)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{caller}: indices have dtype {indices.dtype}; expected integers: use .astype(numpy.int64)")
    length = x.shape[axis]
    if indices.size and not (-length <= indices.min() and indices.max() < length):
        raise ProblemError(
            f"{caller}: indices go from {indices.min()} to {indices.max()}; expected {-length} to {length - 1} "
            f"for axis {axis} of shape {x.shape}"
        )
    return indices.astype(np.int64) % length if length else indices.astype(np.int64)


def take_along_axis(x: Any, indices: Any, axis: int) -> Tensor:
    """x at `indices` along an axis: y[i, j] = x[i, indices[i, j]] for axis 1. An element taken twice adds up.

    Args:
        indices: integers with as many axes as x; the others have the length of x.

    Raises:
        ProblemError, TypeError: indices out of range, of another shape, or not integers.
    """
    x = as_tensor(x)
    (axis,) = axes_of(axis, x.ndim, "take_along_axis")
    found = _indices("take_along_axis", x, indices, axis)
    if found.ndim != x.ndim or any(
        a != axis and m != n for a, (m, n) in enumerate(zip(found.shape, x.shape, strict=True))
    ):
        raise ProblemError(
            f"take_along_axis: indices have shape {found.shape}, x {x.shape}; expected the same but for axis {axis}"
        )
    return TakeAlong.apply(x, indices=found, axis=axis, unique=False)


def gather(x: Any, axis: int, indices: Any) -> Tensor:
    """PyTorch's order of arguments for `take_along_axis`; indices may be shorter than x along the other axes."""
    x = as_tensor(x)
    (axis,) = axes_of(axis, x.ndim, "gather")
    shape = np.shape(plain(indices))
    if len(shape) != x.ndim or any(a != axis and m > n for a, (m, n) in enumerate(zip(shape, x.shape, strict=True))):
        raise ProblemError(
            f"gather: indices have shape {shape}, x {x.shape}; expected at most that but for axis {axis}"
        )
    cut = tuple(slice(None) if a == axis else slice(n) for a, n in enumerate(shape))
    return take_along_axis(getitem(x, cut), indices, axis)


def index_select(x: Any, axis: int, indices: Any) -> Tensor:
    """The slices of x at `indices` (one-dimensional) along an axis; one taken twice adds up."""
    x = as_tensor(x)
    (axis,) = axes_of(axis, x.ndim, "index_select")
    found = _indices("index_select", x, indices, axis)
    if found.ndim != 1:
        raise ProblemError(f"index_select: indices have shape {found.shape}; expected one dimension")
    return getitem(x, (slice(None),) * axis + (found,))


def stack(parts: Any, axis: int = 0) -> Tensor:
    """Parts of one shape side by side along a new axis."""
    tensors = [as_tensor(p) for p in parts]
    if not tensors:
        raise ProblemError("stack: there are no parts; expected at least one")
    shapes = [t.shape for t in tensors]
    if len(set(shapes)) > 1:
        raise ProblemError(f"stack: the parts have shapes {shapes}; expected one shape")
    (axis,) = axes_of(axis, tensors[0].ndim + 1, "stack")
    shape = (*shapes[0][:axis], 1, *shapes[0][axis:])
    return concat([reshape(t, shape) for t in tensors], axis)


def split(x: Any, size: Any, axis: int = 0) -> tuple[Tensor, ...]:
    """Views of x one after the other along an axis: `size` long each (the last may be shorter), or a length for each.

    Raises:
        ProblemError: a size below 1; lengths that do not add up to that of the axis.
    """
    x = as_tensor(x)
    (axis,) = axes_of(axis, x.ndim, "split")
    length = x.shape[axis]
    if isinstance(size, int):
        if size < 1:
            raise ProblemError(f"split: size is {size}; expected at least 1")
        lengths = [size] * (length // size) + ([length % size] if length % size or not length else [])
    else:
        lengths = list(size)
        if any(n < 0 for n in lengths) or np.sum(lengths, dtype=np.int64) != length:
            raise ProblemError(
                f"split: size is {tuple(lengths)}; expected lengths that add up to {length}, axis {axis}"
            )
    ends = np.cumsum([0, *lengths]).tolist()
    return tuple(getitem(x, (slice(None),) * axis + (slice(begin, end),)) for begin, end in itertools.pairwise(ends))


def chunk(x: Any, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of equal length along an axis, the last possibly shorter."""
    x = as_tensor(x)
    (axis,) = axes_of(axis, x.ndim, "chunk")
    if chunks < 1:
        raise ProblemError(f"chunk: chunks is {chunks}; expected at least 1")
    return split(x, -(-x.shape[axis] // chunks) or 1, axis)
