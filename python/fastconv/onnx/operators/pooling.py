# SPDX-License-Identifier: Apache-2.0
"""MaxPool, AveragePool, LpPool, their global forms, MaxUnpool."""

import math
from typing import Any

import numpy as np

from ... import adaptive_pooling, lp_pooling, ops, pooling, unpooling
from ...pool_geometry import pool_geometry, unpool_shape
from ...tensor import Tensor, plain
from ..node import Node, Value, ints, spatial_rank
from .convolution import allow_padded, pad_end, padding_of


def _words(node: Node, x: Value, kind: str, kernel_shape: Any, strides: Any, auto_pad: str, pads: Any, dilations: Any,
           ceil_mode: int) -> tuple[int, Any, Any, Any, Any]:  # fmt: skip
    """(rank, kernel_size, stride, padding, dilation), for which the result is not too large."""
    rank = spatial_rank(node, x)
    ones = (1,) * rank
    if kernel_shape is None:
        raise node.problem("kernel_shape is missing; expected one number per spatial axis")
    window = ints(node, kernel_shape, "kernel_shape")
    stride, dilation = (ints(node, v or ones, n) for v, n in ((strides, "strides"), (dilations, "dilations")))
    padding = padding_of(node, auto_pad, pads, rank)
    allow_padded(node, x, padding)
    g = pool_geometry(kind, kind, rank, x.shape, window, stride, padding, dilation, bool(ceil_mode), True, None,
                      "channels_first")  # fmt: skip
    node.allow(g.y_shape)
    return rank, window, stride, padding, dilation


def max_pool(node: Node, x: Value, *, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Any = None,
             kernel_shape: Any = None, pads: Any = None, storage_order: int = 0,
             strides: Any = None) -> Any:  # fmt: skip
    # A maximum of integers is one of their floats: eight bits, as quantised images have, lose nothing.
    source = x if isinstance(x, Tensor) else Tensor(x.astype(np.float64))
    if not node.wants(1):
        source, pads = _without_wide_padding(node, source, kernel_shape, pads, dilations)
    rank, *words = _words(node, source, "max", kernel_shape, strides, auto_pad, pads, dilations, ceil_mode)
    pool = getattr(pooling, f"max_pool{rank}d")
    result = pool(source, *words, bool(ceil_mode), node.wants(1))
    y, indices = result if node.wants(1) else (result, None)
    y = y if isinstance(x, Tensor) else y.data.astype(x.dtype)
    return y if indices is None else (y, _global_indices(plain(indices), x.shape, storage_order))


def _without_wide_padding(node: Node, x: Tensor, kernel_shape: Any, pads: Any, dilations: Any) -> tuple[Tensor, Any]:
    """(x, pads). Padding as wide as the window, with which PyTorch wrote ceil_mode before opset 10, is laid around x:
    a window that sees nothing else has the result -inf."""
    if pads is None or kernel_shape is None:
        return x, pads
    rank = spatial_rank(node, x)
    numbers, window = ints(node, pads, "pads"), ints(node, kernel_shape, "kernel_shape")
    spans = [(f - 1) * d + 1 for f, d in zip(window, ints(node, dilations or (1,) * rank, "dilations"), strict=True)]
    if len(numbers) != 2 * rank or all(p < f for p, f in zip(numbers, spans * 2, strict=True)):
        return x, pads
    widths = padding_of(node, "NOTSET", pads, rank)
    allow_padded(node, x, widths)
    return ops.pad(x, ((0, 0), (0, 0), *widths), -math.inf), None


def _global_indices(indices: Any, x_shape: tuple[int, ...], storage_order: int) -> Any:
    """Positions in a plane as positions in the whole tensor; the plane by columns for storage_order 1."""
    plane = x_shape[2:]
    if storage_order:
        places = np.unravel_index(indices, plane)
        indices = np.ravel_multi_index(places, plane, order="F")
    first = np.arange(math.prod(x_shape[:2]), dtype=np.int64) * math.prod(plane)
    return indices + first.reshape(*x_shape[:2], *(1,) * len(plane))


def average_pool(node: Node, x: Value, *, auto_pad: str = "NOTSET", ceil_mode: int = 0, count_include_pad: int = 0,
                 dilations: Any = None, kernel_shape: Any = None, pads: Any = None,
                 strides: Any = None) -> Value:  # fmt: skip
    rank, window, stride, padding, dilation = _words(node, x, "average", kernel_shape, strides, auto_pad, pads,
                                                     dilations, ceil_mode)  # fmt: skip
    pool = getattr(pooling, f"avg_pool{rank}d")
    return pool(x, window, stride, padding, bool(ceil_mode), bool(count_include_pad), dilation=dilation)


def lp_pool(node: Node, x: Value, *, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Any = None,
            kernel_shape: Any = None, p: float = 2, pads: Any = None, strides: Any = None) -> Value:  # fmt: skip
    rank, window, stride, padding, dilation = _words(node, x, "lp", kernel_shape, strides, auto_pad, pads, dilations,
                                                     ceil_mode)  # fmt: skip
    pool = getattr(lp_pooling, f"lp_pool{rank}d")
    return pool(x, p, window, stride, bool(ceil_mode), padding=padding, dilation=dilation, signed=False)


def global_average_pool(node: Node, x: Value) -> Value:
    return getattr(adaptive_pooling, f"global_avg_pool{spatial_rank(node, x)}d")(x)


def global_max_pool(node: Node, x: Value) -> Value:
    return getattr(adaptive_pooling, f"global_max_pool{spatial_rank(node, x)}d")(x)


def global_lp_pool(node: Node, x: Value, *, p: float = 2) -> Value:
    return getattr(adaptive_pooling, f"global_lp_pool{spatial_rank(node, x)}d")(x, p)


def max_unpool(node: Node, x: Value, indices: Value, output_shape: Value = None, *, kernel_shape: Any = None,
               pads: Any = None, strides: Any = None) -> Value:  # fmt: skip
    """The indices count through the whole tensor that the windows give; a larger output_shape is filled with zeros."""
    rank = spatial_rank(node, x)
    window, stride = ints(node, kernel_shape, "kernel_shape"), ints(node, strides or (1,) * rank, "strides")
    padding = padding_of(node, "NOTSET", pads, rank)
    name = f"max_unpool{rank}d"
    _, y_shape, _ = unpool_shape(name, rank, x.shape, window, stride, padding, None, "channels_first")
    node.allow(y_shape, x.dtype.itemsize)
    plane = math.prod(y_shape[2:])
    first = np.arange(math.prod(x.shape[:2]), dtype=np.int64).reshape(*x.shape[:2], *(1,) * rank) * plane
    y = getattr(unpooling, name)(x, np.asarray(indices, np.int64) - first, window, stride, padding)
    if output_shape is None:
        return y
    wanted = ints(node, output_shape, "output_shape")
    if len(wanted) != x.ndim or wanted[:2] != x.shape[:2]:
        raise node.problem(f"output_shape is {wanted}, x has shape {x.shape}; expected the same batch and channels")
    node.allow(wanted, x.dtype.itemsize)
    return pad_end(y, wanted[2:])
