# SPDX-License-Identifier: Apache-2.0
"""Normalisation."""

import math
from typing import Any

import numpy as np


def batch_norm(w: Any, call: Any, x: str, gamma: str, beta: str, mean: str, variance: str) -> str:
    return w.node("BatchNormalization", [x, gamma, beta, mean, variance], epsilon=call.static["eps"])


def batch_norm_of_batch(w: Any, call: Any, x: str, gamma: str, beta: str) -> str:
    """By the batch's own statistics, as a layer without running ones does."""
    ndim, dtype = len(call.inputs[0].shape), call.inputs[0].dtype
    column = (-1, *(1,) * (ndim - 2))
    axes = w.array([0, *range(2, ndim)])
    centred = w.node("Sub", [x, w.node("ReduceMean", [x, axes])])
    variance = w.node("ReduceMean", [w.node("Mul", [centred, centred]), axes])
    deviation = w.node("Sqrt", [w.node("Add", [variance, w.array(call.static["eps"], dtype)])])
    normal = w.node("Div", [centred, deviation])
    scaled = w.node("Mul", [normal, w.reshape(gamma, column, depends=False)])
    return w.node("Add", [scaled, w.reshape(beta, column, depends=False)])


def group_norm(w: Any, call: Any, x: str, gamma: str, beta: str) -> str:
    """Rows are LayerNormalization's, single channels InstanceNormalization's; groups are made channels of that."""
    shape, dtype = call.inputs[0].shape, call.inputs[0].dtype
    groups, eps, layout = call.static["groups"], call.static["eps"], call.static["layout"]
    if len(shape) == 2 and groups == 1:
        return w.node("LayerNormalization", [x, gamma, beta], axis=-1, epsilon=eps)
    x = w.channels_first(x, len(shape), layout)
    channels = call.inputs[1].shape[0]
    if groups == channels and len(shape) > 2:
        y = w.node("InstanceNormalization", [x, gamma, beta], epsilon=eps)
        return w.channels_back(y, len(shape), layout)
    first = shape if layout == "channels_first" else (shape[0], shape[-1], *shape[1:-1])
    rows = w.reshape(x, (shape[0], groups, math.prod(shape[1:]) // groups))
    ones, zeros = w.array(np.ones(groups), dtype), w.array(np.zeros(groups), dtype)
    normal = w.reshape(w.node("InstanceNormalization", [rows, ones, zeros], epsilon=eps), first)
    column = (channels, *(1,) * (len(shape) - 2))
    scaled = w.node("Mul", [normal, w.reshape(gamma, column, depends=False)])
    return w.channels_back(w.node("Add", [scaled, w.reshape(beta, column, depends=False)]), len(shape), layout)


def response_norm(w: Any, call: Any, x: str) -> str:
    """LRN where its window is that of ONNX; else the sums are those of an average pooling."""
    shape, dtype, s = call.inputs[0].shape, call.inputs[0].dtype, call.static["windows"]
    size = s.before + s.after + 1
    first = shape if s.layout == "channels_first" else (shape[0], shape[-1], *shape[1:-1])
    x = w.channels_first(x, len(shape), s.layout)
    if not s.spatial and s.after == s.before:  # ONNX Runtime takes no even window
        plane = len(shape) == 4  # nor other dimensions
        x = x if plane else w.reshape(x, (*first[:2], 1, math.prod(first[2:])))
        y = w.node("LRN", [x], size=size, alpha=s.alpha * size, beta=s.beta, bias=s.k)
        return w.channels_back(y if plane else w.reshape(y, first), len(shape), s.layout)
    squares = w.node("Mul", [x, x])
    rank = len(shape) - 2 if s.spatial else 2
    if not s.spatial:  # the channels as rows of one plane
        squares = w.reshape(squares, (shape[0], 1, first[1], math.prod(first[2:])))
    window = [size] * rank if s.spatial else [size, 1]
    begin = [s.before] * rank if s.spatial else [s.before, 0]
    end = [s.after] * rank if s.spatial else [s.after, 0]
    means = w.node("AveragePool", [squares], kernel_shape=window, pads=[*begin, *end], strides=[1] * rank,
                   count_include_pad=1)  # fmt: skip
    if not s.spatial:
        means = w.reshape(means, first)
    sums = w.node("Mul", [means, w.array(s.alpha * math.prod(window), dtype)])
    base = w.node("Add", [sums, w.array(s.k, dtype)])
    y = w.node("Div", [x, w.node("Pow", [base, w.array(s.beta, dtype)])])
    return w.channels_back(y, len(shape), s.layout)
