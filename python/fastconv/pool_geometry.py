# SPDX-License-Identifier: Apache-2.0
"""From the words of a pooling call to a native problem, checked; cached like `conv_geometry`."""

from typing import Any, NamedTuple

from ._core import PoolProblem, ProblemError
from .geometry import AXES, Shape, as_int, join, output_plane, paddings, per_axis, remember, split_shape

_NO_SIZE = "expected no axis of length 0"


class PoolGeometry(NamedTuple):
    """One pooling: shapes with a batch axis, and what the native module runs."""

    problem: PoolProblem
    sums: PoolProblem  # the same windows, summed up: norms are differentiated with it
    x_shape: Shape
    y_shape: Shape
    layout: str
    batched: bool  # False: the caller's x has no batch axis


def _image(caller: str, rank: int, x_shape: Shape, layout: str) -> tuple[Shape, bool, int, Shape]:
    full, batched, channels, size = split_shape(x_shape, "x", caller, rank, layout)
    if 0 in size:
        raise ProblemError(f"{caller}: x has the plane {size}; {_NO_SIZE}")
    return full, batched, channels, size


@remember
def pool_geometry(
    caller: str, kind: str, rank: int, x_shape: Shape, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, count_include_pad: bool, divisor: Any, layout: str,
) -> PoolGeometry:  # fmt: skip
    """Windows of one size. Padding may be anything below the window's span (PyTorch: half the window).

    Raises:
        ProblemError, TypeError: naming the argument, what came and what was expected.
    """
    full, batched, channels, size = _image(caller, rank, x_shape, layout)
    window = per_axis(kernel_size, "kernel_size", caller, rank)
    strides = window if stride is None else per_axis(stride, "stride", caller, rank)
    dilations = per_axis(dilation, "dilation", caller, rank)
    begin, end = paddings(padding, caller, size, window, strides, dilations)
    for axis, f, d, b, e in zip(AXES[rank], window, dilations, begin, end, strict=True):
        if max(b, e) > (f - 1) * d:
            raise ProblemError(
                f"{caller}: padding is {max(b, e)} along {axis}, the window spans {(f - 1) * d + 1}; expected less "
                "than that, or a window would lie wholly in the padding"
            )
    plane = output_plane(caller, size, window, strides, dilations, begin, end, "window", ceil_mode)
    number = 0 if divisor is None else as_int(divisor, "divisor_override", caller, 1)

    def problem(kind: str, divisor: int) -> PoolProblem:
        return PoolProblem(kind, full, window, strides, begin, end, dilations, ceil_mode, count_include_pad, divisor,
                           layout=layout)  # fmt: skip

    try:
        problems = problem(kind, number), problem("average", 1)
    except ProblemError as error:
        raise ProblemError(f"{caller}: {error}") from None
    return PoolGeometry(*problems, full, join(full[0], channels, plane, layout), layout, batched)


@remember
def adaptive_geometry(caller: str, kind: str, rank: int, x_shape: Shape, output_size: Any, layout: str) -> PoolGeometry:
    """So many windows that they cover x: output o of an axis sees [floor(o n / size), ceil((o + 1) n / size)).

    output_size: an int, or one entry per axis, where None keeps the axis as it is.
    """
    full, batched, channels, size = _image(caller, rank, x_shape, layout)
    entries = output_size if isinstance(output_size, list | tuple) else (output_size,) * rank
    if len(entries) != rank:
        raise ProblemError(
            f"{caller}: output_size has {len(entries)} entries; expected an int, None, or {rank}, one per axis"
        )
    plane = tuple(n if o is None else as_int(o, "output_size", caller, 1) for o, n in zip(entries, size, strict=True))

    def problem(kind: str, divisor: int) -> PoolProblem:
        return PoolProblem(kind, full, (), (), (), (), (), divisor=divisor, output=plane, layout=layout)

    y_shape = join(full[0], channels, plane, layout)
    return PoolGeometry(problem(kind, 0), problem("average", 1), full, y_shape, layout, batched)


@remember
def unpool_shape(
    caller: str, rank: int, x_shape: Shape, kernel_size: Any, stride: Any, padding: Any, output_size: Any, layout: str
) -> tuple[Shape, Shape, bool]:
    """(shape of x, shape of the unpooled y, batched), both shapes with a batch axis.

    The default plane is (n - 1) * stride - padding + kernel_size; output_size may differ by less than the stride.
    """
    full, batched, channels, size = _image(caller, rank, x_shape, layout)
    window = per_axis(kernel_size, "kernel_size", caller, rank)
    strides = window if stride is None else per_axis(stride, "stride", caller, rank)
    begin, end = paddings(padding, caller, size, window, strides, (1,) * rank)
    usual = tuple((n - 1) * s - b - e + k for n, s, b, e, k in zip(size, strides, begin, end, window, strict=True))
    plane = usual
    if output_size is not None:
        entries = tuple(output_size) if isinstance(output_size, list | tuple) else (output_size,) * rank
        if len(entries) in (rank + 1, rank + 2):  # a whole shape, as x.shape of the pooled x
            entries = entries[-rank - 1 : -1] if layout == "channels_last" else entries[-rank:]
        if len(entries) != rank:
            raise ProblemError(
                f"{caller}: output_size has {len(entries)} entries; expected {rank}, one per axis, or a whole shape"
            )
        plane = tuple(as_int(o, "output_size", caller, 1) for o in entries)
        for axis, o, u, s in zip(AXES[rank], plane, usual, strides, strict=True):
            if abs(o - u) >= s:
                raise ProblemError(
                    f"{caller}: output_size is {o} along {axis}; expected {u - s + 1} to {u + s - 1}, within the "
                    "stride of what kernel_size, stride and padding give"
                )
    if min(plane) < 1:
        raise ProblemError(f"{caller}: the unpooled plane is {plane}; {_NO_SIZE}, so less padding")
    return full, join(full[0], channels, plane, layout), batched
