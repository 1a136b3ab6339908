# SPDX-License-Identifier: Apache-2.0
"""One call of the native module as data: what it was given, what it should answer, and how far off it may be.

The answer is that of `fastconv.reference`: NumPy in float64, for float64 in long double. Behind the sampled
self-check (selfcheck.py), the fuzz command and the tables of docs/precision.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._core import ConvProblem, Options
from .arrays import as_dtype

Array = npt.NDArray[Any]
PASSES = ("fwd", "bwd_data", "bwd_filter")
LAYOUTS = {"nchw": "channels_first", "nhwc": "channels_last"}

# The largest finite number of each dtype.
_LARGEST = {"f16": 65504.0, "bf16": 3.3895e38, "f32": 3.4028e38, "f64": 1.7976e308}
# The steepest slope of the activations, hard_swish's at 3; a leaky ReLU's is the larger of this and its own.
_STEEPEST = 1.5
# Units in the last place by which an activation itself may be off.
_ACTIVATION_ULPS = 4


def stored_error(bound: Array, exact: Array, dtype: str) -> Array:
    """What an error of at most `bound` becomes once the result is stored in its dtype, a word as "f16"."""
    if dtype not in ("f16", "bf16"):
        return bound
    # Rounded once more, to nearest; subnormals of bfloat16 count as zero.
    eps, least = (2.0**-10, 2.0**-24) if dtype == "f16" else (2.0**-7, float(np.finfo(np.float32).tiny))
    return bound + eps / 2 * (np.abs(exact) + bound) + least


def shares_of(result: Array, exact: Array, allowed: Array, dtype: str) -> Array:
    """The error of each element as a share of what is allowed: above 1 is wrong, infinite for a NaN.

    0 where the answer itself is not finite, and where it is too large for the dtype and the result infinite.
    """
    got = result.astype(exact.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        share = np.abs(got - exact) / allowed
    overflows = np.isinf(got) & (np.sign(got) == np.sign(exact)) & (np.abs(exact) + allowed >= _LARGEST[dtype])
    share = np.where(np.isnan(share), np.inf, share)
    return np.where(overflows | ~np.isfinite(exact), 0, share)


@dataclass(frozen=True)
class Call:
    """A convolution with its arrays.

    Attributes:
        problem: what is computed.
        arrays: "x", "w", "dy", "bias" and "residual"; those that the pass does not read may be missing.
        alpha: the activation's parameter.
        pad_value: what padding mode "constant" shows.
    """

    problem: ConvProblem
    arrays: Mapping[str, Array]
    alpha: float = 0.0
    pad_value: float = 0.0

    @property
    def result_shape(self) -> tuple[int, ...]:
        p = self.problem
        return {"fwd": p.y_shape, "bwd_data": p.x_shape, "bwd_filter": p.w_shape}[p.pass_]

    @property
    def terms(self) -> int:
        """How many products are summed for one element of the result, at most."""
        p = self.problem
        epilogue = 3
        if p.pass_ == "fwd":
            return p.c // p.groups * prod(p.filter) + epilogue
        if p.pass_ == "bwd_data":
            # A cell that padding shows several times is met by a tap several times.
            copies = 1 if p.padding_mode in ("zeros", "constant") else 2**p.spatial_rank
            return p.k // p.groups * prod(p.filter) * copies + epilogue
        return max(p.n, 1) * prod(p.output_size)

    def run(self, options: Options, out: Array | None = None, native: Any = _core) -> Array:
        """The native module's answer; of `fastconv.device`, where the arrays are in a device's memory."""
        p, a = self.problem, self.arrays
        geometry = (p.stride, p.pad_begin, p.pad_end, p.dilation, p.groups, p.padding_mode)
        layout = LAYOUTS[p.layout]
        if p.pass_ == "fwd":
            epilogue = (self.pad_value, p.activation, self.alpha)
            return native.conv_forward(
                a["x"], a["w"], a.get("bias"), a.get("residual"), *geometry, *epilogue, layout, options, out
            )
        if p.pass_ == "bwd_data":
            last = (a.get("bias"), p.activation, self.alpha)
            return native.conv_backward_data(a["dy"], a["w"], p.x_shape, *geometry, layout, options, out, *last)
        return native.conv_backward_filter(a["dy"], a["x"], p.w_shape, *geometry, self.pad_value, layout, options, out)

    def run_planned(self, options: Options, native: Any = _core) -> Array:
        """Forward by a plan, whose weights are packed before."""
        p, a = self.problem, self.arrays
        layout = () if native is _core else (LAYOUTS[p.layout],)
        plan = native.Plan(p, a["w"], a.get("bias"), self.alpha, self.pad_value, options, *layout)
        return plan(a["x"], a.get("residual"))

    def exact(self) -> Array:
        """The answer in float64, in long double where the arrays are float64."""
        return self._reference(False)

    def magnitude(self) -> Array:
        """The same sums of absolute values, without the activation: what rounding errors are proportional to."""
        return self._reference(True)

    @cached_property
    def largest_sum(self) -> float:
        """The largest sum of absolute values that the tiles of a transform compute.

        They reach over the edge: a tap that meets nothing but padding in the answer meets the image in what is dropped
        there, and in the same tile.
        """
        p = self.problem
        largest = float(self.magnitude().max(initial=0))
        if p.pass_ == "bwd_filter" or p.padding_mode not in ("zeros", "constant"):
            return largest
        # A residual exists in the answer alone.
        products = replace(self, arrays={name: a for name, a in self.arrays.items() if name != "residual"})
        reach = [(r - 1) * d for r, d in zip(p.filter, p.dilation, strict=True)]
        if p.pass_ == "fwd":
            more = [-(-n // s) * s for n, s in zip(reach, p.stride, strict=True)]
            ends = zip(p.pad_begin, p.pad_end, more, strict=True)
            wide = products._reference(True, [(begin + n, end + n) for begin, end, n in ends])
        else:
            spatial = ((o - 1) * s + 1 + n for o, s, n in zip(p.output_size, p.stride, reach, strict=True))
            shape = (p.n, p.c, *spatial) if p.layout == "nchw" else (p.n, *spatial, p.c)
            wide = products._reference(True, [(0, 0)] * p.spatial_rank, shape)
        return max(largest, float(wide.max(initial=0)))

    def _reference(
        self, magnitude: bool, padding: Sequence[tuple[int, int]] | None = None, x_shape: Sequence[int] | None = None
    ) -> Array:
        from . import reference

        p = self.problem
        dtype: Any = np.longdouble if p.dtype == "f64" else np.float64
        # np.abs does not know bfloat16.
        a = {name: value.astype(dtype) for name, value in self.arrays.items()}
        if magnitude:
            a = {name: np.abs(value) for name, value in a.items()}
        words: dict[str, Any] = {
            "stride": p.stride,
            "padding": tuple(padding or zip(p.pad_begin, p.pad_end, strict=True)),
            "dilation": p.dilation,
            "groups": p.groups,
            "padding_mode": p.padding_mode,
            "layout": LAYOUTS[p.layout],
            "dtype": dtype,
        }
        # Halves hold the pad value rounded.
        pad = float(np.asarray(self.pad_value).astype(as_dtype(p.dtype)))
        pad = abs(pad) if magnitude else pad
        if p.pass_ == "bwd_filter":
            return reference.conv_backward_filter(a["dy"], a["x"], p.w_shape, **words, pad_value=pad)
        if p.pass_ == "fwd":
            y = reference.conv(a["x"], a["w"], a.get("bias"), **words, pad_value=pad, residual=a.get("residual"))
        else:
            y = reference.conv_backward_data(a["dy"], a["w"], x_shape or p.x_shape, **words)
            if "bias" in a:
                y = y + a["bias"].reshape(-1, *(1,) * (p.spatial_rank * (p.layout == "nchw")))
        return y if magnitude or p.activation == "none" else reference.activation(p.activation, y, self.alpha)

    def allowed(self, exact: Array, magnitude: Array, error_factor: float) -> Array:
        """The largest error of each element that an algorithm of this error factor may have (docs/numerics.md).

        A transform mixes the cells of its tile: its errors are relative to the largest sum of all tiles, and it counts
        as a sum of as many terms as the filter has taps at least, because it adds those where the answer has one.
        """
        p = self.problem
        info = np.finfo(np.float64 if p.dtype == "f64" else np.float32)
        scale = magnitude if error_factor <= 1 else np.full_like(magnitude, self.largest_sum)
        terms = max(self.terms, 1 if error_factor <= 1 else prod(p.filter))
        bound = max(error_factor, 1.0) * float(info.eps) * sqrt(terms) * scale + float(info.tiny)
        if p.activation != "none":
            size = np.abs(exact)
            bound = max(_STEEPEST, abs(self.alpha)) * bound + _ACTIVATION_ULPS * float(info.eps) * (size + bound)
        return stored_error(bound, exact, p.dtype)

    def shares(self, result: Array, exact: Array, magnitude: Array, error_factor: float) -> Array:
        """The error of each element of a result as a share of what is allowed: above 1 is wrong, infinite for a NaN.

        0 where the answer itself is not finite, and where it is too large for the dtype and the result infinite.
        """
        return shares_of(result, exact, self.allowed(exact, magnitude, error_factor), self.problem.dtype)
