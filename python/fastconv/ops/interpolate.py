# SPDX-License-Identifier: Apache-2.0
"""Resizing images, by PyTorch's definitions: where each output pixel looks, and with which weights."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._core import ProblemError
from ..geometry import LAYOUTS, as_int
from ..tensor import Tensor, as_tensor
from .resample import Resample, Taps

# mode: the numbers of spatial axes that it is for.
RANKS = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "trilinear": (3,),
    "bicubic": (2,),
    "area": (1, 2, 3),
}
TAKES_CORNERS = ("linear", "bilinear", "trilinear", "bicubic")


def _nearest(n: int, m: int, scale: float | None, exact: bool) -> Taps:
    """One tap each. In float32 and in PyTorch's order, so that every index is PyTorch's."""
    at, step = np.arange(m), np.float32(1 / scale) if scale else np.float32(n) / np.float32(m)
    if exact:
        index = np.floor(((at + 0.5) * np.float64(step)).astype(np.float32)).astype(np.int64)
    else:
        index = np.floor(at.astype(np.float32) * step).astype(np.int64)
    return Taps(n, np.minimum(index, n - 1), np.arange(m + 1), np.ones(m))


def _cubic(x: float, a: float) -> float:
    """Keys' cubic convolution kernel (1981)."""
    x = abs(x)
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a if x < 2 else 0.0


def _row(n: int, weights: dict[int, float]) -> tuple[int, list[float]]:
    """Weights by column as (first column, weights); columns beyond the border count for the edge; zeros at both ends
    are left out, so that an infinity reaches only what it has a part in."""
    inside: dict[int, float] = {}
    for i, w in weights.items():
        edge = min(max(i, 0), n - 1)
        inside[edge] = inside.get(edge, 0.0) + w
    used = [i for i, w in inside.items() if w != 0]
    first, last = min(used, default=0), max(used, default=-1)
    return first, [inside.get(i, 0.0) for i in range(first, last + 1)]


def _smooth(n: int, m: int, step: float, corners: bool, cubic: bool) -> Taps:
    """Two taps of the linear kernel or four of the cubic one (a = -0.75)."""
    rows = []
    for j in range(m):
        at = step * j if corners else step * (j + 0.5) - 0.5
        if not cubic:
            at = max(at, 0.0)
        low = math.floor(at)
        t = at - low
        if cubic:
            rows.append(_row(n, {low + i: _cubic(t - i, -0.75) for i in (-1, 0, 1, 2)}))
        else:
            rows.append(_row(n, {low: 1 - t, low + 1: t}))
    return Taps.of_rows(n, rows)


def _antialiased(n: int, m: int, step: float, cubic: bool) -> Taps:
    """The kernel widened by the step where that is larger than 1, as Pillow does; the cubic has a = -0.5."""
    width = max(step, 1.0)
    support = (2.0 if cubic else 1.0) * width
    kernel: Callable[[float], float] = (lambda x: _cubic(x, -0.5)) if cubic else (lambda x: max(0.0, 1 - abs(x)))
    rows = []
    for j in range(m):
        centre = step * (j + 0.5)
        low, high = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), n)
        weights = [kernel((i - centre + 0.5) / width) for i in range(low, high)]
        rows.append((low, [w / sum(weights) for w in weights]))
    return Taps.of_rows(n, rows)


def _area(n: int, m: int) -> Taps:
    """Means over the cells that an output covers in part: adaptive average pooling."""
    spans = [(j * n // m, -(-(j + 1) * n // m)) for j in range(m)]
    return Taps.of_rows(n, [(low, [1 / (high - low)] * (high - low)) for low, high in spans])


@functools.lru_cache(maxsize=256)
def resize_taps(mode: str, n: int, m: int, scale: float | None, corners: bool, antialias: bool) -> Taps:
    """The matrix from n to m cells. scale: the factor that sets the step between outputs; None is m / n."""
    if mode == "area":
        return _area(n, m)
    if mode.startswith("nearest"):
        return _nearest(n, m, scale, mode == "nearest-exact")
    step = 1 / scale if scale else n / m
    if corners:
        step = (n - 1) / (m - 1) if m > 1 else 0.0
    if antialias:
        return _antialiased(n, m, step, mode == "bicubic")
    if n == m:
        step = 1.0
    return _smooth(n, m, step, corners, mode == "bicubic")


def _sizes(shape: tuple[int, ...], size: Any, scale_factor: Any) -> tuple[tuple[int, ...], list[float | None]]:
    """(output size, scale) per axis."""
    rank = len(shape)
    if (size is None) == (scale_factor is None):
        raise ProblemError(f"interpolate: size is {size}, scale_factor {scale_factor}; expected one of the two")
    name, value = ("size", size) if scale_factor is None else ("scale_factor", scale_factor)
    each = tuple(value) if isinstance(value, list | tuple) else (value,) * rank
    if len(each) != rank:
        raise ProblemError(f"interpolate: {name} is {value}; expected a number or {rank}, one per spatial axis")
    if scale_factor is None:
        return tuple(as_int(m, "size", "interpolate", 1) for m in each), [None] * rank
    if not all(isinstance(s, int | float) and s > 0 and math.isfinite(s) for s in each):
        raise ProblemError(f"interpolate: scale_factor is {scale_factor}; expected positive numbers")
    sizes = tuple(math.floor(float(n) * s) for n, s in zip(shape, each, strict=True))
    if 0 in sizes:
        raise ProblemError(f"interpolate: scale_factor {scale_factor} makes {shape} into {sizes}; expected 1 or more")
    return sizes, [float(s) for s in each]


def interpolate(x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
                *, layout: str = "channels_first") -> Tensor:  # fmt: skip
    """Resize the spatial axes of x (N, C, *), by PyTorch's definition of every mode.

    Args:
        size: of the result, an int or one per spatial axis.
        scale_factor: instead of size, a number or one per axis: the size is floor(n * scale_factor), and outputs lie
            1 / scale_factor apart.
        mode: "nearest" (the pixel at floor(j n / m)), "nearest-exact" (at the output's centre), "linear", "bilinear",
            "trilinear" (1-D, 2-D, 3-D), "bicubic" (2-D, a = -0.75), "area" (means).
        align_corners: of the smooth modes: put the centres of the corner pixels, instead of their outer corners, onto
            each other.
        recompute_scale_factor: let outputs lie n / m apart also where scale_factor was given.
        antialias: of "bilinear" and "bicubic" without align_corners: widen the kernel when shrinking.
        layout: "channels_first", or "channels_last" for x (N, *, C).

    Raises:
        ProblemError: a mode for another number of axes, sizes that are not positive, words that do not go together.
    """
    x = as_tensor(x)
    rank = x.ndim - 2
    if layout not in LAYOUTS:
        raise ProblemError(f"interpolate: layout is {layout!r}; expected one of {', '.join(LAYOUTS)}")
    if mode not in RANKS:
        raise ProblemError(f"interpolate: mode is {mode!r}; expected one of {', '.join(RANKS)}")
    if rank not in RANKS[mode]:
        dimensions = " or ".join(str(r + 2) for r in RANKS[mode])
        raise ProblemError(f"interpolate: x has shape {x.shape}; expected {dimensions} dimensions for mode {mode!r}")
    if align_corners is not None and mode not in TAKES_CORNERS:
        raise ProblemError(f"interpolate: align_corners is {align_corners}; expected None for mode {mode!r}")
    if antialias and (mode not in ("bilinear", "bicubic") or align_corners):
        raise ProblemError(
            f"interpolate: antialias=True with mode {mode!r}, align_corners={align_corners}; expected bilinear or "
            "bicubic without align_corners"
        )
    first = 2 if layout == "channels_first" else 1
    shape = x.shape[first : first + rank]
    if 0 in shape:
        raise ProblemError(f"interpolate: x has shape {x.shape}; expected at least one cell in every spatial axis")
    sizes, scales = _sizes(shape, size, scale_factor)
    if recompute_scale_factor:
        scales = [None] * rank
    axes = tuple(
        (first + i, resize_taps(mode, n, m, s, bool(align_corners), bool(antialias)))
        for i, (n, m, s) in enumerate(zip(shape, sizes, scales, strict=True))
    )
    return Resample.apply(x, axes=axes)
