# SPDX-License-Identifier: Apache-2.0
"""Resizing: Resize where its matrices are one of ONNX's own, else Gather or a product with them."""

import functools
import itertools
from typing import Any

import numpy as np

from ..operators.resize import taps_of

_MODES = ("nearest", "linear", "cubic")
_PLACES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")


@functools.lru_cache(maxsize=256)
def _known(n: int, m: int, mode: str, place: str, rounding: str, antialias: bool) -> Any:
    a = -0.5 if antialias else -0.75
    return dense(taps_of(n, m, m / n, mode, place, rounding, a, antialias, antialias))


def dense(taps: Any) -> np.ndarray:
    """The matrix (outputs, inputs) of taps."""
    matrix = np.zeros((taps.outputs, taps.inputs))
    for j in range(taps.outputs):
        weights = taps.weights[taps.start[j] : taps.start[j + 1]]
        matrix[j, taps.first[j] : taps.first[j] + len(weights)] = weights
    return matrix


def resample(w: Any, call: Any, x: str) -> str:
    """x with each axis multiplied by its matrix."""
    axes, shape, dtype = call.static["axes"], call.outputs[0].shape, call.inputs[0].dtype
    matrices = [(axis, dense(taps)) for axis, taps in axes]
    for mode, place in itertools.product(_MODES, _PLACES):
        roundings = ("floor", "round_prefer_floor", "round_prefer_ceil") if mode == "nearest" else ("floor",)
        for rounding, antialias in itertools.product(roundings, (False, True)):
            if antialias and (mode == "nearest" or place != "half_pixel"):
                continue
            if all(_same(m, _known(m.shape[1], m.shape[0], mode, place, rounding, antialias)) for _, m in matrices):
                sizes = w.array([shape[axis] for axis, _ in axes])
                return w.node("Resize", [x, None, None, sizes], axes=[axis for axis, _ in axes], mode=mode,
                              coordinate_transformation_mode=place, nearest_mode=rounding,
                              antialias=int(antialias) or None, exclude_outside=int(antialias) or None,
                              cubic_coeff_a=-0.5 if antialias else -0.75)  # fmt: skip
    for axis, matrix in matrices:
        x = _product(w, x, axis, matrix, len(shape), dtype)
    return x


def _same(matrix: np.ndarray, other: np.ndarray) -> bool:
    return matrix.shape == other.shape and bool(np.allclose(matrix, other, rtol=0, atol=1e-9))


def _product(w: Any, x: str, axis: int, matrix: np.ndarray, ndim: int, dtype: Any) -> str:
    if np.all((matrix == 0) | (matrix == 1)) and np.all(matrix.sum(1) == 1):
        return w.node("Gather", [x, w.array(matrix.argmax(1))], axis=axis)
    order = [a for a in range(ndim) if a != axis] + [axis]
    last = w.node("MatMul", [w.transpose(x, order), w.array(matrix.T, dtype)])
    return w.transpose(last, [order.index(a) for a in range(ndim)])
