# SPDX-License-Identifier: Apache-2.0
"""The native calls of pooling on tensors. Halves are pooled in float32: a maximum loses nothing, an average is rounded
once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..pool_geometry import pool_geometry
from .tensors import (
    LAYOUTS,
    expect_kernel_tensor,
    image_array,
    image_tensor,
    is_channels_last,
    kernels,
    options,
    stream_of,
)


class MaxStatic(NamedTuple):
    """The windows of a max pooling, one number per axis."""

    window: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    ceil_mode: bool


class AvgStatic(NamedTuple):
    """The windows of an average pooling; divisor 0: their taps."""

    window: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    ceil_mode: bool
    count_include_pad: bool
    divisor: int


def _image_shape(outer: Any, size: Any, last: bool) -> tuple[int, ...]:
    n, channels = outer  # N and C
    return (n, *size, channels) if last else (n, channels, *size)


def _max_problem(outer: Any, size: Any, last: bool, s: MaxStatic) -> Any:
    shape = _image_shape(outer, size, last)
    return pool_geometry(f"max_pool{len(size)}d", "max", len(size), shape, tuple(s.window), tuple(s.stride),
                         tuple(s.padding), tuple(s.dilation), s.ceil_mode, True, None,
                         LAYOUTS[last]).problem  # fmt: skip


def _avg_problem(outer: Any, size: Any, last: bool, s: AvgStatic) -> Any:
    shape = _image_shape(outer, size, last)
    return pool_geometry(f"avg_pool{len(size)}d", "average", len(size), shape, tuple(s.window), tuple(s.stride),
                         tuple(s.padding), 1, s.ceil_mode, s.count_include_pad, s.divisor or None,
                         LAYOUTS[last]).problem  # fmt: skip


def _wide(t: Any) -> Any:
    return t.float() if t.dtype.itemsize == 2 else t


def max_forward(x: Any, s: MaxStatic, winners: bool, indices: bool) -> tuple[Any, Any, Any]:
    """(y, winners or None, indices or None)"""
    expect_kernel_tensor(x, "x")
    last = is_channels_last(x)
    p, module = _max_problem(x.shape[:2], x.shape[2:], last, s), kernels(x)
    with stream_of(x):
        array = image_array(_wide(x), last)
        won = places = None
        if winners and p.has_offsets:
            y, won = module.pool_forward_offsets(p, array, options())
            if indices:
                places = module.offset_positions(p, won, options())
        else:
            y, places = module.pool_forward(p, array, 1.0, winners or indices, options())
            won = places
        return image_tensor(y, last).to(x.dtype), *(
            image_tensor(a, last) if wanted else None for a, wanted in ((won, winners), (places, indices))
        )


def _positions(module: Any, p: Any, winners: Any, last: bool) -> Any:
    array = image_array(winners, last)
    return module.offset_positions(p, array, options()) if winners.dtype is torch.uint8 else array


def indices_of(winners: Any, size: Any, s: MaxStatic) -> Any:
    last = is_channels_last(winners)
    p, module = _max_problem(winners.shape[:2], size, last, s), kernels(winners)
    with stream_of(winners):
        return image_tensor(_positions(module, p, winners, last), last).clone()


def scatter(dy: Any, winners: Any, size: Any, s: MaxStatic) -> Any:
    last = is_channels_last(winners)
    p, module = _max_problem(dy.shape[:2], size, last, s), kernels(dy)
    with stream_of(dy):
        array, won = image_array(_wide(dy), last), image_array(winners, last)
        if winners.dtype is torch.uint8:
            dx = module.pool_backward_offsets(p, array, won, options())
        else:
            dx = module.scatter_positions(array, won, p.x_shape, p.layout, 0, options())
        return image_tensor(dx, last).to(dy.dtype)


def gather(x: Any, winners: Any, s: MaxStatic) -> Any:
    last = is_channels_last(winners)
    p, module = _max_problem(x.shape[:2], x.shape[2:], last, s), kernels(x)
    with stream_of(x):
        places = _positions(module, p, winners, last)
        y = module.gather_positions(image_array(_wide(x), last), places, p.layout, 0, options())
        return image_tensor(y, last).to(x.dtype)


def avg_forward(x: Any, s: AvgStatic) -> Any:
    expect_kernel_tensor(x, "x")
    last = is_channels_last(x)
    p = _avg_problem(x.shape[:2], x.shape[2:], last, s)
    with stream_of(x):
        y, _ = kernels(x).pool_forward(p, image_array(_wide(x), last), 1.0, False, options())
        return image_tensor(y, last).to(x.dtype)


def avg_backward(dy: Any, size: Any, last: bool, s: AvgStatic) -> Any:
    p = _avg_problem(dy.shape[:2], size, last, s)
    with stream_of(dy):
        dx = kernels(dy).pool_backward(p, image_array(_wide(dy), last), None, None, 1.0, options())
        return image_tensor(dx, last).to(dy.dtype)
