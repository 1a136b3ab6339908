# SPDX-License-Identifier: Apache-2.0
"""Convolution, transposed convolution, patches as columns, dense layers."""

import math
from typing import Any

import numpy as np

from .arithmetic import activate
from .shape import pad_node


def conv(w: Any, call: Any, x: str, filters: str, bias: str | None, residual: str | None) -> str:
    s, dtype, ndim = call.static["static"], call.inputs[0].dtype, len(call.inputs[0].shape)
    x = w.channels_first(x, ndim, s.layout)
    begin, end = s.pad_begin, s.pad_end
    zeros = s.padding_mode == "zeros" or (s.padding_mode == "constant" and s.pad_value == 0)
    if any((*begin, *end)) and not zeros:
        widths = [(0, 0), (0, 0), *zip(begin, end, strict=True)]
        x = pad_node(w, x, widths, s.padding_mode, s.pad_value, dtype)
        begin = end = (0,) * len(begin)
    inputs = [x, filters] if bias is None else [x, filters, bias]
    y = w.node("Conv", inputs, dilations=list(s.dilation), group=s.groups, kernel_shape=list(s.w_shape[2:]),
               pads=[*begin, *end], strides=list(s.stride))  # fmt: skip
    if residual is not None:
        y = w.node("Add", [y, w.channels_first(residual, ndim, s.layout)])
    y = activate(w, y, call.static.get("kind", "none"), call.static.get("alpha", 0.0), dtype)
    return w.channels_back(y, ndim, s.layout)


def conv_transpose(w: Any, call: Any, x: str, filters: str, bias: str | None) -> str:
    """The Function is the adjoint of a convolution: its result has the shape of that one's x."""
    s, ndim = call.static["static"], len(call.inputs[0].shape)
    spatial = slice(2, None) if s.layout == "channels_first" else slice(1, -1)
    extra = [
        m - ((n - 1) * t + (f - 1) * d + 1 - b - e)
        for m, n, t, f, d, b, e in zip(s.x_shape[spatial], call.inputs[0].shape[spatial], s.stride, s.w_shape[2:],
                                       s.dilation, s.pad_begin, s.pad_end, strict=True)
    ]  # fmt: skip
    inputs = [w.channels_first(x, ndim, s.layout), filters] + ([] if bias is None else [bias])
    y = w.node("ConvTranspose", inputs, dilations=list(s.dilation), group=s.groups, kernel_shape=list(s.w_shape[2:]),
               pads=[*s.pad_begin, *s.pad_end], output_padding=extra, strides=list(s.stride))  # fmt: skip
    y = activate(w, y, call.static.get("kind", "none"), call.static.get("alpha", 0.0), call.inputs[0].dtype)
    return w.channels_back(y, ndim, s.layout)


def unfold(w: Any, call: Any, x: str) -> str:
    """A convolution of each channel with one filter for each tap, which picks it."""
    g = call.static["g"]
    filter, channels = g.w_shape[2:], g.x_shape[1]
    taps = math.prod(filter)
    picks = np.tile(np.eye(taps).reshape(taps, 1, *filter), (channels, 1, *(1,) * len(filter)))
    y = w.node("Conv", [x, w.array(picks, call.inputs[0].dtype)], dilations=list(g.dilation), group=channels,
               kernel_shape=list(filter), pads=[*g.pad_begin, *g.pad_end], strides=list(g.stride))  # fmt: skip
    return w.reshape(y, call.outputs[0].shape)


def fold(w: Any, call: Any, columns: str) -> str:
    g = call.static["g"]
    inputs = [columns, w.array(g.x_shape[2:]), w.array(g.w_shape[2:])]
    return w.node("Col2Im", inputs, dilations=list(g.dilation), pads=[*g.pad_begin, *g.pad_end], strides=list(g.stride))


def dense(w: Any, call: Any, x: str, weight: str, bias: str | None) -> str:
    return w.node("Gemm", [x, weight] if bias is None else [x, weight, bias], transB=1)
