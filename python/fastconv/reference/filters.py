# SPDX-License-Identifier: Apache-2.0
"""Correlation and convolution in SciPy's words: the image is padded by numpy.pad, then one shifted copy per tap."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_NUMPY_WORDS = {
    "reflect": "symmetric",
    "symm": "symmetric",
    "mirror": "reflect",
    "nearest": "edge",
    "wrap": "wrap",
    "constant": "constant",
    "fill": "constant",
}


def correlate(
    image: Array,
    kernel: Array,
    mode: str = "same",
    boundary: str = "reflect",
    axes: tuple[int, ...] | None = None,
    cval: float = 0.0,
    origin: int = 0,
) -> Array:
    """e[i] = sum over k of kernel[k] * image[i + k - size // 2 - origin] along `axes`, all by default.

    One kernel of as many axes; "full" and "valid" as in scipy.signal.
    """
    image, kernel = np.asarray(image, np.float64), np.asarray(kernel, np.float64)
    axes = tuple(range(image.ndim)) if axes is None else axes
    widths, plane = [(0, 0)] * image.ndim, list(image.shape)
    for axis, taps in zip(axes, kernel.shape, strict=True):
        begin = taps // 2 + origin
        widths[axis] = {"same": (begin, taps - 1 - begin), "full": (taps - 1, taps - 1), "valid": (0, 0)}[mode]
        plane[axis] += sum(widths[axis]) - taps + 1
    word = _NUMPY_WORDS[boundary]
    padded = np.pad(image, widths, word, **({"constant_values": cval} if word == "constant" else {}))  # type: ignore[call-overload]
    result = np.zeros(plane)
    for k in itertools.product(*(range(taps) for taps in kernel.shape)):
        shifted = [slice(0, n) for n in plane]
        for axis, offset in zip(axes, k, strict=True):
            shifted[axis] = slice(offset, offset + plane[axis])
        result += kernel[k] * padded[tuple(shifted)]
    return result


def convolve(
    image: Array,
    kernel: Array,
    mode: str = "same",
    boundary: str = "reflect",
    axes: tuple[int, ...] | None = None,
    cval: float = 0.0,
    origin: int = 0,
) -> Array:
    """e[i] = sum over k of kernel[k] * image[i - k + size // 2 + origin], by turning the image around, not the kernel.

    With the boundaries "fill" and "symm" size // 2 is (size - 1) // 2.
    """
    image, kernel = np.asarray(image, np.float64), np.asarray(kernel, np.float64)
    axes = tuple(range(image.ndim)) if axes is None else axes
    turned = np.flip(image, axes)
    if boundary in ("fill", "symm") and mode == "same":
        # An even size has its other middle: one axis at a time has this, so a kernel with a zero more is used.
        odd = [(0, 0) if taps % 2 else (1, 0) for taps in kernel.shape]
        kernel = np.pad(kernel, odd)
        # The zero in front moves the taps by one place, which is what the other middle asks for.
    return np.flip(correlate(turned, kernel, mode, boundary, axes, cval, origin), axes)
