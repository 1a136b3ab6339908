# SPDX-License-Identifier: Apache-2.0
"""Resize and Upsample: a sparse matrix for each axis, by ONNX's definition of every mode.

Each output of an axis looks at a place in x, which the coordinate transformation gives; the mode turns the place into
taps and weights. (The operator's text in ONNX, and the same in words of kernels: Keys, "Cubic convolution interpolation
for digital image processing", 1981.)
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..._core import UnsupportedError
from ...ops import where
from ...ops.resample import Resample, Taps
from ...tensor import Tensor, plain
from ..node import Node, Value, axes_of, ints

Place = Callable[[int], float]

ROUNDINGS: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": lambda v: math.ceil(v - 0.5),
    "round_prefer_ceil": lambda v: math.floor(v + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


def _place(mode: str, n: int, m: int, scale: float, roi: tuple[float, float] = (0.0, 1.0)) -> Place:
    """Where output j of m looks in an axis of n cells. n scale is m before it was rounded down."""
    if mode == "half_pixel":
        return lambda j: (j + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        centre = n / 2 * (1 - m / (n * scale))
        return lambda j: centre + (j + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return lambda j: (j + 0.5) / scale - 0.5 if m > 1 else 0.0
    if mode == "align_corners":
        return lambda j: j * (n - 1) / (n * scale - 1) if m > 1 else 0.0
    if mode == "asymmetric":
        return lambda j: j / scale
    if mode == "tf_half_pixel_for_nn":
        return lambda j: (j + 0.5) / scale
    if mode == "tf_crop_and_resize":
        start, end = roi
        if m == 1:
            return lambda j: 0.5 * (start + end) * (n - 1)
        return lambda j: start * (n - 1) + j * (end - start) * (n - 1) / (m - 1)
    raise UnsupportedError(f"coordinate_transformation_mode is {mode!r}; fastconv does not know it")


def _kernel(mode: str, a: float) -> Callable[[float], float]:
    def linear(x: float) -> float:
        return max(0.0, 1 - abs(x))

    def cubic(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return ((a + 2) * x - (a + 3)) * x * x + 1
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a if x < 2 else 0.0

    return linear if mode == "linear" else cubic


def taps_of(n: int, m: int, scale: float, mode: str, place: str, rounding: str, a: float, antialias: bool,
            exclude_outside: bool) -> Taps:  # fmt: skip
    """The matrix from n to m cells by ONNX's words."""
    return _taps(n, m, scale, _place(place, n, m, scale), mode, rounding, a, antialias, exclude_outside)


def _taps(n: int, m: int, scale: float, place: Place, mode: str, rounding: str, a: float, antialias: bool,
          exclude_outside: bool) -> Taps:  # fmt: skip
    """The matrix of one axis. Beyond its ends an axis goes on with its last cell, or with exclude_outside is not there.

    antialias widens the kernel by the factor of shrinking.
    """
    if mode == "nearest":
        if rounding not in ROUNDINGS:
            raise UnsupportedError(f"nearest_mode is {rounding!r}; known: {', '.join(ROUNDINGS)}")
        columns = [min(max(ROUNDINGS[rounding](place(j)), 0), n - 1) for j in range(m)]
        return Taps(n, columns, np.arange(m + 1), np.ones(m))
    if mode not in ("linear", "cubic"):
        raise UnsupportedError(f"mode is {mode!r}; known: nearest, linear, cubic")
    width = max(1.0, 1 / scale) if antialias else 1.0
    kernel, support = _kernel(mode, a), (1 if mode == "linear" else 2) * width
    rows = []
    for j in range(m):
        at = place(j)
        low, high = math.floor(at - support) + 1, math.ceil(at + support) - 1
        if high < -1 or low > n:  # all of it is outside: the same as looking at the end
            low = high = int(min(max(at, 0), n - 1))
            at = float(low)
        weights: dict[int, float] = {}
        for i in range(low, high + 1):
            if exclude_outside and not 0 <= i < n:
                continue
            edge = min(max(i, 0), n - 1)
            weights[edge] = weights.get(edge, 0.0) + kernel((i - at) / width)
        total = sum(weights.values()) if antialias or exclude_outside else 1.0
        first, last = min(weights), max(weights)
        rows.append((first, [weights.get(i, 0.0) / total for i in range(first, last + 1)]))
    return Taps.of_rows(n, rows)


def _sizes(node: Node, shape: tuple[int, ...], axes: tuple[int, ...], scales: Any, sizes: Any,
           policy: str) -> tuple[list[int], list[float]]:  # fmt: skip
    """(cells, scale) of each of the axes."""
    lengths = [shape[a] for a in axes]
    if sizes is not None and np.size(plain(sizes)):
        wanted = list(ints(node, sizes, "sizes"))
        if len(wanted) != len(axes) or any(m < 1 for m in wanted) or 0 in lengths:
            raise node.problem(f"sizes is {wanted} for the axes {axes} of {shape}; expected a positive one for each")
        factors = [m / n for m, n in zip(wanted, lengths, strict=True)]
        if policy == "stretch":
            return wanted, factors
        if policy not in ("not_larger", "not_smaller"):
            raise node.unsupported(f"keep_aspect_ratio_policy is {policy!r}")
        factor = min(factors) if policy == "not_larger" else max(factors)
        return [math.floor(factor * n + 0.5) for n in lengths], [factor] * len(axes)
    if scales is None:
        raise node.problem("neither scales nor sizes are there; expected one of them")
    factors = [float(s) for s in np.asarray(plain(scales)).reshape(-1)]
    if len(factors) != len(axes) or not all(0 < s < math.inf for s in factors):
        raise node.problem(f"scales is {factors} for the axes {axes} of {shape}; expected a positive number for each")
    # A scale that float32 cannot hold must not lose a cell: 0.6 of 5 cells are 3.
    return [math.floor(n * s * (1 + 1e-7)) for n, s in zip(lengths, factors, strict=True)], factors


def resize(node: Node, x: Value, roi: Value = None, scales: Value = None, sizes: Value = None, *,
           antialias: int = 0, axes: Any = None, coordinate_transformation_mode: str = "half_pixel",
           cubic_coeff_a: float = -0.75, exclude_outside: int = 0, extrapolation_value: float = 0.0,
           keep_aspect_ratio_policy: str = "stretch", mode: str = "nearest",
           nearest_mode: str = "round_prefer_floor") -> Value:  # fmt: skip
    """Opset 10 had (x, scales) and looked at place j / scale."""
    place_mode = coordinate_transformation_mode
    if node.opset < 11:
        roi, scales, place_mode, nearest_mode = None, roi, "asymmetric", "floor"
    chosen = tuple(range(x.ndim)) if axes is None else axes_of(node, ints(node, axes, "axes"), x.ndim)
    cells, factors = _sizes(node, x.shape, chosen, scales, sizes, keep_aspect_ratio_policy)
    shape = list(x.shape)
    for axis, m in zip(chosen, cells, strict=True):
        shape[axis] = m
    node.allow(shape, 8)
    for axis in range(x.ndim):  # axes are resized one after the other: what lies between counts too
        node.allow((*shape[:axis], *(max(m, n) for m, n in zip(shape[axis:], x.shape[axis:], strict=True))))
    crops = place_mode == "tf_crop_and_resize"
    corners = np.asarray(plain(roi), np.float64).reshape(-1) if crops else np.zeros(2 * len(chosen))
    if len(corners) != 2 * len(chosen):
        raise node.problem(f"roi has {len(corners)} numbers; expected {2 * len(chosen)}, begin and end of each axis")
    matrices, outside = [], np.zeros((1,) * x.ndim, np.bool_)
    for i, (axis, m, factor) in enumerate(zip(chosen, cells, factors, strict=True)):
        n = x.shape[axis]
        place = _place(place_mode, n, m, factor, (corners[i], corners[i + len(chosen)]))
        if crops:
            beyond = np.array([not 0 <= place(j) <= n - 1 for j in range(m)], np.bool_)
            outside = outside | beyond.reshape(-1, *(1,) * (x.ndim - axis - 1))
        elif n == m and factor == 1:
            continue
        matrices.append((axis, _taps(n, m, factor, place, mode, nearest_mode, cubic_coeff_a, bool(antialias),
                                     bool(exclude_outside))))  # fmt: skip
    return _resampled(x, tuple(matrices), outside, extrapolation_value)


def _resampled(x: Value, matrices: Any, outside: Any, extrapolation_value: float) -> Value:
    source = x if isinstance(x, Tensor) else Tensor(x.astype(np.float64))
    y = Resample.apply(source, axes=matrices) if matrices else source
    if outside.any():
        fill = Tensor(np.array(extrapolation_value, y.dtype))
        y = where(np.broadcast_to(outside, y.shape), fill, y)
    return y if isinstance(x, Tensor) else np.round(y.data).astype(x.dtype)


def upsample(node: Node, x: Value, scales: Any = None, *, mode: str = "nearest", height_scale: float = 0.0,
             width_scale: float = 0.0) -> Value:  # fmt: skip
    """Resize by j / scale, before there was Resize; opset 1 had a scale for the height and one for the width."""
    if node.opset >= 10:
        raise node.unsupported("Upsample left ONNX with opset 10; expected Resize")
    factors = (1.0, 1.0, height_scale, width_scale) if scales is None else plain(scales)
    return resize(node, x, np.asarray(factors, np.float64), mode="linear" if mode == "bilinear" else mode)
