# SPDX-License-Identifier: Apache-2.0
"""The native calls of pooling on tensors. Halves are pooled in float32: a maximum loses nothing, an average is rounded
once."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..pool_geometry import pool_geometry
from .tensors import (
    DTYPES,
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


def _native_shape(shape: Any, last: bool) -> tuple[int, ...]:
    return (shape[0], *shape[2:], shape[1]) if last else tuple(shape)


# Cached besides `pool_geometry` by what a call has at hand: x's shape as torch has it.
@functools.lru_cache(maxsize=1024)
def _max_problem(shape: Any, last: bool, s: MaxStatic) -> Any:
    rank = len(shape) - 2
    return pool_geometry(f"max_pool{rank}d", "max", rank, _native_shape(shape, last), s.window, s.stride, s.padding,
                         s.dilation, s.ceil_mode, True, None, LAYOUTS[last]).problem  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _avg_problem(shape: Any, last: bool, s: AvgStatic) -> Any:
    rank = len(shape) - 2
    return pool_geometry(f"avg_pool{rank}d", "average", rank, _native_shape(shape, last), s.window, s.stride,
                         s.padding, 1, s.ceil_mode, s.count_include_pad, s.divisor or None,
                         LAYOUTS[last]).problem  # fmt: skip


def _wide(t: Any) -> Any:
    return t.float() if t.dtype.itemsize == 2 else t


def _narrow(t: Any, dtype: Any) -> Any:
    return t if t.dtype is dtype else t.to(dtype)  # to ask costs less than a `to` that does nothing


def max_forward(x: Any, s: MaxStatic, winners: bool, indices: bool) -> tuple[Any, Any, Any]:
    """(y, winners or None, indices or None)"""
    if x.dtype not in DTYPES:
        expect_kernel_tensor(x, "x")
    last = is_channels_last(x)
    p, module = _max_problem(x.shape, last, s), kernels(x)
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
        return (
            _narrow(image_tensor(y, last), x.dtype),
            image_tensor(won, last) if winners else None,
            image_tensor(places, last) if indices else None,
        )


def _positions(module: Any, p: Any, winners: Any, last: bool) -> Any:
    array = image_array(winners, last)
    return module.offset_positions(p, array, options()) if winners.dtype is torch.uint8 else array


def indices_of(winners: Any, size: Any, s: MaxStatic) -> Any:
    last = is_channels_last(winners)
    p, module = _max_problem((*winners.shape[:2], *size), last, s), kernels(winners)
    with stream_of(winners):
        return image_tensor(_positions(module, p, winners, last), last).clone()


def scatter(dy: Any, winners: Any, size: Any, s: MaxStatic) -> Any:
    last = is_channels_last(winners)
    p, module = _max_problem((*dy.shape[:2], *size), last, s), kernels(dy)
    with stream_of(dy):
        array, won = image_array(_wide(dy), last), image_array(winners, last)
        if winners.dtype is torch.uint8:
            dx = module.pool_backward_offsets(p, array, won, options())
        else:
            dx = module.scatter_positions(array, won, p.x_shape, p.layout, 0, options())
        return _narrow(image_tensor(dx, last), dy.dtype)


def gather(x: Any, winners: Any, s: MaxStatic) -> Any:
    last = is_channels_last(winners)
    p, module = _max_problem(x.shape, last, s), kernels(x)
    with stream_of(x):
        places = _positions(module, p, winners, last)
        y = module.gather_positions(image_array(_wide(x), last), places, p.layout, 0, options())
        return _narrow(image_tensor(y, last), x.dtype)


def avg_forward(x: Any, s: AvgStatic) -> Any:
    if x.dtype not in DTYPES:
        expect_kernel_tensor(x, "x")
    last = is_channels_last(x)
    p = _avg_problem(x.shape, last, s)
    with stream_of(x):
        y, _ = kernels(x).pool_forward(p, image_array(_wide(x), last), 1.0, False, options())
        return _narrow(image_tensor(y, last), x.dtype)


def avg_backward(dy: Any, size: Any, last: bool, s: AvgStatic) -> Any:
    p = _avg_problem((*dy.shape[:2], *size), last, s)
    with stream_of(dy):
        dx = kernels(dy).pool_backward(p, image_array(_wide(dy), last), None, None, 1.0, options())
        return _narrow(image_tensor(dx, last), dy.dtype)
