# SPDX-License-Identifier: Apache-2.0
"""Dense layers of device arrays, by the names and arguments of `_core`.

A dense layer is a convolution of one tap over images of one pixel, so that the same plan chooses its algorithm and the
order of its sums does not depend on the batch.
"""

from .._core import ProblemError
from ..options import without_name
from .conv import conv_backward_data, conv_backward_filter, conv_forward
from .place import Array, array_module

_ONE, _ZERO = (1, 1), (0, 0)


def _image(x: Array) -> Array:
    return x.reshape(x.shape[0], 1, 1, x.shape[1])


def dense_forward(x: Array, w: Array, bias: Array | None) -> Array:
    _fit("w", w, x.shape[1], w.shape[1])
    if x.size * w.shape[0] == 0:  # no sums, or none with terms
        y = array_module().zeros((x.shape[0], w.shape[0]), x.dtype)
        return y if bias is None else y + bias
    y = conv_forward(_image(x), w.reshape(*w.shape, 1, 1), bias, None, _ONE, _ZERO, _ZERO, _ONE, 1, "zeros", 0.0,
                     "none", 0.0, "channels_last", without_name(), None)  # fmt: skip
    return y.reshape(x.shape[0], w.shape[0])


def dense_backward_data(dy: Array, w: Array) -> Array:
    _fit("w", w, dy.shape[1], w.shape[0])
    if dy.size * w.shape[1] == 0:
        return array_module().zeros((dy.shape[0], w.shape[1]), dy.dtype)
    shape = (dy.shape[0], 1, 1, w.shape[1])
    dx = conv_backward_data(_image(dy), w.reshape(*w.shape, 1, 1), shape, _ONE, _ZERO, _ZERO, _ONE, 1, "zeros",
                            "channels_last", without_name(), None)  # fmt: skip
    return dx.reshape(dy.shape[0], w.shape[1])


def dense_backward_filter(dy: Array, x: Array) -> Array:
    _fit("x", x, dy.shape[0], x.shape[0])
    if dy.size * x.shape[1] == 0:
        return array_module().zeros((dy.shape[1], x.shape[1]), dy.dtype)
    shape = (dy.shape[1], x.shape[1], 1, 1)
    dw = conv_backward_filter(_image(dy), _image(x), shape, _ONE, _ZERO, _ZERO, _ONE, 1, "zeros", 0.0, "channels_last",
                              without_name(), None)  # fmt: skip
    return dw.reshape(dy.shape[1], x.shape[1])


def _fit(name: str, array: Array, expected: int, got: int) -> None:
    if got != expected:
        raise ProblemError(f"{name} has shape {array.shape}; expected {expected} where it has {got}")
