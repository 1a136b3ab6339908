# SPDX-License-Identifier: Apache-2.0
"""Conv, ConvTranspose, Col2Im."""

from typing import Any

from ... import columns, primitives, transposed
from ...geometry import conv_geometry
from ...ops import pad
from ...transposed_geometry import transposed_geometry
from ..node import Node, Shape, Value, ints, spatial_rank

WORDS = {"VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}


def padding_of(node: Node, auto_pad: str, pads: Any, rank: int) -> Any:
    """`auto_pad` and `pads` as the padding of `fc.conv2d`: a word, or (begin, end) per axis."""
    if auto_pad in WORDS:
        return WORDS[auto_pad]
    if auto_pad not in ("NOTSET", ""):
        raise node.problem(f"auto_pad is {auto_pad!r}; expected NOTSET or one of {', '.join(WORDS)}")
    pads = ints(node, pads or (0,) * (2 * rank), "pads")
    if len(pads) != 2 * rank:
        raise node.problem(f"pads is {pads}; expected {2 * rank} numbers")
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def allow_padded(node: Node, x: Value, padding: Any) -> None:
    """Refuse a border that would make x itself too large."""
    if not isinstance(padding, str):
        plane = (n + begin + end for n, (begin, end) in zip(x.shape[2:], padding, strict=True))
        node.allow((*x.shape[:2], *plane), x.dtype.itemsize)


def check_kernel_shape(node: Node, kernel_shape: Any, w: Value) -> None:
    """`kernel_shape` repeats what w says."""
    if kernel_shape is not None and ints(node, kernel_shape, "kernel_shape") != w.shape[2:]:
        raise node.problem(f"kernel_shape is {kernel_shape}, w has shape {w.shape}; expected the same filter")


def conv(node: Node, x: Value, w: Value, b: Value = None, *, auto_pad: str = "NOTSET", dilations: Any = None,
         group: int = 1, kernel_shape: Any = None, pads: Any = None, strides: Any = None) -> Value:  # fmt: skip
    rank = spatial_rank(node, x)
    check_kernel_shape(node, kernel_shape, w)
    stride, dilation = (ints(node, v or (1,) * rank, n) for v, n in ((strides, "strides"), (dilations, "dilations")))
    padding = padding_of(node, auto_pad, pads, rank)
    allow_padded(node, x, padding)
    name = f"conv{rank}d"
    g = conv_geometry(name, rank, x.shape, w.shape, stride, padding, dilation, group, "channels_first")
    node.allow(g.y_shape, x.dtype.itemsize)
    return getattr(primitives, name)(x, w, b, stride, padding, dilation, group)


def conv_transpose(node: Node, x: Value, w: Value, b: Value = None, *, auto_pad: str = "NOTSET",
                   dilations: Any = None, group: int = 1, kernel_shape: Any = None, output_padding: Any = None,
                   output_shape: Any = None, pads: Any = None, strides: Any = None) -> Value:  # fmt: skip
    rank = spatial_rank(node, x)
    check_kernel_shape(node, kernel_shape, w)
    stride, dilation = (ints(node, v or (1,) * rank, n) for v, n in ((strides, "strides"), (dilations, "dilations")))
    extra = ints(node, output_padding or (0,) * rank, "output_padding")
    if output_shape is not None or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = None if output_shape is None else ints(node, output_shape, "output_shape")[-rank:]
        plane = wanted or tuple(n * s for n, s in zip(x.shape[2:], stride, strict=True))
        padding, extra = _padding_for(plane, x.shape, w.shape, stride, dilation, extra, auto_pad)
    else:
        padding = padding_of(node, auto_pad, pads, rank)
    name = f"conv_transpose{rank}d"
    t = transposed_geometry(name, rank, x.shape, w.shape, stride, padding, extra, group, dilation, None,
                            "channels_first")  # fmt: skip
    node.allow(t.forward.x_shape, x.dtype.itemsize)
    return getattr(transposed, name)(x, w, b, stride, padding, extra, group, dilation)


def _padding_for(plane: Shape, x_shape: Shape, w_shape: Shape, stride: Shape, dilation: Shape, extra: Shape,
                 auto_pad: str) -> tuple[Any, Shape]:  # fmt: skip
    """(padding, output_padding) that give this plane; an odd cell of padding goes to the end with SAME_UPPER alone."""
    pairs, more = [], []
    for m, n, f, s, d, e in zip(plane, x_shape[2:], w_shape[2:], stride, dilation, extra, strict=True):
        total = (n - 1) * s + e + (f - 1) * d + 1 - m
        small, large = max(total, 0) // 2, max(total, 0) - max(total, 0) // 2
        pairs.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
        more.append(e + max(-total, 0))
    return tuple(pairs), tuple(more)


def col2im(node: Node, x: Value, image_shape: Value, block_shape: Value, *, dilations: Any = None, pads: Any = None,
           strides: Any = None) -> Value:  # fmt: skip
    size, block = ints(node, image_shape, "image_shape"), ints(node, block_shape, "block_shape")
    rank = len(size)
    if not 1 <= rank <= 3:
        raise node.unsupported(f"the image has {rank} axes; fastconv has 1 to 3")
    stride, dilation = (ints(node, v or (1,) * rank, n) for v, n in ((strides, "strides"), (dilations, "dilations")))
    taps = 1
    for n in block:
        taps *= n
    node.allow((x.shape[0], x.shape[1] // max(taps, 1), *size), x.dtype.itemsize)
    pairs = padding_of(node, "NOTSET", pads, rank)
    return columns.col2im(x, size, block, dilation, pairs, stride)


def pad_end(x: Value, plane: Shape) -> Value:
    """Zeros after the spatial axes of x, up to this plane."""
    grown = tuple((0, m - n) for m, n in zip(plane, x.shape[2:], strict=True))
    return pad(x, ((0, 0), (0, 0), *grown))
