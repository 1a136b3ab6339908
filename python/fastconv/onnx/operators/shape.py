# SPDX-License-Identifier: Apache-2.0
"""The same elements in another shape or order, repeated, joined or bordered."""

import math
from typing import Any

import numpy as np

from ... import ops
from ...tensor import Tensor, as_tensor
from ..node import Node, Value, axes_of, axis_of, ints, like, number


def reshape(node: Node, x: Value, shape: Any, *, allowzero: int = 0, consumed_inputs: Any = None) -> Value:
    """0 keeps a length (unless allowzero), -1 is what is left."""
    wanted = ints(node, shape, "shape")
    if not allowzero:
        if any(n == 0 and a >= x.ndim for a, n in enumerate(wanted)):
            raise node.problem(f"shape is {wanted} for x of shape {x.shape}; a 0 stands where x has no axis")
        wanted = tuple(x.shape[a] if n == 0 else n for a, n in enumerate(wanted))
    if -1 in wanted and math.prod(n for n in wanted if n != -1) == 0:
        wanted = tuple(0 if n == -1 else n for n in wanted)
    if any(n < -1 for n in wanted):
        raise node.problem(f"shape is {wanted}; expected lengths of -1 or more")
    return like(ops.reshape(x, wanted), x)


def flatten(node: Node, x: Value, *, axis: int = 1) -> Value:
    at = axis if axis == x.ndim else axis_of(node, axis, x.ndim) if x.ndim else 0
    return like(ops.reshape(x, (math.prod(x.shape[:at]), math.prod(x.shape[at:]))), x)


def transpose(node: Node, x: Value, *, perm: Any = None) -> Value:
    order = tuple(reversed(range(x.ndim))) if perm is None else ints(node, perm, "perm")
    return like(ops.transpose(x, order), x) if x.ndim else x


def squeeze(node: Node, x: Value, axes: Any = None) -> Value:
    chosen = None if axes is None else axes_of(node, ints(node, axes, "axes"), x.ndim)
    return like(ops.squeeze(x, chosen), x)


def unsqueeze(node: Node, x: Value, axes: Any) -> Value:
    wanted = ints(node, axes, "axes")
    new = axes_of(node, wanted, x.ndim + len(wanted))
    lengths = iter(x.shape)
    return like(ops.reshape(x, tuple(1 if a in new else next(lengths) for a in range(x.ndim + len(new)))), x)


def expand(node: Node, x: Value, shape: Value) -> Value:
    """Broadcasting in both directions: x may have the longer axes."""
    full = np.broadcast_shapes(x.shape, ints(node, shape, "shape"))
    node.allow(full, x.dtype.itemsize)
    return like(ops.broadcast_to(x, full), x)


def tile(node: Node, x: Value, repeats: Value) -> Value:
    times = ints(node, repeats, "repeats")
    if len(times) != x.ndim or any(n < 0 for n in times):
        raise node.problem(f"repeats is {times} for x of shape {x.shape}; expected a number of 0 or more for each axis")
    node.allow((n * t for n, t in zip(x.shape, times, strict=True)), x.dtype.itemsize)
    return like(ops.tile(x, times), x)


def concat(node: Node, *parts: Value, axis: int = 1) -> Value:
    axis = axis_of(node, axis, parts[0].ndim)
    length = sum(p.shape[axis] for p in parts if p.ndim > axis)
    node.allow((*parts[0].shape[:axis], length, *parts[0].shape[axis + 1 :]), parts[0].dtype.itemsize)
    return like(ops.concat(parts, axis), parts[0])


def pad(node: Node, x: Value, pads: Any = None, constant_value: Value = None, axes: Value = None, *,
        mode: str = "constant", value: float = 0.0, paddings: Any = None) -> Value:  # fmt: skip
    """Begins of all axes, then ends; negative ones crop. `paddings` is opset 1's word, `value` that of opset 10."""
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in modes:
        raise node.unsupported(f"mode is {mode!r}; known: {', '.join(modes)}")
    numbers = ints(node, paddings if pads is None else pads, "pads")
    padded = tuple(range(x.ndim)) if axes is None else axes_of(node, ints(node, axes, "axes"), x.ndim)
    if len(numbers) != 2 * len(padded):
        raise node.problem(f"pads is {numbers}; expected {2 * len(padded)} numbers for x of shape {x.shape}")
    widths = [(0, 0)] * x.ndim
    for axis, begin, end in zip(padded, numbers[: len(padded)], numbers[len(padded) :], strict=True):
        widths[axis] = (begin, end)
    node.allow((n + b + e for n, (b, e) in zip(x.shape, widths, strict=True)), x.dtype.itemsize)
    fill = value if constant_value is None else number(node, constant_value, "constant_value")
    fill = fill if isinstance(x, Tensor) else int(fill)
    return like(ops.pad(x, widths, fill, modes[mode]), x)


def depth_to_space(node: Node, x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    """Blocks of channels become blocks of pixels; the block is the outer (DCR) or the inner part of the channels."""
    n, c, h, w = _image(node, x)
    b = blocksize
    if b < 1 or c % (b * b):
        raise node.problem(f"blocksize is {b}, x has {c} channels; expected a divisor of them when squared")
    if mode == "DCR":
        y = ops.transpose(ops.reshape(x, n, b, b, c // b**2, h, w), 0, 3, 4, 1, 5, 2)
    else:
        y = ops.transpose(ops.reshape(x, n, c // b**2, b, b, h, w), 0, 1, 4, 2, 5, 3)
    return like(ops.reshape(y, n, c // b**2, h * b, w * b), x)


def space_to_depth(node: Node, x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    """The opposite of `depth_to_space`."""
    n, c, h, w = _image(node, x)
    b = blocksize
    if b < 1 or h % b or w % b:
        raise node.problem(f"blocksize is {b}, x has the plane {h, w}; expected a divisor of both")
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    y = ops.transpose(ops.reshape(x, n, c, h // b, b, w // b, b), order)
    return like(ops.reshape(y, n, c * b**2, h // b, w // b), x)


def _image(node: Node, x: Value) -> tuple[int, int, int, int]:
    if x.ndim != 4:
        raise node.problem(f"x has shape {x.shape}; expected (N, C, H, W)")
    n, c, h, w = x.shape
    return n, c, h, w


def center_crop_pad(node: Node, x: Value, shape: Value, *, axes: Any = None) -> Value:
    """The middle of x, or x in the middle of zeros, so that it has this shape."""
    wanted = ints(node, shape, "shape")
    chosen = range(x.ndim) if axes is None else axes_of(node, ints(node, axes, "axes"), x.ndim)
    widths = [(0, 0)] * x.ndim
    for axis, m in zip(chosen, wanted, strict=True):
        more = m - x.shape[axis]
        begin = more // 2 if more >= 0 else -(-more // 2)
        widths[axis] = (begin, more - begin)
    node.allow((n + b + e for n, (b, e) in zip(x.shape, widths, strict=True)), x.dtype.itemsize)
    return like(ops.pad(as_tensor(x), widths, 0), x)
