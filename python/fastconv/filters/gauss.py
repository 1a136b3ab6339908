# SPDX-License-Identifier: Apache-2.0
"""Gaussian kernels and their separable filter: one pass of a 1-D kernel along each axis. Equal to scipy.ndimage."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core import ProblemError
from ..geometry import as_int
from ..tensor import Tensor
from .sliding import as_computed, correlate, delivered


def gaussian(sigma: Any, truncate: float = 4.0, *, radius: Any = None, ndim: int = 2) -> Any:
    """The samples of a normal density of standard deviation `sigma` cells, normalised to the sum 1.

    Args:
        sigma: a number, for `ndim` axes; or one per axis, which then are as many.
        truncate: the kernel ends after this many sigmas: radius int(truncate * sigma + 0.5).
        radius: that number of cells itself, an int or one per axis.
        ndim: 1 for a vector of 2 * radius + 1 taps, 2 for a matrix, 3 for a volume.

    Raises:
        ProblemError: a sigma or truncate that is negative or no number, or lengths that differ.
    """
    sigmas = list(sigma) if isinstance(sigma, Sequence | np.ndarray) else [sigma] * as_int(ndim, "ndim", "gaussian", 1)
    radii = _per_axis(radius, len(sigmas), "radius", "gaussian")
    vectors = [_taps("gaussian", s, 0, truncate, r) for s, r in zip(sigmas, radii, strict=True)]
    return functools.reduce(np.multiply.outer, vectors)


def gaussian_filter(
    image: Any, sigma: Any, order: Any = 0, boundary: str = "reflect", *, cval: float = 0.0, truncate: float = 4.0,
    radius: Any = None, axes: Any = None, output: Any = None,
) -> Any:  # fmt: skip
    """The image smoothed by a Gaussian, or a derivative of that: scipy.ndimage.gaussian_filter, separably.

    Args:
        image: an array of any rank or a Tensor; its dtype as for `fc.correlate`.
        sigma: the standard deviation in cells, one number or one per filtered axis; an axis with 0 is left alone.
        order: 0 smooths, 1, 2, ... correlates with that derivative of the Gaussian; one number or one per axis.
        boundary, cval, output: as for `fc.correlate`. Between the axes nothing is rounded to integers.
        truncate, radius: where the kernel ends, as for `gaussian`.
        axes: the filtered axes; None is all of them, as in SciPy, the channels of an (H, W, C) image included: say
            axes=(0, 1) for those.

    Raises:
        TypeError, ProblemError: as `fc.correlate`; an axis that is named twice; lengths that differ.
    """
    caller = "gaussian_filter"
    if output is not None and isinstance(image, Tensor):
        raise TypeError(f"{caller}: output is for arrays; a Tensor's result is always new and keeps its dtype")
    y = image if isinstance(image, Tensor) else as_computed(image, caller, output)
    given = range(y.ndim) if axes is None else axes if isinstance(axes, Sequence | np.ndarray) else [axes]
    numbers = [as_int(a, "axes", caller, -y.ndim) for a in given]
    if any(a >= y.ndim for a in numbers) or len({a % y.ndim for a in numbers}) != len(numbers):
        raise ProblemError(
            f"{caller}: axes is {axes}; expected different numbers from {-y.ndim} to {y.ndim - 1} for an image of "
            f"shape {y.shape}"
        )
    words = [_per_axis(v, len(numbers), name, caller) for name, v in (("sigma", sigma), ("order", order),
                                                                      ("radius", radius))]  # fmt: skip
    for axis, s, o, r in zip(numbers, *words, strict=True):
        taps = _taps(caller, s, o, truncate, r)
        if s > 0:
            y = correlate(y, taps[::-1], "same", boundary, axis, cval=cval)
    if isinstance(y, Tensor):
        return y
    return delivered(y.copy() if y is image and output is None else y, output, caller)


def _per_axis(value: Any, count: int, name: str, caller: str) -> list[Any]:
    values = list(value) if isinstance(value, Sequence | np.ndarray) else [value] * count
    if len(values) != count:
        raise ProblemError(f"{caller}: {name} has {len(values)} entries; expected a number or {count}, one per axis")
    return values


def _taps(caller: str, sigma: Any, order: Any, truncate: float, radius: Any) -> Any:
    """The 1-D kernel, for convolution: the Gaussian times the polynomial of its derivative."""
    if not 0 <= sigma < math.inf or not 0 <= truncate < math.inf:
        raise ProblemError(f"{caller}: sigma is {sigma}, truncate {truncate}; expected numbers of at least 0")
    order = as_int(order, "order", caller, 0)
    radius = int(truncate * sigma + 0.5) if radius is None else as_int(radius, "radius", caller, 0)
    at = np.arange(-radius, radius + 1, dtype=np.float64)
    if sigma == 0:
        return (at == 0).astype(np.float64)
    density = np.exp(-0.5 * (at / sigma) ** 2)
    density /= density.sum()
    # d/dx (p(x) g(x)) = (p'(x) - x / sigma^2 p(x)) g(x), from p = 1.
    polynomial = np.polynomial.Polynomial([1.0])
    for _ in range(order):
        polynomial = polynomial.deriv() - polynomial * np.polynomial.Polynomial([0.0, 1 / sigma**2])
    return polynomial(at) * density
