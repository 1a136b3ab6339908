# SPDX-License-Identifier: Apache-2.0
"""Operations of one element at a time on device arrays, by the names and arguments of `_core`."""

import math

from .._core import ProblemError, device_pointwise
from ..arrays import dtype_word
from .norm import channel_sum
from .place import Array, Place

_BUFFERS = ("x", "dy", "w", "mask", "y", "dx")


def _pointwise(op: str, place: Place, like: Array, shape: tuple[int, int, int], activation: str = "none",
               alpha: float = 0.0, **buffers: Array) -> None:  # fmt: skip
    addresses = [place.address(buffers.get(name)) for name in _BUFFERS]
    device_pointwise(op, activation, alpha, dtype_word(like.dtype), shape, addresses, place.device, place.stream)


def _flat(x: Array) -> tuple[int, int, int]:
    return 1, 1, x.size


def activation_forward(kind: str, x: Array, alpha: float = 0.0) -> Array:
    place = Place("activation_forward", x=x)
    y = place.empty(x.shape, x.dtype)
    _pointwise("activation", place, x, _flat(x), kind, alpha, x=x, y=y)
    return y


def activation_backward(kind: str, dy: Array, saved: Array, alpha: float = 0.0) -> Array:
    place = Place("activation_backward", dy=dy, saved=saved)
    _same_shape("saved", saved, dy)
    dx = place.empty(dy.shape, dy.dtype)
    _pointwise("activation_backward", place, dy, _flat(dy), kind, alpha, dy=dy, x=saved, dx=dx)
    return dx


def _slopes(x: Array, w: Array) -> tuple[int, int, int]:
    if w.shape == (1,):
        return _flat(x)
    if x.ndim < 2 or w.shape != (x.shape[1],):
        raise ProblemError(f"w has shape {w.shape}, x {x.shape}; expected (1,) or a slope for each channel of x")
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def prelu_forward(x: Array, w: Array) -> Array:
    place = Place("prelu_forward", x=x, w=w)
    y = place.empty(x.shape, x.dtype)
    _pointwise("prelu", place, x, _slopes(x, w), x=x, w=w, y=y)
    return y


def prelu_backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array]:
    place = Place("prelu_backward", dy=dy, x=x, w=w)
    _same_shape("dy", dy, x)
    dx, below = place.empty(x.shape, x.dtype), place.empty(x.shape, x.dtype)
    shape = _slopes(x, w)
    _pointwise("prelu_backward", place, x, shape, x=x, dy=dy, w=w, y=below, dx=dx)
    return dx, channel_sum(below.reshape(shape))


def add(a: Array, b: Array) -> Array:
    place = Place("add", a=a, b=b)
    _same_shape("b", b, a)
    total = place.empty(a.shape, a.dtype)
    _pointwise("add", place, a, _flat(a), x=a, dy=b, y=total)
    return total


def scale_mask(x: Array, mask: Array, scale: float) -> Array:
    place = Place("scale_mask", x=x, mask=mask)
    if mask.dtype.kind != "b":
        raise TypeError("mask is not of dtype bool; use mask.astype(bool)")
    _same_shape("mask", mask, x)
    y = place.empty(x.shape, x.dtype)
    _pointwise("scale_mask", place, x, _flat(x), alpha=scale, x=x, mask=mask, y=y)
    return y


def _same_shape(name: str, array: Array, like: Array) -> None:
    if array.shape != like.shape:
        raise ProblemError(f"{name} has shape {array.shape}; expected {like.shape}")
