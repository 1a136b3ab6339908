# SPDX-License-Identifier: Apache-2.0
"""Filters for people with images in arrays: SciPy's words, the classic kernels by name.

>>> edges = fc.correlate(photo, fc.filters.sobel("x"))
>>> soft = fc.filters.gaussian_filter(photo, sigma=2, axes=(0, 1))
"""

from .gauss import gaussian, gaussian_filter
from .kernels import (
    box,
    compose,
    edges,
    emboss,
    horizontal_lines,
    identity,
    laplacian,
    mean,
    prewitt,
    scharr,
    sharpen,
    sobel,
    vertical_lines,
)
from .sliding import convolve, correlate

__all__ = [
    "box",
    "compose",
    "convolve",
    "correlate",
    "edges",
    "emboss",
    "gaussian",
    "gaussian_filter",
    "horizontal_lines",
    "identity",
    "laplacian",
    "mean",
    "prewitt",
    "scharr",
    "sharpen",
    "sobel",
    "vertical_lines",
]
