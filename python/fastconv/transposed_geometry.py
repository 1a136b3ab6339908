# SPDX-License-Identifier: Apache-2.0
"""The shapes and numbers of a transposed convolution, as those of the forward convolution whose adjoint it is.

Transposed, the input is the forward convolution's y and the result its x. Along each axis the result has

    (size - 1) * stride + (filter - 1) * dilation + 1 - pad_begin - pad_end + output_padding

cells. `output_padding` thereby only takes away padding at the end. Where it is larger than that padding, and by a
whole stride or more (possible with dilation > stride alone), the forward convolution has more outputs than there are
inputs: the `tail`, which is fed with zeros.
"""

from typing import Any, NamedTuple

from ._core import ProblemError
from .geometry import AXES, ConvGeometry, Shape, as_int, paddings, per_axis, remember, split_shape

WORDS = ("valid", "same", "same_lower")


class TransposedGeometry(NamedTuple):
    """`forward` has the result as x and the input, with its tail, as y."""

    forward: ConvGeometry
    tail: Shape  # zeros to append to the input, per spatial axis; rarely any

    def widths(self, layout: str) -> tuple[tuple[int, int], ...]:
        """The tail as `ops.pad` and `numpy.pad` take it, for an input with a batch axis."""
        spatial = tuple((0, t) for t in self.tail)
        return ((0, 0), (0, 0), *spatial) if layout == "channels_first" else ((0, 0), *spatial, (0, 0))


@remember
def transposed_geometry(
    caller: str, rank: int, x_shape: Shape, w_shape: Shape, stride: Any, padding: Any, output_padding: Any,
    groups: Any, dilation: Any, output_size: Any, layout: str,
) -> TransposedGeometry:  # fmt: skip
    """Check one transposed convolution's shapes.

    Raises:
        ProblemError, TypeError: naming the argument, what came and what was expected.
    """
    x_full, batched, channels, size = split_shape(x_shape, "x", caller, rank, layout)
    letters = ", ".join("TRS"[3 - rank :])
    if len(w_shape) != rank + 2:
        raise ProblemError(
            f"{caller}: w has {len(w_shape)} dimensions, shape {w_shape}; expected (C_in, C_out/groups, {letters})"
        )
    groups = as_int(groups, "groups", caller, 1)
    if w_shape[0] != channels:
        raise ProblemError(
            f"{caller}: w has {w_shape[0]} input channels, x has {channels}; expected w of shape "
            f"({channels}, C_out/groups, {letters})"
        )
    if channels % groups:
        raise ProblemError(f"{caller}: groups={groups} does not divide the {channels} channels of x")
    filter = w_shape[2:]
    if 0 in filter or 0 in size or w_shape[1] == 0:
        raise ProblemError(f"{caller}: x has the plane {size} and w the shape {w_shape}; expected no axis of length 0")
    strides = per_axis(stride, "stride", caller, rank)
    dilations = per_axis(dilation, "dilation", caller, rank)
    extra = per_axis(output_padding, "output_padding", caller, rank, 0)
    wanted = None if output_size is None else _plane(output_size, caller, rank, len(x_shape), layout)
    if wanted is not None and any(extra):
        raise ProblemError(f"{caller}: output_size and output_padding={output_padding} came both; expected one of them")

    if isinstance(padding, str) and padding != "valid":
        plane = _same_plane(padding, caller, size, strides, extra, wanted)
        begin, end = paddings(padding, caller, plane, filter, strides, dilations)
        tail = (0,) * rank
    else:
        begin, end = paddings(padding, caller, size, filter, strides, dilations)
        reach = [(f - 1) * d for f, d in zip(filter, dilations, strict=True)]
        least = tuple(
            (n - 1) * s + r + 1 - b - e for n, s, r, b, e in zip(size, strides, reach, begin, end, strict=True)
        )
        extra = _extra(caller, extra, wanted, least, strides, dilations)
        plane = tuple(n + o for n, o in zip(least, extra, strict=True))
        if min(plane) < 1:
            raise ProblemError(f"{caller}: padding leaves a result of the plane {plane}; expected less padding")
        tail = tuple(max(o - e, 0) // s for o, e, s in zip(extra, end, strides, strict=True))
        end = tuple(max(e - o, 0) for o, e in zip(extra, end, strict=True))

    def joined(channels: int, plane: Shape) -> Shape:
        return (x_full[0], channels, *plane) if layout == "channels_first" else (x_full[0], *plane, channels)

    inputs = tuple(n + t for n, t in zip(size, tail, strict=True))
    forward = ConvGeometry(joined(w_shape[1] * groups, plane), w_shape, joined(channels, inputs), strides, begin, end,
                           dilations, groups, batched)  # fmt: skip
    return TransposedGeometry(forward, tail)


def _plane(output_size: Any, caller: str, rank: int, ndim: int, layout: str) -> Shape:
    """The spatial sizes that were asked for: an int, one per axis, or a whole shape like that of x."""
    if isinstance(output_size, list | tuple) and len(output_size) == ndim != rank:
        output_size = output_size[ndim - rank :] if layout == "channels_first" else output_size[-1 - rank : -1]
    return per_axis(output_size, "output_size", caller, rank)


def _same_plane(word: str, caller: str, size: Shape, stride: Shape, extra: Shape, wanted: Shape | None) -> Shape:
    if word not in WORDS:
        known = ", ".join(map(repr, WORDS))
        raise ProblemError(f"{caller}: padding is {word!r}; expected a number, a tuple or one of {known}")
    if any(extra):
        raise ProblemError(
            f"{caller}: padding={word!r} decides the size; expected output_padding=0 (or an output_size)"
        )
    if wanted is None:
        return tuple(n * s for n, s in zip(size, stride, strict=True))
    for axis, m, n, s in zip(AXES[len(size)], wanted, size, stride, strict=True):
        if -(-m // s) != n:
            sizes = f"{(n - 1) * s + 1} to {n * s}"
            raise ProblemError(f"{caller}: output_size is {m} along {axis}; expected {sizes} with {word!r} padding")
    return wanted


def _extra(caller: str, extra: Shape, wanted: Shape | None, least: Shape, stride: Shape, dilation: Shape) -> Shape:
    """The output_padding, checked or from the output_size."""
    if wanted is not None:
        for axis, m, n, s in zip(AXES[len(least)], wanted, least, stride, strict=True):
            if not n <= m < n + s:
                raise ProblemError(f"{caller}: output_size is {m} along {axis}; expected {n} to {n + s - 1}")
        return tuple(m - n for m, n in zip(wanted, least, strict=True))
    for axis, o, s, d in zip(AXES[len(least)], extra, stride, dilation, strict=True):
        if o >= max(s, d):
            raise ProblemError(
                f"{caller}: output_padding is {o} along {axis}; expected less than stride {s} or dilation {d}"
            )
    return extra
