# SPDX-License-Identifier: Apache-2.0
"""Pooling of device arrays, by the names and arguments of `_core`."""

import math
from typing import Any

from .. import _core
from .._core import device_pool, device_scatter_positions
from ..arrays import dtype_word
from .place import Array, Place, array_module, image_shape, spatial


def _pool(problem: _core.PoolProblem, pass_: str, place: Place, image: tuple[int, str, int, int], dtype: Any,
          norm: float, **buffers: Array | None) -> None:  # fmt: skip
    names = ("x", "y", "indices", "offsets", "dy", "dx")
    addresses = [image[0] if name == "x" else place.address(buffers.get(name)) for name in names]
    device_pool(problem, pass_, dtype_word(dtype), image[1], image[2], image[3], addresses, norm, place.device,
              place.stream)  # fmt: skip


def _pool_forward(problem: _core.PoolProblem, x: Array, norm: float, winners: str | None) -> tuple[Array, Array | None]:
    place = Place("pool", x=x)
    image = place.image(x, problem.layout)
    shape = image_shape(x.shape[0], problem.c, problem.output_size, image[1])
    y = place.empty(shape, x.dtype)
    kinds = {"indices": place.xp.int64, "offsets": place.xp.uint8}
    found = place.empty(shape, kinds[winners]) if winners else None
    _pool(problem, "fwd", place, image, x.dtype, norm, y=y, **({winners: found} if winners else {}))
    if image[1] != problem.layout:  # a view of channels-last memory gives such a view again
        axes = (0, x.ndim - 1, *range(1, x.ndim - 1))
        y, found = y.transpose(axes), None if found is None else found.transpose(axes)
    return y, found


def pool_forward(problem: _core.PoolProblem, x: Array, norm: float, return_indices: bool,
                 options: _core.Options) -> tuple[Array, Array | None]:  # fmt: skip
    extreme = problem.kind in ("max", "min")
    return _pool_forward(problem, x, norm, "indices" if return_indices and extreme else None)


def pool_forward_offsets(problem: _core.PoolProblem, x: Array, options: _core.Options) -> tuple[Array, Array | None]:
    return _pool_forward(problem, x, 1.0, "offsets")


def offset_positions(problem: _core.PoolProblem, offsets: Array, options: _core.Options) -> Array:
    """The int64 positions of winners that are known by the numbers of their taps."""
    xp, rank = array_module(), len(problem.size)
    first = problem.layout == "channels_first"
    base = xp.zeros((1,) * offsets.ndim, dtype=xp.int64)
    below = xp.zeros(1, dtype=xp.int64)
    for axis in range(rank):
        step = math.prod(problem.size[axis + 1 :])
        starts = xp.arange(problem.output_size[axis]) * problem.stride[axis] - problem.pad_begin[axis]
        shape = [1] * offsets.ndim
        shape[axis + (2 if first else 1)] = -1
        base = base + (starts * step).reshape(shape)
        taps = xp.arange(problem.window[axis]) * (problem.dilation[axis] * step)
        below = (below[:, None] + taps).reshape(-1)
    return base + below[offsets.astype(xp.int64)]


def pool_backward(problem: _core.PoolProblem, dy: Array, x: Array | None, y: Array | None, norm: float,
                  options: _core.Options) -> Array:  # fmt: skip
    place = Place("pool_backward", dy=dy, x=x, y=y)
    shape = image_shape(dy.shape[0], problem.c, problem.size, problem.layout)
    dx = place.empty(shape, dy.dtype)
    image = place.image(place.dense(x if x is not None else dx), problem.layout)
    if x is None:
        image = (0, *image[1:])
    _pool(problem, "bwd_data", place, image, dy.dtype, norm, y=y, dy=dy, dx=dx)
    return dx


def pool_backward_offsets(problem: _core.PoolProblem, dy: Array, offsets: Array, options: _core.Options) -> Array:
    place = Place("pool_backward", dy=dy, offsets=offsets)
    dx = place.empty(image_shape(dy.shape[0], problem.c, problem.size, problem.layout), dy.dtype)
    image = (0, *place.image(dx, problem.layout)[1:])
    _pool(problem, "bwd_data", place, image, dy.dtype, 1.0, offsets=offsets, dy=dy, dx=dx)
    return dx


def scatter_positions(values: Array, indices: Array, x_shape: Any, layout: str, least: int,
                      options: _core.Options) -> Array:  # fmt: skip
    """Values added at their positions in planes of zeros. Positions outside of the plane are left out: to look at them
    here would be to wait for the device."""
    place = Place("scatter_positions", values=values, indices=indices)
    channels = x_shape[1] if layout == "channels_first" else x_shape[-1]
    pixels = math.prod(spatial(x_shape, layout))
    outputs = math.prod(spatial(values.shape, layout))
    plane = place.empty(x_shape, values.dtype)
    device_scatter_positions(place.address(values), place.address(indices), place.address(plane),
                           dtype_word(values.dtype), layout, (x_shape[0], channels, pixels, outputs), place.device,
                           place.stream)  # fmt: skip
    return plane


def gather_positions(plane: Array, indices: Array, layout: str, least: int, options: _core.Options) -> Array:
    """The values at positions; 0 where -1 names none."""
    xp = array_module()
    n = plane.shape[0]
    if layout == "channels_first":
        flat, at, axis = plane.reshape(n, plane.shape[1], -1), indices.reshape(n, plane.shape[1], -1), 2
    else:
        flat, at, axis = plane.reshape(n, -1, plane.shape[-1]), indices.reshape(n, -1, plane.shape[-1]), 1
    taken = xp.take_along_axis(flat, xp.maximum(at, 0), axis=axis)
    return xp.where(at < 0, taken.dtype.type(0), taken).reshape(indices.shape)


def last_positions(indices: Array, x_shape: Any, layout: str, options: _core.Options) -> Array:
    """Of equal positions in a channel the last one stays; the others become -1."""
    xp = array_module()
    n, last = indices.shape[0], layout == "channels_last"
    flat = (
        indices.reshape(n, -1, indices.shape[-1]).swapaxes(1, 2) if last else indices.reshape(n, indices.shape[1], -1)
    )
    order = xp.argsort(flat * flat.shape[2] + xp.arange(flat.shape[2]), axis=2)  # by position, then as they came
    by_position = xp.take_along_axis(flat, order, axis=2)
    ends = xp.ones(by_position.shape, dtype=bool)
    ends[..., :-1] = by_position[..., 1:] != by_position[..., :-1]
    kept = xp.take_along_axis(xp.where(ends, by_position, -1), xp.argsort(order, axis=2), axis=2)
    return (kept.swapaxes(1, 2) if last else kept).reshape(indices.shape)
