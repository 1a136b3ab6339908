# SPDX-License-Identifier: Apache-2.0
"""Sums of channels, normalisation and softmax of device arrays, by the names and arguments of `_core`.

Halves have float32 parameters and statistics, which come and go in it.
"""

import math
from typing import Any

from .._core import ProblemError, device_norm
from ..arrays import FLOAT32, FLOAT64, dtype_word, is_half
from .place import Array, Place

_BUFFERS = ("x", "dy", "gamma", "beta", "y", "dx", "dgamma", "dbeta", "mean", "variance")


def _norm(op: str, place: Place, like: Array, shape: tuple[int, ...], layout: str = "channels_first", log: bool = False,
          eps: float = 0.0, **buffers: Array) -> None:  # fmt: skip
    addresses = [place.address(buffers.get(name)) for name in _BUFFERS]
    device_norm(op, dtype_word(like.dtype), layout, log, eps, shape, addresses, place.device, place.stream,
                place.workspace)  # fmt: skip


def _parameter_dtype(x: Array) -> Any:
    return FLOAT32 if is_half(x.dtype) else x.dtype


def _parameters(x: Array, count: int, **given: Array) -> dict[str, Array]:
    """One number for each channel, in the dtype of the statistics."""
    for name, array in given.items():
        if array.shape != (count,):
            raise ProblemError(f"{name} has shape {array.shape}; expected ({count},)")
    return {name: array.astype(_parameter_dtype(x), copy=False) for name, array in given.items()}


def _channels(x: Array) -> tuple[int, int, int, int]:
    if x.ndim < 2:
        raise ProblemError(f"x has shape {x.shape}; expected (N, C) or (N, C, *)")
    return x.shape[0], x.shape[1], math.prod(x.shape[2:]), 1


def channel_sum(x: Array) -> Array:
    """(N, C, *) -> (C,)."""
    place, shape = Place("channel_sum", x=x), _channels(x)
    sums = place.empty(shape[1], _parameter_dtype(x))
    _norm("channel_sum", place, x, shape, x=x, dgamma=sums)
    return sums.astype(x.dtype, copy=False)


def batch_norm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    place, shape = Place("batch_norm_forward", x=x, gamma=gamma, beta=beta), _channels(x)
    if x.size == 0 and shape[1]:
        raise ProblemError(f"x has shape {x.shape}; expected at least one value per channel to take statistics of")
    y = place.empty(x.shape, x.dtype)
    mean, variance = (place.empty(shape[1], _parameter_dtype(x)) for _ in range(2))
    _norm("batch_norm_forward", place, x, shape, eps=eps, x=x, y=y, mean=mean, variance=variance,
          **_parameters(x, shape[1], gamma=gamma, beta=beta))  # fmt: skip
    return y, mean, variance


def batch_norm_inference(x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, eps: float) -> Array:
    place, shape = (
        Place("batch_norm_inference", x=x, gamma=gamma, beta=beta, mean=mean, variance=variance),
        _channels(x),
    )
    y = place.empty(x.shape, x.dtype)
    parameters = _parameters(x, shape[1], gamma=gamma, beta=beta, mean=mean, variance=variance)
    _norm("batch_norm_inference", place, x, shape, eps=eps, x=x, y=y, **parameters)
    return y


def batch_norm_backward(dy: Array, x: Array, gamma: Array, mean: Array, variance: Array,
                        eps: float) -> tuple[Array, Array, Array]:  # fmt: skip
    place = Place("batch_norm_backward", dy=dy, x=x, gamma=gamma, mean=mean, variance=variance)
    shape = _channels(x)
    _same_shape(dy, x)
    dx = place.empty(x.shape, x.dtype)
    dgamma, dbeta = (place.empty(shape[1], _parameter_dtype(x)) for _ in range(2))
    _norm("batch_norm_backward", place, x, shape, eps=eps, dy=dy, x=x, dx=dx, dgamma=dgamma, dbeta=dbeta,
          **_parameters(x, shape[1], gamma=gamma, mean=mean, variance=variance))  # fmt: skip
    return dx, dgamma, dbeta


def _groups(x: Array, groups: int, layout: str) -> tuple[int, int, int, int]:
    channels = x.shape[1] if layout == "channels_first" else x.shape[-1]
    pixels = math.prod(x.shape[2:] if layout == "channels_first" else x.shape[1:-1])
    if channels * pixels == 0 and x.shape[0]:
        raise ProblemError(f"x has shape {x.shape}; expected at least one value per group to take statistics of")
    return x.shape[0], channels, pixels, groups


def group_norm_forward(x: Array, gamma: Array, beta: Array, groups: int, eps: float,
                       layout: str) -> tuple[Array, Array, Array]:  # fmt: skip
    place, shape = Place("group_norm_forward", x=x, gamma=gamma, beta=beta), _groups(x, groups, layout)
    y = place.empty(x.shape, x.dtype)
    mean, inverse = (place.empty((shape[0], groups), FLOAT64) for _ in range(2))
    _norm("group_norm_forward", place, x, shape, layout, eps=eps, x=x, y=y, mean=mean, variance=inverse,
          **_parameters(x, shape[1], gamma=gamma, beta=beta))  # fmt: skip
    return y, mean, inverse


def group_norm_backward(dy: Array, x: Array, gamma: Array, mean: Array, inverse: Array, groups: int,
                        layout: str) -> tuple[Array, Array, Array]:  # fmt: skip
    place, shape = Place("group_norm_backward", dy=dy, x=x, gamma=gamma, mean=mean), _groups(x, groups, layout)
    _same_shape(dy, x)
    dx = place.empty(x.shape, x.dtype)
    dgamma, dbeta = (place.empty(shape[1], _parameter_dtype(x)) for _ in range(2))
    _norm("group_norm_backward", place, x, shape, layout, dy=dy, x=x, dx=dx, dgamma=dgamma, dbeta=dbeta, mean=mean,
          variance=inverse, **_parameters(x, shape[1], gamma=gamma))  # fmt: skip
    return dx, dgamma, dbeta


def softmax_forward(x: Array, log: bool) -> Array:
    """Of the rows of (N, K)."""
    place = Place("softmax_forward", x=x)
    y = place.empty(x.shape, x.dtype)
    _norm("softmax_forward", place, x, (*x.shape, 1, 1), log=log, x=x, y=y)
    return y


def softmax_backward(dy: Array, y: Array, log: bool) -> Array:
    place = Place("softmax_backward", dy=dy, y=y)
    _same_shape(dy, y)
    dx = place.empty(y.shape, y.dtype)
    _norm("softmax_backward", place, y, (*y.shape, 1, 1), log=log, dy=dy, y=y, dx=dx)
    return dx


def _same_shape(dy: Array, x: Array) -> None:
    if dy.shape != x.shape:
        raise ProblemError(f"dy has shape {dy.shape}; expected {x.shape}")
