# SPDX-License-Identifier: Apache-2.0
"""Pooling. ONNX's ceil_mode is not used: the padding at the end is written as wide as the last window reaches, or as
wide as at the beginning where that adds no window: some readers (pnnx) know no other."""

import math
from typing import Any, NamedTuple

import numpy as np

from ..._core import UnsupportedError
from ...ops.pool import AvgPool
from ...tensor import Tensor


class _Windows(NamedTuple):
    """A pooling's windows, per spatial axis. cells: those of x that each window of an axis has."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    dilation: tuple[int, ...]
    cells: list[np.ndarray]

    @property
    def words(self) -> dict[str, list[int]]:
        words = {"kernel_shape": [*self.window], "strides": [*self.stride], "pads": [*self.begin, *self.end]}
        return words | ({"dilations": [*self.dilation]} if any(d > 1 for d in self.dilation) else {})


def _windows(problem: Any) -> _Windows | None:
    """None: the windows differ in size, as those of an adaptive pooling may."""
    size, output = problem.size, problem.output_size
    if problem.window == (1,) * len(size) == problem.stride and output != size:
        if any(n % m for n, m in zip(size, output, strict=True)):
            return None
        window = tuple(n // m for n, m in zip(size, output, strict=True))
        zeros, ones = (0,) * len(size), (1,) * len(size)
        return _Windows(
            window, window, zeros, zeros, ones, [np.full(m, f) for m, f in zip(output, window, strict=True)]
        )
    end, cells = [], []
    for n, m, f, s, d, b in zip(size, output, problem.window, problem.stride, problem.dilation, problem.pad_begin,
                                strict=True):  # fmt: skip
        reach = (f - 1) * d + 1
        same = (n + 2 * b - reach) // s + 1 == m
        end.append(b if same else max(0, (m - 1) * s + reach - n - b))
        places = np.arange(m)[:, None] * s - b + np.arange(f) * d
        cells.append(((places >= 0) & (places < n)).sum(1))
    return _Windows(problem.window, problem.stride, problem.pad_begin, tuple(end), problem.dilation, cells)


def extreme_pool(w: Any, call: Any, x: str) -> Any:
    g = call.static["g"]
    ndim, smallest = len(g.x_shape), g.problem.kind == "min"
    windows = _windows(g.problem)
    x = w.channels_first(x, ndim, g.layout)
    with_indices = call.static["return_indices"]
    if windows is None:
        if with_indices:
            raise UnsupportedError("export: the indices of an adaptive pooling whose windows differ in size")
        op_type = "ReduceMin" if smallest else "ReduceMax"
        return w.channels_back(_in_pieces(w, x, g.problem, op_type), ndim, g.layout)
    x = w.node("Neg", [x]) if smallest else x
    if math.prod(g.problem.output_size) == 1 and not with_indices and windows.window == g.problem.size:
        y, places = w.node("GlobalMaxPool", [x]), None
    else:
        made = w.node("MaxPool", [x], 2 if with_indices else 1, **windows.words)
        y, places = made if with_indices else (made, None)
    y = w.channels_back(w.node("Neg", [y]) if smallest else y, ndim, g.layout)
    if places is None:
        return y
    # ONNX counts through the whole tensor, fastconv through one plane.
    places = w.node("Mod", [places, w.array(math.prod(g.problem.size))])
    return y, w.channels_back(places, ndim, g.layout)


def _in_pieces(w: Any, x: str, problem: Any, op_type: str) -> str:
    """An adaptive pooling axis by axis: a reduction of each piece, the results joined."""
    for axis, (n, m) in enumerate(zip(problem.size, problem.output_size, strict=True), 2):
        if n == m:
            continue
        parts = []
        for o in range(m):
            begin, end = o * n // m, -(-(o + 1) * n // m)
            part = w.node("Slice", [x, w.array([begin]), w.array([end]), w.array([axis])])
            parts.append(w.node(op_type, [part, w.array([axis])], keepdims=1))
        x = parts[0] if m == 1 else w.node("Concat", parts, axis=axis)
    return x


def average_pool(w: Any, call: Any, x: str) -> str:
    """By the cells of x in each window; another divisor is a factor, which the average of ones shows."""
    problem = call.static["problem"]
    shape, dtype = call.inputs[0].shape, call.inputs[0].dtype
    layout = problem.layout
    x = w.channels_first(x, len(shape), layout)
    windows = _windows(problem)
    if windows is None:
        return w.channels_back(_in_pieces(w, x, problem, "ReduceMean"), len(shape), layout)
    ones = Tensor(np.ones(shape, np.float64))
    y = AvgPool.apply(ones, problem=problem).data
    factors = y[0, 0] if layout == "channels_first" else y[0, ..., 0]
    inside = np.ones(problem.output_size)
    for axis, cells in enumerate(windows.cells):
        inside = inside * cells.reshape(-1, *(1,) * (len(windows.cells) - axis - 1))
    taps = math.prod(windows.window)
    if math.prod(problem.output_size) == 1 and windows.window == problem.size and np.all(factors == 1):
        y = w.node("GlobalAveragePool", [x])
    elif np.allclose(factors, 1):
        y = w.node("AveragePool", [x], count_include_pad=0, **windows.words)
    elif np.allclose(factors * taps, inside):
        y = w.node("AveragePool", [x], count_include_pad=1, **windows.words)
    else:
        y = w.node("AveragePool", [x], count_include_pad=0, **windows.words)
        y = w.node("Mul", [y, w.array(factors, dtype)])
    return w.channels_back(y, len(shape), layout)


def lp_pool(w: Any, call: Any, x: str) -> str:
    """LpPool for a whole p; else powers, an average of the taps, and the root."""
    g, p = call.static["g"], call.static["norm"]
    ndim, dtype, signed = len(g.x_shape), call.inputs[0].dtype, g.problem.kind == "signed_lp"
    x, windows = w.channels_first(x, ndim, g.layout), _windows(g.problem)
    if windows is None:
        raise UnsupportedError("export: an adaptive norm whose windows differ in size")
    words = windows.words
    if not signed and p == int(p):
        everywhere = math.prod(g.problem.output_size) == 1 and windows.window == g.problem.size
        y = w.node("GlobalLpPool", [x], p=int(p)) if everywhere else w.node("LpPool", [x], p=int(p), **words)
        return w.channels_back(y, ndim, g.layout)
    powers = w.node("Pow", [x if signed else w.node("Abs", [x]), w.array(p, dtype)])
    sums = w.node("AveragePool", [powers], count_include_pad=1, **words)
    sums = w.node("Mul", [sums, w.array(math.prod(windows.window), dtype)])
    if p != 1:
        root = w.node("Pow", [w.node("Abs", [sums]), w.array(1 / p, dtype)])
        sums = w.node("Mul", [root, w.node("Sign", [sums])]) if signed else root
    return w.channels_back(sums, ndim, g.layout)


def last_positions(w: Any, call: Any, indices: str) -> str:
    """Nothing to do: where a position comes twice, MaxUnpool keeps the later value too."""
    return indices


def unpool(w: Any, call: Any, values: str) -> str:
    """MaxUnpool with windows that span the whole plane of y, one cell apart."""
    s, indices = call.static, call.static["indices"]
    layout, full = s["layout"], s["x_shape"]
    ndim = len(full)
    first = full if layout == "channels_first" else (full[0], full[-1], *full[1:-1])
    shape = call.inputs[0].shape
    plane = shape[2:] if layout == "channels_first" else shape[1:-1]
    places = w.channels_first(w.static(indices), ndim, layout)
    values = w.channels_first(values, ndim, layout)
    # From positions in one plane to positions in the whole tensor.
    planes = w.node("Shape", [values], start=0, end=2)
    count = w.node("ReduceProd", [planes], keepdims=0)
    numbers = w.node("Range", [w.array(0), count, w.array(1)])
    column = w.node("Concat", [planes, w.array([1] * len(plane))], axis=0)
    offsets = w.node("Mul", [w.node("Reshape", [numbers, column]), w.array(math.prod(first[2:]))])
    window = [m - n + 1 for m, n in zip(first[2:], plane, strict=True)]
    y = w.node("MaxUnpool", [values, w.node("Add", [places, offsets])], kernel_shape=window, strides=[1] * len(window))
    return w.channels_back(y, ndim, layout)
