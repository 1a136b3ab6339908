# SPDX-License-Identifier: Apache-2.0
"""Borders: constant, reflect, replicate, circular, and their adjoints, which fold a border back onto its sources.

Axis by axis, each a copy of slices (forward) or a sum of slices (backward): no index arrays, a fixed order of sums.
Negative widths crop, before the rest is padded.
"""

from collections.abc import Iterator
from typing import Any

from .._core import ProblemError
from ..arrays import namespace
from ..autograd import Context, Function
from ..tensor import Tensor, as_tensor

Pairs = tuple[tuple[int, int], ...]
MODES = ("constant", "reflect", "replicate", "circular")


class Pad(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, widths: Pairs, mode: str, value: float) -> Any:
        ctx.static = {"widths": widths, "mode": mode, "shape": x.shape}
        kept, centre = _kept(x.shape, widths), _centre(x.shape, widths)
        xp = namespace(x)
        y = xp.empty(_padded(x.shape, widths), x.dtype)
        y[centre] = x[kept]
        for axis in range(x.ndim):
            # The axes before this one are complete, those behind it have their centre only.
            before, behind = (slice(None),) * axis, centre[axis + 1 :]
            if mode == "constant":
                y[(*before, slice(0, centre[axis].start), *behind)] = value
                y[(*before, slice(centre[axis].stop, None), *behind)] = value
            else:
                for target, source in _borders(mode, centre[axis], y.shape[axis]):
                    y[(*before, target, *behind)] = y[(*before, source, *behind)]
        return y

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return Fold.apply(dy, **ctx.static)


class Fold(Function):
    """The adjoint of Pad: every cell of the border is added to the one that it was copied from; constants vanish."""

    @staticmethod
    def forward(ctx: Context, dy: Any, *, widths: Pairs, mode: str, shape: tuple[int, ...]) -> Any:
        ctx.static = {"widths": widths, "mode": mode, "value": 0.0}
        kept, centre = _kept(shape, widths), _centre(shape, widths)
        xp = namespace(dy)
        if mode != "constant":
            dy = dy.copy()
            for axis in reversed(range(dy.ndim)):
                before, behind = (slice(None),) * axis, centre[axis + 1 :]
                for target, source in _borders(mode, centre[axis], dy.shape[axis]):
                    border = dy[(*before, target, *behind)]
                    if mode == "replicate":
                        border = border.sum(axis, keepdims=True)
                    dy[(*before, source, *behind)] += border
        if all(begin >= 0 and end >= 0 for begin, end in widths):
            return dy[centre]
        dx = xp.zeros(shape, dy.dtype)
        dx[kept] = dy[centre]
        return dx

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        return Pad.apply(g, **ctx.static)


def _padded(shape: tuple[int, ...], widths: Pairs) -> tuple[int, ...]:
    return tuple(n + begin + end for n, (begin, end) in zip(shape, widths, strict=True))


def _kept(shape: tuple[int, ...], widths: Pairs) -> tuple[slice, ...]:
    """What of x is not cropped."""
    return tuple(slice(max(0, -begin), n - max(0, -end)) for n, (begin, end) in zip(shape, widths, strict=True))


def _centre(shape: tuple[int, ...], widths: Pairs) -> tuple[slice, ...]:
    """Where in y that lies."""
    padded = _padded(shape, widths)
    return tuple(slice(max(0, begin), n - max(0, end)) for n, (begin, end) in zip(padded, widths, strict=True))


def _borders(mode: str, centre: slice, size: int) -> Iterator[tuple[slice, slice]]:
    """(border, the cells of the centre that it repeats) along one axis of y, for the two ends."""
    first, stop = centre.start, centre.stop
    begin, end = first, size - stop
    if begin:
        source = {
            "reflect": slice(2 * begin, begin, -1),
            "replicate": slice(first, first + 1),
            "circular": slice(stop - begin, stop),
        }[mode]
        yield slice(0, begin), source
    if end:
        last = stop - 2 - end
        source = {
            "reflect": slice(stop - 2, last if last >= 0 else None, -1),
            "replicate": slice(stop - 1, stop),
            "circular": slice(first, first + end),
        }[mode]
        yield slice(stop, size), source


def pad(x: Any, widths: Any, value: float = 0.0, mode: str = "constant") -> Tensor:
    """x with a border.

    Args:
        widths: (begin, end) for each axis, the first axis first; negative ones crop.
        value: of a constant border.
        mode: "constant"; "reflect" (about the edge cell, which is not repeated); "replicate" (the edge cell);
            "circular" (the other end).

    Raises:
        ProblemError: widths for another number of axes; a border wider than what the mode can copy: reflect needs one
            cell more than the border, circular as many, replicate one; an axis that would be cropped away.
    """
    x = as_tensor(x)
    pairs = tuple((int(begin), int(end)) for begin, end in widths)
    if mode not in MODES:
        raise ProblemError(f"pad: mode is {mode!r}; expected one of {', '.join(MODES)}")
    if len(pairs) != x.ndim:
        raise ProblemError(f"pad: widths has {len(pairs)} pairs; expected {x.ndim}, one per axis")
    for axis, (n, (begin, end)) in enumerate(zip(x.shape, pairs, strict=True)):
        left = n + min(begin, 0) + min(end, 0)
        if left < 0 or n + begin + end < 0:
            raise ProblemError(f"pad: axis {axis} has {n} cells and widths {begin, end}; expected to keep 0 or more")
        widest = max(begin, end, 0)
        needed = {"constant": 0, "reflect": widest + 1, "replicate": 1, "circular": widest}[mode] if widest else 0
        if left < needed:
            raise ProblemError(
                f"pad: mode {mode!r} with widths {begin, end} needs {needed} cells in axis {axis}, x has {left}"
            )
    return Pad.apply(x, widths=pairs, mode=mode, value=value) if any(map(any, pairs)) else x
